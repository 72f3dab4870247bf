# One static binary in an empty image. The role is the first argument:
#
#   docker build -t rollcall .
#   docker run rollcall ensemble -c /config/ensemble.yaml
#
# It needs no writable root and no capability; mount the data of a member at a volume that user 65532 may write.

# What every image of ours has: nothing but how it is run.
FROM scratch AS base
USER 65532:65532
ENTRYPOINT ["/rollcall"]
CMD ["--help"]
EXPOSE 2181 2888 3888 8501

# An image of a binary that was built outside, statically: --target prebuilt --build-arg BINARY=path/in/the/context
FROM base AS prebuilt
ARG BINARY=rollcall
COPY --chown=0:0 ${BINARY} /rollcall

# musl: its resolver needs nothing from the root file system but /etc/resolv.conf and /etc/hosts.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY src src
COPY benches benches
COPY config/schema config/schema
RUN cargo build --release --locked --bin rollcall && cp target/release/rollcall /rollcall

FROM base
COPY --from=build --chown=0:0 /rollcall /rollcall

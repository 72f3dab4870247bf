//! Why a check failed, in words for who runs the service.

use std::net::SocketAddr;
use std::time::Duration;

use super::body::BodyPattern;
use super::exec::ExecError;
use super::grpc::GrpcError;
use super::ttl::TtlFailure;
use crate::tls::TlsDialError;

/// Why one check failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// Nothing accepted the connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Where to.
        server: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The connection was accepted, and then no HTTP response came.
    #[error("{server} sent no HTTP response: {source}")]
    Http {
        /// From where.
        server: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The response's status code is not among those that pass.
    #[error("{server} answered with status {status}")]
    Status {
        /// Who.
        server: SocketAddr,
        /// What.
        status: u16,
    },
    /// The body does not contain what it should.
    #[error("{server} sent a body without {wanted} in its first {bytes} bytes")]
    Body {
        /// Who.
        server: SocketAddr,
        /// What is looked for.
        wanted: BodyPattern,
        /// How much was read.
        bytes: usize,
    },
    /// The gRPC health service does not say that it serves.
    #[error("{server}, asked for {service:?} by gRPC: {error}")]
    Grpc {
        /// Who.
        server: SocketAddr,
        /// The gRPC service.
        service: String,
        /// What it says instead.
        error: GrpcError,
    },
    /// The program has not passed.
    #[error("{program}: {error}")]
    Exec {
        /// Which.
        program: String,
        /// What became of it.
        error: ExecError,
    },
    /// The agent does not say that the server is to be used.
    #[error("{server} says {said:?}")]
    Agent {
        /// Who.
        server: SocketAddr,
        /// Its words.
        said: String,
    },
    /// The application does not report that it is well.
    #[error(transparent)]
    Ttl(#[from] TtlFailure),
    /// There is no TLS with the server.
    #[error("no TLS with {server}: {source}")]
    Tls {
        /// With whom.
        server: SocketAddr,
        /// Why.
        source: TlsDialError,
    },
    /// We could not ask: this process or machine is out of something. Says nothing about the target.
    #[error("cannot ask: {source}")]
    NotAsked {
        /// For want of what.
        source: std::io::Error,
    },
    /// There was no answer in time.
    #[error("no answer within {} ms", .timeout.as_millis())]
    Timeout {
        /// The time it had.
        timeout: Duration,
    },
}

//! The forwarder behind its real listeners, on loopback, with upstreams that tell the truth, lie, or say nothing.
#![expect(clippy::unwrap_used, reason = "what a test cannot do without fails it")]

mod lies;
mod outages;
mod policy;
mod records;
mod tls;
mod truths;
mod upstream;
mod world;

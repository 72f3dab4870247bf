//! rollcall: service discovery that lives inside the pod. See `ARCHITECTURE.md`.

pub mod cli;
pub mod client;
pub mod clock;
pub mod codec;
pub mod config;
pub mod dns;
pub mod ensemble;
pub mod http;
pub mod id;
pub mod registry;
pub mod replica;
pub mod shutdown;
pub mod sidecar;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod tree;
pub mod wire;
pub mod zab;
pub mod znode;

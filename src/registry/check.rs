//! Local health checks: what decides whether an instance is offered.
//!
//! ```text
//! settings ──► Check ──► runner (one task a check) ──► Health (rise and fall) ──► registrar
//!                          │ asks by http, tcp, grpc, exec; hears of ttl
//! ```
//!
//! **Promise.** An instance that refuses connections is found failing within interval × fall of its death, one that hangs
//! within that plus one timeout. So checks start at a fixed rate, jitter only ever shortens the time to the next one, and a check that
//! has no answer at its deadline has failed then.
//!
//! **Bounds.** Whatever the other end sends, no more than a named number of bytes of it is kept.

mod agent;
mod board;
mod body;
mod exchange;
mod exec;
mod failure;
mod grpc;
mod health;
mod http;
mod load;
pub mod runner;
mod settings;
mod target;
mod tcp;
mod tls;
mod ttl;

pub use board::{CheckSlot, CheckStanding, HealthBoard, LastFailure, Standings};
pub use body::{BodyPattern, PatternError};
pub use exec::{ExecError, ExecTarget};
pub use failure::CheckFailure;
pub use grpc::{GrpcError, GrpcTarget};
pub use health::{Health, HealthState, InstanceHealth};
pub use http::{HttpTarget, StatusRange};
pub use load::Pass;
pub use settings::{CheckKind, CheckSettings, resolve_checks};
pub use target::{Asking, Check, CheckSource, CheckTarget};
pub(super) use tcp::is_own_shortage;
pub use tls::TlsTarget;
pub use ttl::TtlFailure;

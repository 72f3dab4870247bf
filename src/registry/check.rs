//! Local health checks: what decides whether an instance is offered.
//!
//! ```text
//! settings ──► Check ──► runner (one task a check) ──► Health (rise and fall) ──► registrar
//! ```
//!
//! **Promise.** An instance that refuses connections is found failing within interval × fall of its death, one that hangs
//! within that plus one timeout. So checks start at a fixed rate, jitter only ever shortens the time to the next one, and a check that
//! has no answer at its deadline has failed then.

mod health;
pub mod runner;
mod settings;

pub use health::{Health, HealthState};
pub use settings::{Check, CheckKind, CheckSettings, CheckTarget, StatusRange};

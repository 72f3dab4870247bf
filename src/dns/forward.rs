//! Names that are none of ours, asked of the pod's own resolvers, so that the sidecar can be an application's only nameserver.
//!
//! ```text
//!                 ┌► special: answered at once
//! handler ─► forwarder ─► cache ─► routes ─► resolve ─► exchange, line ─► upstream
//!                 ▲                            ▲  failover,     UDP, TCP, TLS
//!                 │                            │  health
//!            places: bounds       system_file ◄─ resolv_conf, settings
//! ```
//!
//! [`question`], [`reply`], [`chain`], [`rrset`], [`signed`], [`old_types`], [`cache`], [`encoded`], [`explanation`], [`special`], [`resolv_conf`], [`system_file`], [`health`] and what decides in [`upstream`] and [`routes`] are pure and are told the
//! time; [`exchange`] and [`mod@line`] move bytes; [`resolve`] and [`forwarder`] put them together. [`hosts`] looks up what the sidecar itself has to reach.
//!
//! RFC 5452 (forged answers), 7766 (TCP), 7858 and 8310 (TLS), 2181 (sets), 2308 (negative answers), 3597 (old types), 8767 (stale answers), 8914 (extended errors), 9520 (failures).

mod cache;
mod chain;
mod encoded;
mod exchange;
mod explanation;
mod forwarder;
#[cfg(fuzzing)]
pub mod fuzzing;
mod health;
mod hosts;
mod line;
mod old_types;
mod pending;
mod places;
mod question;
mod reply;
mod resolv_conf;
mod resolve;
mod routes;
mod rrset;
mod settings;
mod signed;
mod special;
mod system_file;
mod trouble;
mod upstream;

pub use cache::Rules;
pub use explanation::Explanations;
pub use forwarder::{Forwarder, Forwarding};
pub use hosts::{Hosts, NoAddress};
pub use pending::{Asked, Pending};
pub use question::Question;
pub use settings::{ForwardPlan, ForwardSettings};
pub use special::special_domain;
pub use trouble::{Failed, Trouble};
pub use upstream::{UpstreamAddress, UpstreamAddressError};

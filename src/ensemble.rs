//! The shell of a member: sockets, the log thread, and the driver that carries out what the [`Replica`] asks for.
//!
//! ```text
//!  socket ─► reader ─┐                                   ┌─► writer ─► socket
//!                    ├─► inputs ─► driver (Replica) ─────┤
//!  log thread ───────┘       ▲                           └─► log commands ─► log thread (Storage)
//!                            └──────── Durable ◄───────────────────────────────┘
//! ```
//!
//! One task owns the replica; one thread owns the storage and syncs once for everything that has gathered
//! meanwhile. A connection's task may fail alone. The driver and the log may not: if either ends, the member ends.
//!
//! [`Replica`]: crate::replica::Replica

mod acceptor;
mod config;
mod connection;
mod dial;
mod driver;
mod election_port;
mod error;
mod four_letter;
mod log_limit;
mod log_thread;
mod member;
mod members;
mod members_config;
mod metrics;
mod my_id;
mod peers;
mod places;
mod quorum_port;
mod settings;
mod stats;
mod waiting;
mod zoo_cfg;

pub use config::{ClientPort, EnsembleConfig, EnsemblePlan, MemberKeys};
pub use error::MemberError;
pub use four_letter::FourLetterWord;
pub use member::Member;
pub use members::{HostPort, MemberAddress, MemberRole, Members, MembersError};
pub use members_config::{ClientAuthKey, MemberEntry, PeerTlsKeys, QuorumKeys, RoleKey};
pub use metrics::observe_member;
pub use peers::PeerListeners;
pub use settings::{MemberSettings, PeersSettings};
pub use stats::MemberStats;
pub use zoo_cfg::{StatusPlace, ZooCfg, load_zoo_cfg};

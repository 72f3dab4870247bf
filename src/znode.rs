//! The vocabulary of znodes: what clients, the tree, the log and the registry all speak about.
//!
//! Only words and their encodings live here; what happens to znodes is the business of `tree`.
//! Source: `zookeeper.jute` of Apache ZooKeeper for every record and number.

mod acl;
mod barrier;
mod error;
mod event;
mod op;
mod path;
mod session;
mod stat;

pub use acl::{Acl, Permissions, Principal};
pub use barrier::{BarrierPath, MEMBERS_OWN_PATH, SubscriberName, is_members_own};
pub use error::OpError;
pub use event::{AddWatchMode, CarriedZnode, EventKind, WatchedEvent};
pub use op::{CreateMode, OpCode};
pub use path::{PathError, ZnodePath};
pub use session::{SessionPassword, SessionTimeouts};
pub use stat::{Owner, Stat, StatPersisted};

//! Atomic broadcast as Apache ZooKeeper does it, over payloads that mean nothing here.
//!
//! ```text
//! votes ─────► election ─► discovery ─► synchronization ─► broadcast ─► Deliver, in one order
//! packets ───►            (a new epoch) (one history)      (proposals)
//! Durable ───►                      one Input, one ordered queue of Outputs, one table of timers
//! ```
//!
//! `zab` does not know what a znode is: it orders opaque entries, counts who holds them durably, and says
//! which are committed. There is no clock, socket or file here: [`Peer`] is a state machine, and the same code runs under the
//! driver, in the simulation and in the model checker.
//!
//! Sources: Junqueira, Reed, Serafini, "Zab: High-performance broadcast for primary-backup systems", DSN 2011; Apache
//! ZooKeeper's `FastLeaderElection.java`, `Leader.java`, `LearnerHandler.java`, `Learner.java`.

mod broadcast;
mod discovery;
mod election;
mod history;
mod learner;
pub mod mutation;
mod notification;
mod packet;
mod peer;
mod port;
mod quorum;
mod synchronization;
mod timer;

pub use history::{Entry, continues};
pub use notification::{Notification, ServerState, Vote};
pub use packet::{
    ForwardedRequest, LearnerInfo, PACKET_BYTES_MAX, PROTOCOL_VERSION, Packet, PacketError, SNAPSHOT_END,
    split_packet,
};
pub use peer::Peer;
pub use port::{Event, Input, LinkId, Output, PeerSettings, Recovery, SyncMode};
pub use quorum::Quorum;

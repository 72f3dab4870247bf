//! Atomic broadcast as ZooKeeper does it, over payloads that mean nothing here.
//!
//! `zab` does not know what a znode is: it orders opaque entries, counts who holds them durably, and says
//! which are committed. Source: Junqueira, Reed, Serafini, "Zab: High-performance broadcast for
//! primary-backup systems", DSN 2011.

mod broadcast;
mod history;
mod quorum;

pub use broadcast::Broadcast;
pub use history::Entry;
pub use quorum::Quorum;

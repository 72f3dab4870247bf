//! What a member's disk holds, and what it is asked to write.

use std::fmt;

use bytes::Bytes;
use rollcall::id::{Epoch, Zxid};
use rollcall::zab::Entry;

use crate::peers::{Name, Peers, Stimulus};
use crate::property::{Property, Violation};

/// An entry: its zxid, and which proposal of the whole story it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Txn {
    pub(crate) zxid: Zxid,
    pub(crate) tag: u8,
}

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}#{}", self.zxid.epoch(), self.zxid.counter(), self.tag)
    }
}

impl Txn {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self { zxid: entry.zxid, tag: entry.payload[0] }
    }

    pub(crate) fn entry(self) -> Entry {
        Entry { zxid: self.zxid, payload: Bytes::copy_from_slice(&[self.tag]) }
    }
}

/// One write, or a read that waits for the writes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Append(Txn),
    AcceptedEpoch(Epoch),
    CurrentEpoch(Epoch),
    Truncate { zxid: Zxid, is_reload: bool },
    Install(Name<Vec<Txn>>),
    ReadLog { link: u8, after: Zxid },
}

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) accepted_epoch: Epoch,
    pub(crate) current_epoch: Epoch,
    /// What the snapshot holds, from the beginning on.
    pub(crate) snapshot: Vec<Txn>,
    /// What comes after it.
    pub(crate) log: Vec<Txn>,
}

impl Disk {
    /// Everything that a member would find after a crash.
    pub(crate) fn history(&self) -> impl Iterator<Item = &Txn> {
        self.snapshot.iter().chain(&self.log)
    }

    /// Carries out a write; what the peer is then told, if anything.
    ///
    /// # Errors
    ///
    /// When the write takes something back that was promised.
    pub(crate) fn carry_out(
        &mut self,
        write: Write,
        peers: &mut Peers,
    ) -> Result<Option<Stimulus>, Violation> {
        let told = match write {
            Write::Append(txn) => {
                self.log.push(txn);
                Stimulus::Durable(txn.zxid)
            }
            Write::AcceptedEpoch(epoch) => {
                let was = std::mem::replace(&mut self.accepted_epoch, epoch);
                Property::PromisesAreKept
                    .check(was <= epoch, || format!("acceptedEpoch goes from {was} back to {epoch}"))?;
                Stimulus::AcceptedEpochDurable(epoch)
            }
            Write::CurrentEpoch(epoch) => {
                let was = std::mem::replace(&mut self.current_epoch, epoch);
                Property::PromisesAreKept
                    .check(was <= epoch, || format!("currentEpoch goes from {was} back to {epoch}"))?;
                Stimulus::CurrentEpochDurable(epoch)
            }
            Write::Truncate { zxid, is_reload } => {
                self.snapshot.retain(|txn| txn.zxid <= zxid);
                self.log.retain(|txn| txn.zxid <= zxid);
                if !is_reload {
                    return Ok(None);
                }
                Stimulus::Reloaded(peers.disks.name(self.clone()))
            }
            Write::Install(tree) => {
                self.snapshot = peers.trees.get(tree).clone();
                self.log.clear();
                Stimulus::Durable(self.snapshot.last().map_or(Zxid::ZERO, |txn| txn.zxid))
            }
            Write::ReadLog { link, after } => {
                let base = self.snapshot.last().map_or(Zxid::ZERO, |txn| txn.zxid);
                let is_known = after == base || self.log.iter().any(|txn| txn.zxid == after);
                let entries =
                    is_known.then(|| self.log.iter().filter(|txn| txn.zxid > after).copied().collect());
                Stimulus::LogRead(link, entries.map(|entries| peers.trees.name(entries)))
            }
        };
        Ok(Some(told))
    }
}

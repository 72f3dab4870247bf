//! How far a search goes.

use std::fmt;

use rollcall::id::{Epoch, Zxid};

use crate::disk::{Disk, Txn};
use crate::peers::MEMBERS;

/// What may happen, and how often.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) election: Election,
    pub(crate) disks: Pace,
    pub(crate) packets: Pace,
    /// Elections won.
    pub(crate) reigns: u8,
    pub(crate) proposals: u8,
    /// Crashes, each with a restart.
    pub(crate) crashes: u8,
    /// Crashes that cost the disk, too.
    pub(crate) wipes: u8,
    /// Connections that break.
    pub(crate) breaks: u8,
    /// Committed entries that a peer keeps in memory.
    pub(crate) window_entries: usize,
    /// What the disks hold in the beginning.
    pub(crate) disks_at_start: [Disk; MEMBERS],
    /// More states than these are a mistake in the bounds.
    pub(crate) states_max: usize,
}

impl Bounds {
    /// Whether nothing but numbers tells members apart in the beginning.
    pub(crate) fn is_symmetric(&self) -> bool {
        self.disks_at_start.windows(2).all(|pair| pair[0] == pair[1])
    }
}

/// Who is elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// Whoever gets the votes; no member counts beyond so many rounds.
    Real { rounds: u64 },
    /// Anybody, at any time: more than any election could bring about.
    Any,
}

/// When something is done that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Eager,
    /// At any time later, in order.
    Lazy,
}

/// Members that were synchronized in epoch 1, and have logged so many of its txns.
pub(crate) fn disks_of_epoch_1(txns: [u32; MEMBERS]) -> [Disk; MEMBERS] {
    txns.map(|count| Disk {
        accepted_epoch: Epoch(1),
        current_epoch: Epoch(1),
        snapshot: Vec::new(),
        log: (1..=count).map(|counter| Txn { zxid: Zxid::new(Epoch(1), counter), tag: 100 }).collect(),
    })
}

/// Members of an ensemble that is to begin.
pub(crate) fn blank_disks() -> [Disk; MEMBERS] {
    std::array::from_fn(|_| Disk::default())
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            election, disks, packets, reigns, proposals, crashes, wipes, breaks, window_entries, ..
        } = self;
        match election {
            Election::Real { rounds } => write!(f, "votes of up to {rounds} rounds")?,
            Election::Any => write!(f, "anybody is elected, up to {reigns} times")?,
        }
        write!(
            f,
            "; {proposals} proposals, {crashes} crashes, {wipes} lost disks, {breaks} broken connections; disks {disks:?}, \
             packets {packets:?}; {window_entries} entries in memory; logs of "
        )?;
        let lengths = self.disks_at_start.iter().map(|disk| disk.log.len().to_string());
        write!(f, "{} entries at the start", lengths.collect::<Vec<_>>().join(", "))
    }
}

//! A file of a simulated disk: what reads see, what is durable, and the changes between.

use std::sync::Arc;

use fastrand::Rng;

/// One file. `durable` with `unsynced` applied is `bytes`, unless a sync failed or lied.
#[derive(Debug, Default)]
pub(super) struct Inode {
    /// What reads see; shared with readers that are open.
    bytes: Arc<Vec<u8>>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether some change will never be made durable, though reads show it.
    has_lost: bool,
}

/// A change of a file.
#[derive(Debug)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

const SECTOR_BYTES: usize = 512;

impl Inode {
    /// A file that is durable as it is.
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self { bytes: Arc::new(bytes.to_vec()), durable: bytes.to_vec(), ..Self::default() }
    }

    /// What reads see.
    pub(super) const fn bytes(&self) -> &Arc<Vec<u8>> {
        &self.bytes
    }

    /// What a power failure leaves in any case.
    pub(super) fn durable_bytes(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn change(&mut self, change: Change) {
        // Copies only if somebody is reading.
        change.apply(Arc::make_mut(&mut self.bytes));
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that fails: the changes will never be durable.
    pub(super) fn fail_sync(&mut self) {
        self.has_lost |= !self.unsynced.is_empty();
        self.unsynced.clear();
    }

    /// Flips a bit, as a disk does that forgets; false when there is none.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u8) -> bool {
        let mask = 1_u8 << (bit % 8);
        if let Some(byte) = self.durable.get_mut(offset) {
            *byte ^= mask;
        }
        Arc::make_mut(&mut self.bytes).get_mut(offset).map(|byte| *byte ^= mask).is_some()
    }

    /// A power failure.
    pub(super) fn lose_unsynced(&mut self, rng: &mut Rng) {
        if self.unsynced.is_empty() && !self.has_lost {
            return;
        }
        let changes = std::mem::take(&mut self.unsynced);
        match rng.u8(0..6) {
            0 => {}
            1 => changes.iter().for_each(|change| change.apply(&mut self.durable)),
            2 | 3 => self.keep_torn_prefix(&changes, rng),
            _ => self.keep_sectors(&changes, rng),
        }
        self.bytes = Arc::new(self.durable.clone());
        self.has_lost = false;
    }

    fn keep_torn_prefix(&mut self, changes: &[Change], rng: &mut Rng) {
        let whole = rng.usize(0..=changes.len());
        changes[..whole].iter().for_each(|change| change.apply(&mut self.durable));
        if let Some(Change::Write { offset, bytes }) = changes.get(whole) {
            let torn = bytes[..rng.usize(0..=bytes.len())].to_vec();
            Change::Write { offset: *offset, bytes: torn }.apply(&mut self.durable);
        }
    }

    /// Each sector has its own time at which it last reached the disk; so has the length.
    fn keep_sectors(&mut self, changes: &[Change], rng: &mut Rng) {
        let mut lens = vec![self.durable.len()];
        lens.extend(changes.iter().scan(self.durable.len(), |len, change| {
            *len = change.len_after(*len);
            Some(*len)
        }));
        let len = lens[rng.usize(0..lens.len())];
        let first_touched =
            changes.iter().map(Change::start).min().unwrap_or(len) / SECTOR_BYTES * SECTOR_BYTES;
        self.durable.resize(len.max(self.durable.len()), 0);
        for start in (first_touched..len).step_by(SECTOR_BYTES) {
            let end = (start + SECTOR_BYTES).min(len);
            let kept = rng.usize(0..=changes.len());
            for change in &changes[..kept] {
                change.apply_within(&mut self.durable[start..end], start);
            }
        }
        self.durable.truncate(len);
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        file.resize(self.len_after(file.len()), 0);
        self.apply_within(file, 0);
    }

    /// Changes a part of a file that starts at `start`.
    fn apply_within(&self, part: &mut [u8], start: usize) {
        match self {
            Self::Write { offset, bytes } => {
                let from = start.max(*offset);
                let to = (start + part.len()).min(offset + bytes.len());
                if from < to {
                    part[from - start..to - start].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
            // What was cut off is zeros, should the file grow again.
            Self::SetLen(len) => {
                let from = len.saturating_sub(start).min(part.len());
                part[from..].fill(0);
            }
        }
    }

    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write { bytes, .. } if bytes.is_empty() => len,
            Self::Write { offset, bytes } => len.max(offset + bytes.len()),
            Self::SetLen(len) => *len,
        }
    }

    /// The first byte that may change.
    const fn start(&self) -> usize {
        match self {
            Self::Write { offset, .. } => *offset,
            Self::SetLen(len) => *len,
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn what_a_power_failure_leaves_of_a_sector_is_some_version_of_it(
            changes in prop::collection::vec((any::<bool>(), 0..2_000_usize, 0..700_usize), 1..6), seed: u64,
        ) {
            let mut inode = Inode::durable(&[9; 1_000]);
            let mut versions = vec![vec![9; 1_000]];
            for (number, (is_write, at, count)) in (1..).zip(changes) {
                let change = |_: ()| if is_write {
                    Change::Write { offset: at, bytes: vec![number; count] }
                } else {
                    Change::SetLen(at)
                };
                let mut version = versions.last().unwrap().clone();
                change(()).apply(&mut version);
                versions.push(version);
                inode.change(change(()));
            }
            prop_assert_eq!(&**inode.bytes(), versions.last().unwrap());
            inode.lose_unsynced(&mut Rng::with_seed(seed));
            let left = inode.bytes().clone();
            for (start, sector) in (0..).step_by(SECTOR_BYTES).zip(left.chunks(SECTOR_BYTES)) {
                // A torn write leaves a part of a later version, byte for byte.
                for (index, byte) in sector.iter().enumerate() {
                    let at = start + index;
                    let is_known = versions.iter().any(|version| version.get(at).copied().unwrap_or(0) == *byte);
                    prop_assert!(is_known, "byte {}", at);
                }
            }
        }
    }

    #[test]
    fn a_sync_makes_durable_and_a_failed_one_never_will() {
        let mut inode = Inode::default();
        inode.change(Change::Write { offset: 2, bytes: vec![7] });
        inode.sync();
        inode.change(Change::Write { offset: 0, bytes: vec![7] });
        inode.fail_sync();
        inode.sync();
        assert_eq!(**inode.bytes(), [7, 0, 7]);
        inode.lose_unsynced(&mut Rng::with_seed(0));
        assert_eq!(**inode.bytes(), [0, 0, 7]);
    }
}

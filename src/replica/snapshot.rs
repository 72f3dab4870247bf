//! Writing snapshots in slices while txns go on.
//!
//! A slice is produced when the one before it was taken over, so that at most one is in memory. The result
//! is fuzzy: it may hold effects of txns after the one it is named by, which replaying the log repairs.

use std::collections::VecDeque;

use super::Output;
use crate::tree::{SnapshotCursor, Tree};

/// The snapshot in progress, and when the next is due.
#[derive(Debug)]
pub(super) struct Snapshotting {
    txns_between: u64,
    bytes_between: u64,
    txns_since: u64,
    bytes_since: u64,
    cursor: Option<SnapshotCursor>,
}

impl Snapshotting {
    /// Znodes in one slice: about 100 µs of work.
    const SLICE_ZNODES: usize = 500;

    pub(super) fn new(txns_between: u64, bytes_between: u64) -> Self {
        let (txns_between, bytes_between) = (txns_between.max(1), bytes_between.max(1));
        Self { txns_between, bytes_between, txns_since: 0, bytes_since: 0, cursor: None }
    }

    /// Gives up the snapshot in progress, because the tree it is of was replaced.
    pub(super) fn cancel(&mut self) {
        self.cursor = None;
    }

    /// Counts an applied txn, and begins a snapshot when one is due.
    pub(super) fn on_applied(&mut self, tree: &Tree, txn_bytes: usize, outputs: &mut VecDeque<Output>) {
        self.txns_since += 1;
        self.bytes_since += txn_bytes as u64;
        let is_due = self.txns_since >= self.txns_between || self.bytes_since >= self.bytes_between;
        if !is_due || self.cursor.is_some() {
            return;
        }
        (self.txns_since, self.bytes_since) = (0, 0);
        let mut head = Vec::new();
        self.cursor = Some(tree.begin_snapshot(&mut head));
        outputs.push_back(Output::BeginSnapshot(tree.last_zxid()));
        outputs.push_back(Output::SnapshotSlice(head));
    }

    /// Produces the next slice, or completes the snapshot.
    pub(super) fn on_slice_written(&mut self, tree: &Tree, outputs: &mut VecDeque<Output>) {
        let Some(cursor) = &mut self.cursor else { return };
        let mut slice = Vec::new();
        let is_done = tree.continue_snapshot(cursor, Self::SLICE_ZNODES, &mut slice);
        outputs.push_back(Output::SnapshotSlice(slice));
        if is_done {
            self.cursor = None;
            outputs.push_back(Output::FinishSnapshot { zxid: tree.last_zxid(), digest: tree.digest() });
        }
    }
}

//! What the tree's digest was at some of its txns, so that members can be compared while they go on.
//!
//! Source: `DIGEST_LOG_INTERVAL`, `DIGEST_LOG_LIMIT` in `DataTree.java` of Apache ZooKeeper: the same txns as there.

use std::collections::VecDeque;

use crate::id::Zxid;

/// Every so many zxids one is kept.
const INTERVAL: i64 = 128;
/// So many are.
const KEPT: usize = 1_024;

/// Digests by zxid, oldest first.
#[derive(Debug, Default)]
pub(super) struct DigestLog(VecDeque<(Zxid, u64)>);

impl DigestLog {
    /// The tree's digest after this txn.
    pub(super) fn note(&mut self, zxid: Zxid, digest: u64) {
        if zxid.raw() % INTERVAL == 0 {
            if self.0.len() == KEPT {
                self.0.pop_front();
            }
            self.0.push_back((zxid, digest));
        }
    }

    /// The tree is another: what was noted may never have been.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Zxid, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_128_is_kept_and_no_more_than_1_024_of_them() {
        let mut log = DigestLog::default();
        for raw in 1..=128 * 1_030 {
            log.note(Zxid::from_raw(raw), raw.cast_unsigned());
        }
        let kept: Vec<_> = log.iter().collect();
        assert_eq!((kept.len(), kept[0]), (1_024, (Zxid::from_raw(7 * 128), 7 * 128)));
        log.clear();
        assert_eq!(log.iter().count(), 0);
    }
}

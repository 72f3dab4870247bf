//! Entries: the units that are proposed, logged and delivered.

use bytes::Bytes;

use crate::id::Zxid;

/// One txn as it travels and lies in the log: its place in the order and bytes that `zab` never looks into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the total order.
    pub zxid: Zxid,
    /// The encoded txn (header, record and digest), the same in a PROPOSAL and in the log.
    pub payload: Bytes,
}

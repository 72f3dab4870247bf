//! Identifiers of the protocol, each its own type so that none can stand in for another.
//!
//! Numbers and their meaning are Apache ZooKeeper's: a zxid is `epoch << 32 | counter`, compared as a
//! signed 64-bit number; a session id carries the id of the server that made it in its top byte.

use std::fmt;

/// The position of one txn in the total order: an epoch and a counter within it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(i64);

impl Zxid {
    /// The zxid of an empty history.
    pub const ZERO: Self = Self(0);
    /// What stands in packets and headers that belong to no txn (`-1` on the wire).
    pub const NONE: Self = Self(-1);
    /// The last counter that may be proposed; beyond it a new epoch must be established
    /// (ZooKeeper never proposes counter `0xffffffff`).
    pub const COUNTER_MAX: u32 = 0xffff_ff00;

    /// Builds the zxid of txn number `counter` in `epoch`; counter 0 is the epoch's beginning.
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        Self(((epoch.0 as i64) << 32) | counter as i64)
    }

    /// Takes the value as it stands on the wire or on disk.
    pub const fn from_raw(raw: i64) -> Self {
        Self(raw)
    }

    /// The value as it stands on the wire or on disk.
    pub const fn raw(self) -> i64 {
        self.0
    }

    /// The epoch in which the txn was proposed.
    #[expect(clippy::cast_sign_loss, reason = "the upper 32 bits, by definition")]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The txn's number within its epoch.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the lower 32 bits, by definition"
    )]
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid after this one in the same epoch, or `None` when the epoch's counter is used up.
    pub const fn next(self) -> Option<Self> {
        if self.counter() >= Self::COUNTER_MAX { None } else { Some(Self(self.0 + 1)) }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One leader's reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The last epoch that members establish. Zxids are ordered as signed numbers, so that from 2^31 on later epochs would
    /// come before all others. Half of that is far beyond the elections of any ensemble, and far from the end: a file that
    /// says more is wrong, and must not take all others along.
    pub const MAX: Self = Self(1 << 30);

    /// The epoch that follows this one, or `None` when none may.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.0 >= Self::MAX.0 { None } else { Some(Self(self.0 + 1)) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The configured number of a member (`myid`), 1 to 254.
///
/// 255 is taken: it marks TTL znodes in the top byte of an ephemeral owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(u8);

impl ServerId {
    /// The id of a server that runs alone, as Apache's standalone server has it.
    pub const STANDALONE: Self = Self(1);

    /// Accepts 1 to 254.
    pub const fn new(id: u8) -> Option<Self> {
        if id == 0 || id == 255 { None } else { Some(Self(id)) }
    }

    /// The number itself.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A client session, which outlives the sockets it is spoken over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// What a client sends when it asks for a new session, and what a refusal carries.
    pub const NONE: Self = Self(0);

    /// The id of the member that opened it.
    pub const fn member_byte(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client's number for one request on one connection; negative values have fixed meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub i32);

impl Xid {
    /// A watch notification, from server to client.
    pub const NOTIFICATION: Self = Self(-1);
    /// A ping and its reply.
    pub const PING: Self = Self(-2);
    /// `setWatches` and its reply.
    pub const SET_WATCHES: Self = Self(-8);
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zxid_splits_into_epoch_and_counter() {
        let zxid = Zxid::new(Epoch(5), 3);
        assert_eq!(zxid.to_string(), "0x500000003");
        assert_eq!((zxid.epoch(), zxid.counter()), (Epoch(5), 3));
        assert_eq!(zxid.next(), Some(Zxid::new(Epoch(5), 4)));
    }

    #[test]
    fn an_exhausted_counter_has_no_next() {
        assert_eq!(Zxid::new(Epoch(1), Zxid::COUNTER_MAX).next(), None);
    }

    #[test]
    fn epochs_end_long_before_zxids_are_negative() {
        assert_eq!(Epoch(Epoch::MAX.0 - 1).next(), Some(Epoch::MAX));
        assert!(Zxid::new(Epoch::MAX, u32::MAX) > Zxid::new(Epoch(1), 0));
        for last in [Epoch::MAX.0, 0x7fff_fffe, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert_eq!(Epoch(last).next(), None, "{last}");
        }
    }

    #[test]
    fn server_ids_0_and_255_are_refused() {
        assert_eq!(ServerId::new(0), None);
        assert_eq!(ServerId::new(255), None);
        assert_eq!(ServerId::new(254).map(ServerId::get), Some(254));
    }
}

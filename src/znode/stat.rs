//! A znode's stat, as clients see it and as it is stored.

use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{SessionId, Zxid};

/// What a client learns about a znode; 68 bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stat {
    /// The txn that created the znode.
    pub czxid: Zxid,
    /// The txn that last changed its data.
    pub mzxid: Zxid,
    /// Leader's wall clock at creation, ms since 1970.
    pub ctime_ms: i64,
    /// Leader's wall clock at the last change of data, ms since 1970.
    pub mtime_ms: i64,
    /// Changes of data; wraps.
    pub version: i32,
    /// Creations and deletions among the children; wraps.
    pub cversion: i32,
    /// Changes of the ACL; wraps.
    pub aversion: i32,
    /// The session that an ephemeral belongs to, else 0.
    pub ephemeral_owner: SessionId,
    /// Bytes of data.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// The txn that last created or deleted a child.
    pub pzxid: Zxid,
}

impl Stat {
    /// Bytes that a stat takes on the wire.
    pub const ENCODED_BYTES: usize = 68;

    /// Appends the stat.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid.raw());
        out.put_long(self.mzxid.raw());
        out.put_long(self.ctime_ms);
        out.put_long(self.mtime_ms);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.ephemeral_owner.0);
        out.put_int(self.data_length);
        out.put_int(self.num_children);
        out.put_long(self.pzxid.raw());
    }

    /// Reads a stat.
    ///
    /// # Errors
    ///
    /// When fewer than 68 bytes are left.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            czxid: Zxid::from_raw(reader.long("stat.czxid")?),
            mzxid: Zxid::from_raw(reader.long("stat.mzxid")?),
            ctime_ms: reader.long("stat.ctime")?,
            mtime_ms: reader.long("stat.mtime")?,
            version: reader.int("stat.version")?,
            cversion: reader.int("stat.cversion")?,
            aversion: reader.int("stat.aversion")?,
            ephemeral_owner: SessionId(reader.long("stat.ephemeralOwner")?),
            data_length: reader.int("stat.dataLength")?,
            num_children: reader.int("stat.numChildren")?,
            pzxid: Zxid::from_raw(reader.long("stat.pzxid")?),
        })
    }
}

/// What the tree keeps and snapshots hold of a znode's stat; 60 bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StatPersisted {
    /// As [`Stat::czxid`].
    pub czxid: Zxid,
    /// As [`Stat::mzxid`].
    pub mzxid: Zxid,
    /// As [`Stat::ctime_ms`].
    pub ctime_ms: i64,
    /// As [`Stat::mtime_ms`].
    pub mtime_ms: i64,
    /// As [`Stat::version`].
    pub version: i32,
    /// Creations among the children, without the deletions that [`Stat::cversion`] counts too.
    pub cversion: i32,
    /// As [`Stat::aversion`].
    pub aversion: i32,
    /// Who the znode lives by.
    pub owner: Owner,
    /// As [`Stat::pzxid`].
    pub pzxid: Zxid,
}

impl StatPersisted {
    /// Bytes that it takes on disk and in the digest.
    pub const ENCODED_BYTES: usize = 60;

    /// The stat as clients see it, for a znode with this much data and this many children.
    pub fn to_stat(&self, data_length: usize, num_children: usize) -> Stat {
        let num_children = i32::try_from(num_children).unwrap_or(i32::MAX);
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            // Creations and deletions together: every child that is gone again was deleted once.
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: self.owner.session().unwrap_or(SessionId::NONE),
            data_length: i32::try_from(data_length).unwrap_or(i32::MAX),
            num_children,
            pzxid: self.pzxid,
        }
    }

    /// Appends the stat as snapshots have it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid.raw());
        out.put_long(self.mzxid.raw());
        out.put_long(self.ctime_ms);
        out.put_long(self.mtime_ms);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.owner.raw());
        out.put_long(self.pzxid.raw());
    }

    /// Reads a stat as snapshots have it.
    ///
    /// # Errors
    ///
    /// When fewer than 60 bytes are left.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            czxid: Zxid::from_raw(reader.long("stat.czxid")?),
            mzxid: Zxid::from_raw(reader.long("stat.mzxid")?),
            ctime_ms: reader.long("stat.ctime")?,
            mtime_ms: reader.long("stat.mtime")?,
            version: reader.int("stat.version")?,
            cversion: reader.int("stat.cversion")?,
            aversion: reader.int("stat.aversion")?,
            owner: Owner::from_raw(reader.long("stat.ephemeralOwner")?),
            pzxid: Zxid::from_raw(reader.long("stat.pzxid")?),
        })
    }
}

/// Who a znode lives by: the meaning of the stored `ephemeralOwner`.
///
/// Source: `EphemeralType.java` of Apache ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Owner {
    /// Nobody: it stays until deleted.
    #[default]
    Persistent,
    /// It goes with this session.
    Ephemeral(SessionId),
    /// It goes when its last child has gone.
    Container,
    /// It goes this many ms after its last change, unless it has children; at most 2^40 - 1.
    Ttl(i64),
}

impl Owner {
    const CONTAINER: i64 = i64::MIN;
    const TTL_MARK: u64 = 0xff00_0000_0000_0000;
    /// The longest time to live, in ms.
    pub const TTL_MS_MAX: i64 = 0xff_ffff_ffff;

    /// Takes the number apart. The top byte 0xff marks a TTL, since no server has that id.
    #[expect(clippy::cast_sign_loss, reason = "bit patterns, not quantities")]
    pub const fn from_raw(raw: i64) -> Self {
        match raw {
            0 => Self::Persistent,
            Self::CONTAINER => Self::Container,
            _ if raw as u64 & Self::TTL_MARK == Self::TTL_MARK => Self::Ttl(raw & Self::TTL_MS_MAX),
            _ => Self::Ephemeral(SessionId(raw)),
        }
    }

    /// The number as it is stored.
    #[expect(clippy::cast_possible_wrap, reason = "bit patterns, not quantities")]
    pub const fn raw(self) -> i64 {
        match self {
            Self::Persistent => 0,
            Self::Ephemeral(session) => session.0,
            Self::Container => Self::CONTAINER,
            Self::Ttl(ms) => Self::TTL_MARK as i64 | ms,
        }
    }

    /// The session of an ephemeral.
    pub const fn session(self) -> Option<SessionId> {
        match self {
            Self::Ephemeral(session) => Some(session),
            Self::Persistent | Self::Container | Self::Ttl(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cversion_counts_creations_and_deletions() {
        let persisted = StatPersisted { cversion: 3, ..StatPersisted::default() };
        assert_eq!(persisted.to_stat(0, 3).cversion, 3, "three created");
        assert_eq!(persisted.to_stat(0, 1).cversion, 5, "three created, two deleted");
    }

    #[test]
    fn owners_survive_their_number() {
        for owner in [
            Owner::Persistent,
            Owner::Container,
            Owner::Ttl(5),
            Owner::Ephemeral(SessionId(0x0100_0000_0000_0007)),
        ] {
            assert_eq!(Owner::from_raw(owner.raw()), owner);
        }
        assert_eq!(Owner::Container.raw(), i64::MIN);
    }

    #[test]
    fn encodings_have_the_documented_lengths() {
        let (mut wire, mut disk) = (Vec::new(), Vec::new());
        Stat::default().encode(&mut wire);
        StatPersisted::default().encode(&mut disk);
        assert_eq!((wire.len(), disk.len()), (Stat::ENCODED_BYTES, StatPersisted::ENCODED_BYTES));
    }
}

//! Watch events and the modes in which watches are registered.

use bytes::Bytes;

use super::Stat;
use crate::codec::{CodecError, Reader, WriteJute};

/// What happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
    /// Its data was set.
    DataChanged,
    /// A child of it was created or deleted.
    ChildrenChanged,
}

impl EventKind {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Self::Created => 1,
            Self::Deleted => 2,
            Self::DataChanged => 3,
            Self::ChildrenChanged => 4,
        }
    }

    /// The event with this number on the wire; the numbers that only clients use are none.
    pub const fn from_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Created),
            2 => Some(Self::Deleted),
            3 => Some(Self::DataChanged),
            4 => Some(Self::ChildrenChanged),
            _ => None,
        }
    }
}

/// The notification that a watch was waiting for; `WatcherEvent` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchedEvent {
    /// What happened.
    pub kind: EventKind,
    /// Where. For [`EventKind::ChildrenChanged`] the parent.
    pub path: String,
}

impl WatchedEvent {
    /// The only session state that servers send in events.
    const SYNC_CONNECTED: i32 = 3;

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_int(self.kind.code());
        out.put_int(Self::SYNC_CONNECTED);
        out.put_text(&self.path);
    }

    /// Reads the record.
    ///
    /// # Errors
    ///
    /// When the bytes are no such record, or the event is none that servers send.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let code = reader.int("event.type")?;
        let kind = EventKind::from_code(code)
            .ok_or(CodecError::BadValue { field: "event.type", value: code.into() })?;
        let _state = reader.int("event.state")?;
        Ok(Self { kind, path: reader.text("event.path")?.into_owned() })
    }
}

/// A znode as a txn has left it, which our members add to the events that they send to subscribers
/// ([`BarrierPath`](super::BarrierPath)), so that these need not read it. Other servers, and other clients, know nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarriedZnode {
    /// It is there, with what it holds.
    There {
        /// Its data.
        data: Option<Bytes>,
        /// Its stat.
        stat: Stat,
    },
    /// It is not.
    Gone,
}

impl CarriedZnode {
    /// Appends it: whether it is there, and then its data and its stat.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::There { data, stat } => Self::encode_there(data.as_deref(), stat, out),
            Self::Gone => out.put_bool(false),
        }
    }

    /// The same for one that is there, of which the data are somewhere else.
    pub fn encode_there(data: Option<&[u8]>, stat: &Stat, out: &mut Vec<u8>) {
        out.put_bool(true);
        out.put_buffer(data);
        stat.encode(out);
    }

    /// Reads what stands behind an event: nothing, this, or something that is none of ours and means nothing to us.
    pub fn decode_rest(reader: &mut Reader<'_>) -> Option<Self> {
        let carried = match reader.bool("carried.is_there").ok()? {
            true => Self::There {
                data: reader.buffer("carried.data").ok()?.map(Bytes::copy_from_slice),
                stat: Stat::decode(reader).ok()?,
            },
            false => Self::Gone,
        };
        reader.is_empty().then_some(carried)
    }
}

/// How `addWatch` registers (ZooKeeper 3.6 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddWatchMode {
    /// Stays after firing; data and child events of one path.
    Persistent,
    /// Stays after firing; created, deleted and data events of a path and everything below.
    PersistentRecursive,
}

impl AddWatchMode {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::PersistentRecursive => 1,
        }
    }

    /// The mode with this number on the wire.
    pub const fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Persistent),
            1 => Some(Self::PersistentRecursive),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_read_as_it_is_written_and_nothing_else_is() {
        let there = |data: Option<&'static [u8]>| CarriedZnode::There {
            data: data.map(Bytes::from_static),
            stat: Stat { version: 3, ..Stat::default() },
        };
        for carried in [there(Some(b"record")), there(Some(b"")), there(None), CarriedZnode::Gone] {
            let mut bytes = Vec::new();
            carried.encode(&mut bytes);
            assert_eq!(CarriedZnode::decode_rest(&mut Reader::new(&bytes)), Some(carried));
            for cut in 0..bytes.len() {
                assert_eq!(CarriedZnode::decode_rest(&mut Reader::new(&bytes[..cut])), None, "{cut}");
            }
            bytes.push(0);
            assert_eq!(CarriedZnode::decode_rest(&mut Reader::new(&bytes)), None, "more than we know");
        }
    }
}

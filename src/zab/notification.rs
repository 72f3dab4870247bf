//! What members say to one another on the election port.
//!
//! ```text
//! int length, then: int state · long leader · long zxid · long round · long epoch · int version 2
//!                   · int config length · config text
//! ```
//!
//! Source: `FastLeaderElection.java` (`buildMsg`, `WorkerReceiver`) of Apache ZooKeeper.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{Epoch, ServerId, Zxid};

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ServerState {
    /// It looks for a leader.
    Looking = 0,
    /// It follows one.
    Following = 1,
    /// It is one.
    Leading = 2,
    /// It follows one, without a vote.
    Observing = 3,
}

/// Whom a member wants to lead, and why.
///
/// The order is that of preference: a newer epoch, a longer history, a greater id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The epoch in which the candidate was last synchronized; once it leads, its own.
    pub epoch: Epoch,
    /// The last txn in the candidate's log.
    pub zxid: Zxid,
    /// The candidate.
    pub leader: ServerId,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What the sender is doing.
    pub state: ServerState,
    /// The sender's count of elections.
    pub round: u64,
    /// The sender's vote; `None` from observers, and for leaders that cannot be configured here.
    pub vote: Option<Vote>,
    /// The text of the sender's configuration, which is not looked at: members do not change.
    pub config: Bytes,
}

impl Notification {
    /// The longest that is read, as in Apache ZooKeeper.
    pub const BYTES_MAX: usize = 512 << 10;
    /// State, leader, zxid, round, epoch and version.
    const BYTES_MIN: usize = 40;
    const VERSION: i32 = 2;
    /// Stands for each number of an observer's vote.
    const NOBODY: i64 = i64::MIN;

    /// Appends the message, without its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (leader, zxid, epoch) = match self.vote {
            Some(vote) => (i64::from(vote.leader.get()), vote.zxid.raw(), i64::from(vote.epoch.0)),
            None => (Self::NOBODY, Self::NOBODY, Self::NOBODY),
        };
        out.put_int(self.state.code());
        out.put_long(leader);
        out.put_long(zxid);
        out.put_long(self.round.cast_signed());
        out.put_long(epoch);
        out.put_int(Self::VERSION);
        out.put_buffer(Some(&self.config));
    }

    /// Reads a message. Those of versions before 3.5, which carry no configuration, read as well.
    ///
    /// # Errors
    ///
    /// When the bytes are no message; the connection is none the worse for it (ZOOKEEPER-3769).
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        if bytes.len() < Self::BYTES_MIN {
            let left = bytes.len();
            return Err(CodecError::Truncated { field: "notification", needed: Self::BYTES_MIN, left });
        }
        let mut reader = Reader::new(bytes);
        let state = reader.int("notification.state")?;
        let state = ServerState::from_code(state)
            .ok_or(CodecError::BadValue { field: "notification.state", value: state.into() })?;
        let leader = reader.long("notification.leader")?;
        let zxid = Zxid::from_raw(reader.long("notification.zxid")?);
        let round = reader.long("notification.electionEpoch")?;
        let epoch = reader.long("notification.peerEpoch")?;
        let version = if bytes.len() > Self::BYTES_MIN { reader.int("notification.version")? } else { 0 };
        let config = if version >= Self::VERSION { reader.buffer("notification.config")? } else { None };
        let round = u64::try_from(round).map_err(|_negative| CodecError::BadValue {
            field: "notification.electionEpoch",
            value: round,
        })?;
        let leader = u8::try_from(leader).ok().and_then(ServerId::new);
        let epoch = u32::try_from(epoch).ok().map(Epoch);
        let vote = leader.zip(epoch).map(|(leader, epoch)| Vote { epoch, zxid, leader });
        let config = config.map_or_else(Bytes::new, |config| bytes.slice_ref(config));
        Ok(Self { state, round, vote, config })
    }
}

impl ServerState {
    const fn code(self) -> i32 {
        self as i32
    }

    const fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Looking),
            1 => Some(Self::Following),
            2 => Some(Self::Leading),
            3 => Some(Self::Observing),
            _ => None,
        }
    }

    /// The name that Apache ZooKeeper gives it to operators.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Looking => "looking",
            Self::Following => "follower",
            Self::Leading => "leader",
            Self::Observing => "observer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(epoch: u32, zxid: Zxid, leader: u8) -> Vote {
        Vote { epoch: Epoch(epoch), zxid, leader: ServerId::new(leader).unwrap() }
    }

    /// The first message of server 2 of a new ensemble of Apache ZooKeeper 3.8.0, its configuration shortened.
    #[test]
    fn a_captured_message_decodes_and_encodes_back_to_itself() {
        let mut captured = Vec::new();
        captured.put_int(0);
        captured.put_long(2);
        captured.put_long(0);
        captured.put_long(1);
        captured.put_long(0);
        captured.put_int(2);
        captured.put_buffer(Some(b"version=0"));
        let message = Notification::decode(&captured.clone().into()).unwrap();
        let expected = Notification {
            state: ServerState::Looking,
            round: 1,
            vote: Some(vote(0, Zxid::ZERO, 2)),
            config: Bytes::from_static(b"version=0"),
        };
        assert_eq!(message, expected);
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded, captured);
    }

    #[test]
    fn an_observer_votes_for_nobody() {
        let message =
            Notification { state: ServerState::Looking, round: 3, vote: None, config: Bytes::new() };
        let mut encoded = Vec::new();
        message.encode(&mut encoded);
        assert_eq!(encoded[4..12], 0x8000_0000_0000_0000_u64.to_be_bytes());
        assert_eq!(Notification::decode(&encoded.into()), Ok(message));
    }

    #[test]
    fn a_newer_epoch_goes_before_a_longer_history_before_a_greater_id() {
        let zxid = |counter| Zxid::new(Epoch(1), counter);
        let mut votes = [vote(2, zxid(1), 1), vote(1, zxid(9), 1), vote(1, zxid(9), 2), vote(1, zxid(3), 9)];
        votes.sort();
        let best_last = [vote(1, zxid(3), 9), vote(1, zxid(9), 1), vote(1, zxid(9), 2), vote(2, zxid(1), 1)];
        assert_eq!(votes, best_last);
    }

    #[test]
    fn short_and_mangled_messages_are_refused() {
        let mut whole = Vec::new();
        Notification {
            state: ServerState::Leading,
            round: 1,
            vote: Some(vote(1, Zxid::ZERO, 1)),
            config: Bytes::from_static(b"version=0"),
        }
        .encode(&mut whole);
        for length in (0..whole.len()).filter(|length| *length != 40) {
            assert!(Notification::decode(&Bytes::copy_from_slice(&whole[..length])).is_err(), "{length}");
        }
        for (at, byte) in [(3, 9), (20, 0xff), (40, 0x7f)] {
            let mut mangled = whole.clone();
            mangled[at] = byte;
            assert!(Notification::decode(&mangled.into()).is_err(), "byte {at}");
        }
    }
}

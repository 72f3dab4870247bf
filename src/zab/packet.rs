//! What a learner and its leader say to one another on the quorum port.
//!
//! ```text
//! QuorumPacket { int type, long zxid, buffer data, vector<Id> authinfo }       one after the other, without lengths
//! ```
//!
//! The one thing that is no packet is a snapshot's body, which follows [`Packet::Snap`] and ends with
//! [`SNAPSHOT_END`]; finding that end is for those who know what a snapshot looks like.
//!
//! Source: `zookeeper.jute`, `Leader.java`, `LearnerHandler.java` of Apache ZooKeeper.

use bytes::{Bytes, BytesMut};

use super::Entry;
use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::{Epoch, ServerId, SessionId, Xid, Zxid};

/// The protocol that learner and leader tell one another to speak, that of 3.4 and later.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// What ends the body of a snapshot on the wire, as a jute string.
pub const SNAPSHOT_END: &[u8] = b"\0\0\0\x0aBenWasHere";

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Learner to leader: a client's write, or a sync.
    Request(ForwardedRequest),
    /// Leader to follower: log this.
    Proposal(Entry),
    /// Follower to leader: everything up to here is durable, or, with counter 0, the leader is accepted.
    Ack(Zxid),
    /// Leader to follower: a quorum holds this.
    Commit(Zxid),
    /// Leader to learner: are you there? It names the leader's last proposal.
    Ping(Zxid),
    /// Learner to leader: I am, and these sessions were heard of since the last time.
    Pong {
        /// As in the ping.
        zxid: Zxid,
        /// The sessions with their timeouts in ms.
        touched: Vec<(SessionId, i32)>,
    },
    /// Learner to leader: may this session go on at my place?
    Revalidate {
        /// The session.
        session: SessionId,
        /// Its timeout in ms.
        timeout_ms: i32,
    },
    /// Leader to learner: whether it may.
    Revalidated {
        /// The session.
        session: SessionId,
        /// Whether it is alive.
        is_valid: bool,
    },
    /// Leader to learner: your oldest sync is done.
    Sync,
    /// Leader to observer: a quorum holds this.
    Inform(Entry),
    /// Leader to learner: this is my history; I lead from here on.
    NewLeader {
        /// The beginning of the leader's epoch.
        zxid: Zxid,
        /// The text of the leader's configuration.
        config: Bytes,
    },
    /// Follower to leader: here I am.
    FollowerInfo(LearnerInfo),
    /// Observer to leader: here I am.
    ObserverInfo(LearnerInfo),
    /// Leader to learner: you have everything; serve.
    UpToDate,
    /// Leader to learner: nothing to undo; what you lack follows.
    Diff(Zxid),
    /// Leader to learner: forget everything after this.
    Trunc(Zxid),
    /// Leader to learner: forget everything; a snapshot as of this zxid follows.
    Snap(Zxid),
    /// Leader to learner: the epoch I propose.
    LeaderInfo(Epoch),
    /// Learner to leader: I follow nobody older any more.
    AckEpoch {
        /// The last txn in its log.
        last_zxid: Zxid,
        /// The epoch in which it was last synchronized; `None` when it has answered for this epoch before.
        current_epoch: Option<Epoch>,
    },
    /// A type that is not known here, or belongs to a feature that is off: ignored, as in Apache ZooKeeper.
    Other(i32),
}

/// A request that a learner passes on to its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// Who asks.
    pub session: SessionId,
    /// The client's number for it.
    pub cxid: Xid,
    /// The operation's number.
    pub op_code: i32,
    /// The request's record, without its header.
    pub payload: Bytes,
    /// Whether a client asks; the learner itself opens sessions.
    pub is_clients: bool,
}

/// What a learner says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerInfo {
    /// Up to which epoch it follows nobody older.
    pub accepted_epoch: Epoch,
    /// Who it is; `None` when it is nobody that can be configured here.
    pub server: Option<ServerId>,
}

/// Why a stream can no longer be cut into packets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A length is negative or beyond the bound.
    #[error("{what} of length {length} in a packet; the most is {max}")]
    BadLength {
        /// What has that length.
        what: &'static str,
        /// The length as it stood there.
        length: i32,
        /// The bound.
        max: usize,
    },
    /// What the packet carries cannot be read.
    #[error("packet of type {kind}: {source}")]
    Content {
        /// The packet's type.
        kind: i32,
        /// What is wrong.
        source: CodecError,
    },
}

/// The longest data of a packet: a txn may list all ephemerals of a session, so this is far above a client's frame.
pub const PACKET_BYTES_MAX: usize = 128 << 20;
/// Ids of one client that a request may carry.
const IDS_MAX: usize = 1024;
const ID_BYTES_MAX: usize = 64 << 10;

/// Cuts the next packet off the front of `buffer`; `None` while its bytes are not all there.
///
/// # Errors
///
/// When it is no packet; the stream is unusable from then on.
pub fn split_packet(buffer: &mut BytesMut) -> Result<Option<Packet>, PacketError> {
    let Some(frame) = measure(buffer)? else { return Ok(None) };
    let bytes = buffer.split_to(frame.end).freeze();
    let mut reader = Reader::new(&bytes);
    let content = |source| PacketError::Content { kind: frame.kind, source };
    reader.int("packet.type").map_err(content)?;
    let zxid = Zxid::from_raw(reader.long("packet.zxid").map_err(content)?);
    let data = bytes.slice(frame.data);
    decode(frame.kind, zxid, data, frame.has_ids).map(Some).map_err(content)
}

/// Where the parts of a whole packet lie.
struct Frame {
    kind: i32,
    /// The data, empty when null.
    data: std::ops::Range<usize>,
    has_ids: bool,
    end: usize,
}

/// Finds the end of the first packet, if it is all there.
fn measure(buffer: &mut BytesMut) -> Result<Option<Frame>, PacketError> {
    const HEAD_BYTES: usize = 16;
    let Some(head) = buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let kind = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let length = i32::from_be_bytes([head[12], head[13], head[14], head[15]]);
    let data = HEAD_BYTES..HEAD_BYTES + bounded("data", length, PACKET_BYTES_MAX)?;
    let mut end = data.end;
    let Some(count) = int_at(buffer, &mut end) else {
        buffer.reserve((data.end + 4).saturating_sub(buffer.len()));
        return Ok(None);
    };
    for _ in 0..2 * bounded("ids", count, IDS_MAX)? {
        let Some(length) = int_at(buffer, &mut end) else { return Ok(None) };
        end += bounded("an id", length, ID_BYTES_MAX)?;
    }
    Ok((end <= buffer.len()).then_some(Frame { kind, data, has_ids: count >= 0, end }))
}

fn int_at(buffer: &[u8], at: &mut usize) -> Option<i32> {
    let bytes = buffer.get(*at..*at + 4)?;
    *at += 4;
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

/// A length from outside; null counts as empty.
fn bounded(what: &'static str, length: i32, max: usize) -> Result<usize, PacketError> {
    if length == -1 {
        return Ok(0);
    }
    let bad = PacketError::BadLength { what, length, max };
    usize::try_from(length).ok().filter(|length| *length <= max).ok_or(bad)
}

fn decode(kind: i32, zxid: Zxid, data: Bytes, has_ids: bool) -> Result<Packet, CodecError> {
    let mut reader = Reader::new(&data);
    Ok(match kind {
        kind::REQUEST => {
            let session = SessionId(reader.long("request.session")?);
            let cxid = Xid(reader.int("request.cxid")?);
            let op_code = reader.int("request.type")?;
            let payload = data.slice_ref(reader.remaining());
            Packet::Request(ForwardedRequest { session, cxid, op_code, payload, is_clients: has_ids })
        }
        kind::PROPOSAL => Packet::Proposal(Entry { zxid, payload: data }),
        kind::ACK => Packet::Ack(zxid),
        kind::COMMIT => Packet::Commit(zxid),
        // Only a learner's has data, though it may be empty; a leader that pings has nothing to list.
        kind::PING if data.is_empty() => Packet::Ping(zxid),
        kind::PING => {
            let mut touched = Vec::with_capacity(data.len() / TOUCH_BYTES);
            while !reader.is_empty() {
                touched.push((SessionId(reader.long("ping.session")?), reader.int("ping.timeout")?));
            }
            Packet::Pong { zxid, touched }
        }
        kind::REVALIDATE if data.len() >= REVALIDATE_BYTES => Packet::Revalidate {
            session: SessionId(reader.long("revalidate.session")?),
            timeout_ms: reader.int("revalidate.timeout")?,
        },
        kind::REVALIDATE => Packet::Revalidated {
            session: SessionId(reader.long("revalidate.session")?),
            is_valid: reader.bool("revalidate.valid")?,
        },
        kind::SYNC => Packet::Sync,
        kind::INFORM => Packet::Inform(Entry { zxid, payload: data }),
        kind::NEW_LEADER => Packet::NewLeader { zxid, config: data },
        kind::FOLLOWER_INFO => Packet::FollowerInfo(learner_info(zxid, &mut reader)?),
        kind::OBSERVER_INFO => Packet::ObserverInfo(learner_info(zxid, &mut reader)?),
        kind::UP_TO_DATE => Packet::UpToDate,
        kind::DIFF => Packet::Diff(zxid),
        kind::TRUNC => Packet::Trunc(zxid),
        kind::SNAP => Packet::Snap(zxid),
        kind::LEADER_INFO => Packet::LeaderInfo(zxid.epoch()),
        kind::ACK_EPOCH => {
            let current_epoch = u32::try_from(reader.int("ackepoch.currentEpoch")?).ok().map(Epoch);
            Packet::AckEpoch { last_zxid: zxid, current_epoch }
        }
        other => Packet::Other(other),
    })
}

fn learner_info(zxid: Zxid, reader: &mut Reader<'_>) -> Result<LearnerInfo, CodecError> {
    let server = u8::try_from(reader.long("learner.serverid")?).ok().and_then(ServerId::new);
    Ok(LearnerInfo { accepted_epoch: zxid.epoch(), server })
}

impl Packet {
    /// Appends the packet's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request(request) => request.encode(out),
            Self::Proposal(entry) => put(out, kind::PROPOSAL, entry.zxid, Some(&entry.payload)),
            Self::Ack(zxid) => put(out, kind::ACK, *zxid, None),
            Self::Commit(zxid) => put(out, kind::COMMIT, *zxid, None),
            Self::Ping(zxid) => put(out, kind::PING, *zxid, None),
            Self::Pong { zxid, touched } => {
                let mut data = Vec::with_capacity(touched.len() * TOUCH_BYTES);
                for (session, timeout_ms) in touched {
                    data.put_long(session.0);
                    data.put_int(*timeout_ms);
                }
                put(out, kind::PING, *zxid, Some(&data));
            }
            Self::Revalidate { session, timeout_ms } => {
                let mut data = Vec::with_capacity(REVALIDATE_BYTES);
                data.put_long(session.0);
                data.put_int(*timeout_ms);
                put(out, kind::REVALIDATE, Zxid::NONE, Some(&data));
            }
            Self::Revalidated { session, is_valid } => {
                let mut data = Vec::with_capacity(REVALIDATE_BYTES);
                data.put_long(session.0);
                data.put_bool(*is_valid);
                put(out, kind::REVALIDATE, Zxid::NONE, Some(&data));
            }
            Self::Sync => put(out, kind::SYNC, Zxid::ZERO, None),
            Self::Inform(entry) => put(out, kind::INFORM, entry.zxid, Some(&entry.payload)),
            Self::NewLeader { zxid, config } => put(out, kind::NEW_LEADER, *zxid, Some(config)),
            Self::FollowerInfo(info) => info.encode(kind::FOLLOWER_INFO, out),
            Self::ObserverInfo(info) => info.encode(kind::OBSERVER_INFO, out),
            Self::UpToDate => put(out, kind::UP_TO_DATE, Zxid::NONE, None),
            Self::Diff(zxid) => put(out, kind::DIFF, *zxid, None),
            Self::Trunc(zxid) => put(out, kind::TRUNC, *zxid, None),
            Self::Snap(zxid) => put(out, kind::SNAP, *zxid, None),
            Self::LeaderInfo(epoch) => {
                let version = PROTOCOL_VERSION.to_be_bytes();
                put(out, kind::LEADER_INFO, Zxid::new(*epoch, 0), Some(&version));
            }
            Self::AckEpoch { last_zxid, current_epoch } => {
                let epoch = current_epoch.map_or(-1, |epoch| epoch.0.cast_signed());
                put(out, kind::ACK_EPOCH, *last_zxid, Some(&epoch.to_be_bytes()));
            }
            Self::Other(kind) => put(out, *kind, Zxid::NONE, None),
        }
    }

    /// How many bytes it takes, about: enough to bound queues by.
    pub fn bytes(&self) -> usize {
        const HEAD_BYTES: usize = 20;
        HEAD_BYTES
            + match self {
                Self::Request(request) => request.payload.len(),
                Self::Proposal(entry) | Self::Inform(entry) => entry.payload.len(),
                Self::Pong { touched, .. } => touched.len() * TOUCH_BYTES,
                Self::NewLeader { config, .. } => config.len(),
                Self::Ack(_)
                | Self::Commit(_)
                | Self::Ping(_)
                | Self::Revalidate { .. }
                | Self::Revalidated { .. }
                | Self::Sync
                | Self::FollowerInfo(_)
                | Self::ObserverInfo(_)
                | Self::UpToDate
                | Self::Diff(_)
                | Self::Trunc(_)
                | Self::Snap(_)
                | Self::LeaderInfo(_)
                | Self::AckEpoch { .. }
                | Self::Other(_) => REVALIDATE_BYTES,
            }
    }
}

impl ForwardedRequest {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_int(kind::REQUEST);
        out.put_long(Zxid::NONE.raw());
        out.put_count(16 + self.payload.len());
        out.put_long(self.session.0);
        out.put_int(self.cxid.0);
        out.put_int(self.op_code);
        out.extend_from_slice(&self.payload);
        // A client's ids: none so far, as nobody can prove who he is.
        out.put_int(if self.is_clients { 0 } else { -1 });
    }
}

impl LearnerInfo {
    fn encode(self, kind: i32, out: &mut Vec<u8>) {
        let mut data = Vec::with_capacity(20);
        data.put_long(self.server.map_or(-1, |server| i64::from(server.get())));
        data.put_int(PROTOCOL_VERSION);
        // The version of a configuration that never changes.
        data.put_long(0);
        put(out, kind, Zxid::new(self.accepted_epoch, 0), Some(&data));
    }
}

fn put(out: &mut Vec<u8>, kind: i32, zxid: Zxid, data: Option<&[u8]>) {
    out.put_int(kind);
    out.put_long(zxid.raw());
    out.put_buffer(data);
    out.put_int(-1);
}

/// A session and its timeout in a ping's answer.
const TOUCH_BYTES: usize = 12;
/// A session and its timeout; the answer is shorter, which tells the two apart.
const REVALIDATE_BYTES: usize = 12;

/// Types of packets. 9 and 19 belong to reconfiguration, which is off.
mod kind {
    pub(super) const REQUEST: i32 = 1;
    pub(super) const PROPOSAL: i32 = 2;
    pub(super) const ACK: i32 = 3;
    pub(super) const COMMIT: i32 = 4;
    pub(super) const PING: i32 = 5;
    pub(super) const REVALIDATE: i32 = 6;
    pub(super) const SYNC: i32 = 7;
    pub(super) const INFORM: i32 = 8;
    pub(super) const NEW_LEADER: i32 = 10;
    pub(super) const FOLLOWER_INFO: i32 = 11;
    pub(super) const UP_TO_DATE: i32 = 12;
    pub(super) const DIFF: i32 = 13;
    pub(super) const TRUNC: i32 = 14;
    pub(super) const SNAP: i32 = 15;
    pub(super) const OBSERVER_INFO: i32 = 16;
    pub(super) const LEADER_INFO: i32 = 17;
    pub(super) const ACK_EPOCH: i32 = 18;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn split(bytes: &[u8]) -> Result<Option<Packet>, PacketError> {
        split_packet(&mut BytesMut::from(bytes))
    }

    fn learner(id: u8) -> LearnerInfo {
        LearnerInfo { accepted_epoch: Epoch(0), server: ServerId::new(id) }
    }

    /// Captured from an ensemble of Apache ZooKeeper 3.8.0.
    #[test]
    fn captured_packets_decode_and_encode_back_to_themselves() {
        let epoch = Zxid::new(Epoch(1), 0);
        let captured = [
            (
                "0000000b 0000000000000000 00000014 0000000000000001 00010000 0000000000000000 ffffffff",
                Packet::FollowerInfo(learner(1)),
            ),
            ("00000011 0000000100000000 00000004 00010000 ffffffff", Packet::LeaderInfo(Epoch(1))),
            (
                "00000012 0000000000000000 00000004 00000000 ffffffff",
                Packet::AckEpoch { last_zxid: Zxid::ZERO, current_epoch: Some(Epoch(0)) },
            ),
            ("0000000d 0000000000000000 ffffffff ffffffff", Packet::Diff(Zxid::ZERO)),
            ("0000000c ffffffffffffffff ffffffff ffffffff", Packet::UpToDate),
            ("00000003 0000000100000000 ffffffff ffffffff", Packet::Ack(epoch)),
            ("00000005 0000000100000000 ffffffff ffffffff", Packet::Ping(epoch)),
            (
                "00000006 ffffffffffffffff 0000000c 0100000ff8110000 00001770 ffffffff",
                Packet::Revalidate { session: SessionId(0x0100_000f_f811_0000), timeout_ms: 6000 },
            ),
            (
                "00000006 ffffffffffffffff 00000009 0100000ff8110000 01 ffffffff",
                Packet::Revalidated { session: SessionId(0x0100_000f_f811_0000), is_valid: true },
            ),
            (
                "00000001 ffffffffffffffff 00000014 0100000ff8110000 00000000 fffffff6 00001770 ffffffff",
                Packet::Request(ForwardedRequest {
                    session: SessionId(0x0100_000f_f811_0000),
                    cxid: Xid(0),
                    op_code: -10,
                    payload: Bytes::from_static(&[0, 0, 0x17, 0x70]),
                    is_clients: false,
                }),
            ),
        ];
        for (hex, packet) in captured {
            let wire = bytes(hex);
            assert_eq!(split(&wire), Ok(Some(packet.clone())), "{hex}");
            let mut encoded = Vec::new();
            packet.encode(&mut encoded);
            assert_eq!(encoded, wire, "{packet:?}");
        }
    }

    #[test]
    fn an_answer_to_a_ping_may_list_nothing() {
        let wire = bytes("00000005 0000000100000000 00000000 ffffffff");
        assert_eq!(split(&wire), Ok(Some(Packet::Ping(Zxid::new(Epoch(1), 0)))), "the reader knows its side");
        let mut encoded = Vec::new();
        Packet::Pong { zxid: Zxid::new(Epoch(1), 0), touched: Vec::new() }.encode(&mut encoded);
        assert_eq!(encoded, wire);
    }

    #[test]
    fn every_packet_survives_being_cut_anywhere() {
        let entry = Entry { zxid: Zxid::new(Epoch(2), 7), payload: Bytes::from_static(b"a txn") };
        let request = ForwardedRequest {
            session: SessionId(5),
            cxid: Xid(9),
            op_code: 1,
            payload: Bytes::from_static(b"create"),
            is_clients: true,
        };
        let packets = [
            Packet::Request(request),
            Packet::Proposal(entry.clone()),
            Packet::Commit(entry.zxid),
            Packet::Pong { zxid: entry.zxid, touched: vec![(SessionId(1), 10), (SessionId(-2), 20)] },
            Packet::Sync,
            Packet::Inform(entry.clone()),
            Packet::NewLeader { zxid: Zxid::new(Epoch(2), 0), config: Bytes::from_static(b"version=0") },
            Packet::ObserverInfo(learner(9)),
            Packet::Trunc(entry.zxid),
            Packet::Snap(entry.zxid),
            Packet::AckEpoch { last_zxid: entry.zxid, current_epoch: None },
        ];
        let mut wire = Vec::new();
        packets.iter().for_each(|packet| packet.encode(&mut wire));
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in wire {
            buffer.extend_from_slice(&[byte]);
            found.extend(split_packet(&mut buffer).unwrap());
        }
        assert_eq!(found, packets);
        assert!(buffer.is_empty());
    }

    #[test]
    fn ids_of_clients_are_passed_over() {
        let wire = bytes(
            "00000001 ffffffffffffffff 00000010 0000000000000001 00000002 00000005 \
             00000001 00000002 6970 00000009 3132372e302e302e31 \
             00000003 0000000100000000 ffffffff ffffffff",
        );
        let mut buffer = BytesMut::from(&wire[..]);
        let first = split_packet(&mut buffer).unwrap();
        assert!(matches!(first, Some(Packet::Request(ForwardedRequest { is_clients: true, .. }))));
        assert_eq!(split_packet(&mut buffer), Ok(Some(Packet::Ack(Zxid::new(Epoch(1), 0)))));
    }

    #[test]
    fn garbage_is_an_error_and_never_an_allocation() {
        for hex in [
            "00000002 0000000100000000 7fffffff 00",
            "00000002 0000000100000000 fffffffe 00",
            "00000002 0000000100000000 00000000 7fffffff",
            "00000001 ffffffffffffffff 00000000 00000001 7fffffff",
        ] {
            assert!(matches!(split(&bytes(hex)), Err(PacketError::BadLength { .. })), "{hex}");
        }
        for hex in [
            "00000001 ffffffffffffffff 00000002 0000 ffffffff",
            "0000000b 0000000000000000 ffffffff ffffffff",
            "00000012 0000000000000000 00000002 0000 ffffffff",
            "00000005 0000000100000000 00000005 0000000000 ffffffff",
        ] {
            assert!(matches!(split(&bytes(hex)), Err(PacketError::Content { .. })), "{hex}");
        }
        let unknown = bytes("00000063 0000000100000000 ffffffff ffffffff");
        assert_eq!(split(&unknown), Ok(Some(Packet::Other(0x63))));
    }
}

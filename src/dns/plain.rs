//! A plain question as it stands in a packet, and a reply to it of octets that were encoded before.
//!
//! Plain is what stub resolvers send: one question of class IN, and an OPT record without options, or none. What is not goes the slow
//! way, which can answer everything.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::head::HEADER_OCTETS;
use super::reply::{Limit, UDP_OCTETS_MAX};
use super::transport::Transport;

/// A question as it stands in a packet.
#[derive(Debug)]
pub(super) struct PlainQuery<'a> {
    packet: &'a [u8],
    /// The name in lower case, the type, and the wishes: what tables are asked for.
    key: [u8; NAME_OCTETS_MAX + KEY_TAIL_OCTETS],
    name_octets: usize,
    /// Where the question ends.
    end: usize,
    edns: Option<PlainEdns>,
}

/// What an OPT record without options says.
#[derive(Clone, Copy, Debug)]
struct PlainEdns {
    octets_max: u16,
    is_dnssec_ok: bool,
}

/// What a reply says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) rcode: ResponseCode,
    pub(super) is_authoritative: bool,
    pub(super) is_recursive: bool,
    pub(super) is_authentic: bool,
}

/// What stands behind the question of a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind<'a> {
    /// The numbers of answers, authorities and additional records, without OPT.
    pub(super) counts: [u16; 3],
    /// The records.
    pub(super) records: &'a [u8],
    /// What the OPT record holds, for clients that sent one.
    pub(super) options: &'a [u8],
}

impl<'a> PlainQuery<'a> {
    /// Reads a packet that is nothing but one question of class IN, and an OPT record of version 0 without options, if any.
    pub(super) fn read(packet: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER_OCTETS] = packet.first_chunk()?;
        // QUERY, not a response, not truncated, one question, no answer and no authority.
        let is_plain = header[2] & 0b1111_1110 == 0 && header[4..10] == [0, 1, 0, 0, 0, 0];
        if !is_plain || header[10] != 0 || header[11] > 1 {
            return None;
        }
        let mut key = [0; NAME_OCTETS_MAX + KEY_TAIL_OCTETS];
        let mut at = HEADER_OCTETS;
        loop {
            let length = usize::from(*packet.get(at)?);
            // Pointers have no place in the first name of a packet.
            if length > 63 || at + length - HEADER_OCTETS >= NAME_OCTETS_MAX {
                return None;
            }
            at += length + 1;
            if length == 0 {
                break;
            }
        }
        let (name_octets, end) = (at - HEADER_OCTETS, at + TYPE_AND_CLASS);
        let rest = packet.get(at..end)?;
        key[..name_octets].copy_from_slice(&packet[HEADER_OCTETS..at]);
        key[..name_octets].make_ascii_lowercase();
        key[name_octets..name_octets + 2].copy_from_slice(&rest[..2]);
        if rest[2..] != [0, 1] {
            return None;
        }
        let edns = match (header[11], &packet[end..]) {
            (0, []) => None,
            // Root, OPT, size, extended code and version 0, flags, no options (RFC 6891 section 6.1.2).
            (1, &[0, 0, 41, size_high, size_low, 0, 0, flags_high, _, 0, 0]) => Some(PlainEdns {
                octets_max: u16::from_be_bytes([size_high, size_low]),
                is_dnssec_ok: flags_high & 0x80 != 0,
            }),
            _ => return None,
        };
        let mut query = Self { packet, key, name_octets, end, edns };
        query.key[name_octets + 2] = wishes(query.is_dnssec_ok(), header[3] & CHECKING_DISABLED != 0);
        Some(query)
    }

    pub(super) fn kind(&self) -> RecordType {
        RecordType::from(u16::from_be_bytes([self.key[self.name_octets], self.key[self.name_octets + 1]]))
    }

    /// Where the question ends.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    /// The name in lower case and the type.
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.name_octets + 2]
    }

    /// The same with the [`wishes`].
    pub(super) fn key_with_wishes(&self) -> &[u8] {
        &self.key[..self.name_octets + KEY_TAIL_OCTETS]
    }

    /// Whether the client wants to know if the answer was validated (RFC 6840 section 5.8).
    pub(super) fn wants_authentic(&self) -> bool {
        self.packet[3] & AUTHENTIC_DATA != 0 || self.is_dnssec_ok()
    }

    fn is_dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.is_dnssec_ok)
    }

    /// Whether the client takes so many octets.
    pub(super) fn takes(&self, behind: Behind<'_>, transport: Transport) -> bool {
        let opt_octets = self.edns.map_or(0, |_| OPT_OCTETS + behind.options.len());
        let limit = Limit::of(transport, self.edns.map(|edns| edns.octets_max)).octets();
        self.end + behind.records.len() + opt_octets <= usize::from(limit)
    }

    /// Puts a reply together.
    pub(super) fn write_reply(&self, verdict: Verdict, behind: Behind<'_>, out: &mut Vec<u8>) {
        let Behind { counts: [answers, authorities, additionals], records, options } = behind;
        let flags = &self.packet[2..4];
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        out.extend_from_slice(&self.packet[..2]);
        // QR; RD and CD as asked (RFC 1035 section 4.1.1, RFC 4035 section 3.2.2).
        out.extend_from_slice(&[
            0x80 | bit(verdict.is_authoritative, 0b0000_0100) | (flags[0] & 1),
            bit(verdict.is_recursive, 0x80)
                | bit(verdict.is_authentic, AUTHENTIC_DATA)
                | (flags[1] & CHECKING_DISABLED)
                | verdict.rcode.low(),
        ]);
        for count in [1, answers, authorities, additionals + u16::from(self.edns.is_some())] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&self.packet[HEADER_OCTETS..self.end]);
        out.extend_from_slice(records);
        if let Some(edns) = self.edns {
            let [size_high, size_low] = UDP_OCTETS_MAX.to_be_bytes();
            let dnssec_ok = bit(edns.is_dnssec_ok, 0x80);
            out.extend_from_slice(&[0, 0, 41, size_high, size_low, 0, 0, dnssec_ok, 0]);
            let length = u16::try_from(options.len()).expect("a few options");
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(options);
        }
    }
}

/// What decides about an answer of upstreams beside name and type: DO and CD.
pub(super) const fn wishes(is_dnssec_ok: bool, is_checking_disabled: bool) -> u8 {
    (is_dnssec_ok as u8) | (is_checking_disabled as u8) << 1
}

/// Octets of the longest name (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 255;
/// Octets of a key behind the name.
const KEY_TAIL_OCTETS: usize = 3;
/// Octets of type and class behind a name.
pub(super) const TYPE_AND_CLASS: usize = 4;
/// Octets of an OPT record without options.
const OPT_OCTETS: usize = 11;
/// In the fourth octet of a header (RFC 4035 section 3).
const AUTHENTIC_DATA: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;

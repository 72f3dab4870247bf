//! The header of a query, read before anything that a malformed packet could break.

use hickory_proto::op::{MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

/// Octets of a header (RFC 1035 section 4.1.1).
pub(super) const HEADER_OCTETS: usize = 12;
/// Code and length of an option (RFC 6891 section 6.1.2).
const OPTION_HEAD_OCTETS: usize = 4;
/// RFC 7871 section 6.
const CLIENT_SUBNET: [u8; 2] = [0, 8];
/// The last that is for local use (RFC 6891 section 9).
const NOBODYS_OPTION: [u8; 2] = [0xff, 0xfe];

/// What the first four fields of a query say, read before anything that a malformed packet could break.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    id: u16,
    op_code: OpCode,
    is_recursion_desired: bool,
    is_checking_disabled: bool,
    questions: u16,
    /// Of answers, authorities and additional records.
    records: [u16; 3],
}

/// What can be read of a packet behind its header, whatever else is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Remains<'a> {
    /// Its only question.
    pub(super) question: Option<Query>,
    /// The data of its first OPT record.
    pub(super) options: Option<&'a [u8]>,
    /// Where in the packet they begin.
    options_start: usize,
}

impl Head {
    /// `None` for what must not be answered: too short to have an id, or itself an answer (QR), since two
    /// servers that answer answers would never stop.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_OCTETS] = packet.first_chunk()?;
        let flags = header[2];
        let is_response = flags & 0x80 != 0;
        (!is_response).then_some(Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            op_code: OpCode::from_u8((flags >> 3) & 0x0f),
            is_recursion_desired: flags & 0x01 != 0,
            is_checking_disabled: header[3] & 0x10 != 0,
            questions: u16::from_be_bytes([header[4], header[5]]),
            records: [6, 8, 10].map(|at| u16::from_be_bytes([header[at], header[at + 1]])),
        })
    }

    /// The code for what is refused by its header alone.
    pub(super) fn refusal(self) -> Option<ResponseCode> {
        if self.op_code != OpCode::Query {
            Some(ResponseCode::NotImp)
        } else if self.questions > 1 || (self.questions == 0 && self.records[2] == 0) {
            // RFC 9619; none at all may stand before a cookie (RFC 7873 section 5.4), in an additional record.
            Some(ResponseCode::FormErr)
        } else {
            None
        }
    }

    pub(super) fn metadata(self) -> Metadata {
        let mut metadata = Metadata::new(self.id, MessageType::Response, self.op_code);
        metadata.recursion_desired = self.is_recursion_desired;
        metadata.checking_disabled = self.is_checking_disabled; // RFC 4035 section 3.2.2
        metadata
    }

    /// Whether the packet with this header has an OPT record whose options are not what their lengths say: a format error (RFC 6891
    /// section 7), which hickory passes over with all other options, and tells in the log.
    pub(super) fn has_broken_options(self, packet: &[u8]) -> bool {
        self.records[2] > 0 && self.remains(packet).options.is_some_and(|options| !are_whole(options))
    }

    /// The packet with this header for hickory to read, which takes a client subnet that makes no sense for the end of everything. Nobody here
    /// looks at it, so that it is to be ignored (RFC 6891 section 6.1.2): it goes by a code that hickory passes over.
    pub(super) fn without_subnet(self, packet: &[u8]) -> Vec<u8> {
        let mut copy = packet.to_vec();
        if self.records[2] == 0 {
            return copy;
        }
        let Remains { options: Some(mut options), options_start: mut at, .. } = self.remains(packet) else {
            return copy;
        };
        while let Some(([code @ .., high, low], rest)) = options.split_first_chunk::<OPTION_HEAD_OCTETS>() {
            if *code == CLIENT_SUBNET {
                copy[at..at + 2].copy_from_slice(&NOBODYS_OPTION);
            }
            let octets = usize::from(u16::from_be_bytes([*high, *low]));
            at += OPTION_HEAD_OCTETS + octets;
            options = rest.get(octets..).unwrap_or_default();
        }
        copy
    }

    /// Reads as much as there is of the packet with this header.
    pub(super) fn remains(self, packet: &[u8]) -> Remains<'_> {
        let mut remains = Remains::default();
        // Where it cannot be read is where it ends.
        let _end = self.read_remains(packet, &mut remains);
        remains
    }

    fn read_remains<'a>(self, packet: &'a [u8], remains: &mut Remains<'a>) -> Result<(), DecodeError> {
        let mut decoder = BinDecoder::new(packet);
        decoder.read_slice(HEADER_OCTETS)?;
        for _ in 0..self.questions {
            let question = Query::read(&mut decoder)?;
            remains.question = (self.questions == 1).then_some(question);
        }
        let [answers, authorities, additionals] = self.records.map(usize::from);
        for number in 0..answers + authorities + additionals {
            Name::read(&mut decoder)?;
            let kind = RecordType::read(&mut decoder)?;
            // Class and TTL.
            decoder.read_slice(6)?;
            let octets = decoder.read_u16()?.unverified(/* so many are read, or none */);
            let start = decoder.index();
            let data = decoder.read_slice(octets.into())?.unverified(/* any octets will do */);
            if kind == RecordType::OPT && number >= answers + authorities {
                (remains.options, remains.options_start) = (Some(data), start);
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether each option has the octets that its length says (RFC 6891 section 6.1.2).
fn are_whole(mut options: &[u8]) -> bool {
    while !options.is_empty() {
        let Some(([_, _, high, low], rest)) = options.split_first_chunk() else { return false };
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        options = rest;
    }
    true
}

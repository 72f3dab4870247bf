//! The header of a query, read before anything that a malformed packet could break.

use hickory_proto::op::{MessageType, Metadata, OpCode, ResponseCode};

/// Octets of a header (RFC 1035 section 4.1.1).
pub(super) const HEADER_OCTETS: usize = 12;

/// What the first four fields of a query say, read before anything that a malformed packet could break.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    id: u16,
    op_code: OpCode,
    is_recursion_desired: bool,
    questions: u16,
    additionals: u16,
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
            questions: u16::from_be_bytes([header[4], header[5]]),
            additionals: u16::from_be_bytes([header[10], header[11]]),
        })
    }

    /// The code for what is refused by its header alone.
    pub(super) fn refusal(self) -> Option<ResponseCode> {
        if self.op_code != OpCode::Query {
            Some(ResponseCode::NotImp)
        } else if self.questions > 1 || (self.questions == 0 && self.additionals == 0) {
            // RFC 9619; none at all may stand before a cookie (RFC 7873 section 5.4), in an additional record.
            Some(ResponseCode::FormErr)
        } else {
            None
        }
    }

    pub(super) fn metadata(self) -> Metadata {
        let mut metadata = Metadata::new(self.id, MessageType::Response, self.op_code);
        metadata.recursion_desired = self.is_recursion_desired;
        metadata
    }
}

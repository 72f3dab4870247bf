//! Records of old types whose data hold names that may be compressed, and that hickory takes for octets (RFC 3597 section 4). Pure.
//!
//! A pointer in such data means a place in the packet that it came in, and nothing, or something else, in any other message. The names are
//! written out.

use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable};

/// Writes out the names in the data of a record that ends at `end` of `packet`, if it is of such a type; `None` when the data are not what
/// the type has.
pub(super) fn write_out(record: &mut Record, packet: &[u8], end: usize) -> Option<()> {
    let RData::Unknown { code, rdata } = &mut record.data else { return Some(()) };
    let Some(Layout { octets, names }) = layout(u16::from(*code)) else { return Some(()) };
    let mut data = rdata.anything.get(..octets)?.to_vec();
    let names_at = end.checked_sub(rdata.anything.len())? + octets;
    let mut decoder = BinDecoder::new(packet.get(..end)?);
    decoder.read_slice(names_at).ok()?;
    for _ in 0..names {
        let name = Name::read(&mut decoder).ok()?;
        data.extend(name.to_bytes().ok()?);
    }
    *rdata = NULL::with(data);
    decoder.is_empty().then_some(())
}

/// What data consist of: octets, and names behind them.
struct Layout {
    octets: usize,
    names: usize,
}

fn layout(kind: u16) -> Option<Layout> {
    let (octets, names) = match kind {
        // MD, MF, MB, MG, MR (RFC 1035 section 3.3).
        3 | 4 | 7 | 8 | 9 => (0, 1),
        // MINFO (RFC 1035 section 3.3.7), RP (RFC 1183 section 2.2).
        14 | 17 => (0, 2),
        // AFSDB, RT (RFC 1183 sections 1 and 3.3).
        18 | 21 => (2, 1),
        // PX (RFC 2163 section 4).
        26 => (2, 2),
        _ => return None,
    };
    Some(Layout { octets, names })
}

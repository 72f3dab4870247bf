//! The saved view: as it stands, and with a checksum that is right, so that what lies behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall::clock::Moment;
use rollcall::registry::{Layout, SavedView};

fuzz_target!(|data: &[u8]| {
    let (layout, moment) = (Layout::default(), Moment::read());
    assert!(SavedView::decode(data, &layout, moment).is_err() || data.starts_with(b"rollcall-view"));
    let sealed = [format!("rollcall-view 1 {:08x}\n", checksum(data)).as_bytes(), data].concat();
    let Ok(saved) = SavedView::decode(&sealed, &layout, moment) else { return };
    let bytes = saved.encode(&layout, moment).expect("what was read can be written");
    let again = SavedView::decode(&bytes, &layout, moment).expect("and read again");
    assert_eq!(again.encode(&layout, moment).expect("and written"), bytes);
});

/// CRC-32 (ISO 3309), bit by bit, so that the fuzzer needs no other crate.
fn checksum(data: &[u8]) -> u32 {
    let next = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    };
    !data.iter().fold(!0, next)
}

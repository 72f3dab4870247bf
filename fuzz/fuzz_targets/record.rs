//! An instance's record: whatever is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall::registry::Record;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = Record::decode(data) else { return };
    // What was read may be longer when it is written, since defaults are spelled out.
    let Ok(bytes) = record.encode() else { return };
    assert_eq!(Record::decode(&bytes).expect("what was written is read"), record);
});

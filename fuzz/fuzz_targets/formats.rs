//! The formats of other systems: the first byte says which, the next line is the znode's path, the rest its data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall::registry::Record;
use rollcall::registry::formats::Format;

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    let format =
        [Format::Curator, Format::Spring, Format::Serverset, Format::Nerve][usize::from(*which) % 4];
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let Ok(path) = std::str::from_utf8(&rest[..at]) else { return };
    let data = rest.get(at + 1..).unwrap_or_default();
    // As it is in the tree: the names of service and instance are the last two of the path.
    if let Ok(record) = format.decode(path, data) {
        let bytes = record.encode().expect("what was read can be written");
        assert_eq!(Record::decode(&bytes).expect("and read again"), record);
    }
});

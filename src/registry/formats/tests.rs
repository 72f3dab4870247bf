//! What holds for every format, for whatever bytes.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::znode::ZnodePath;

const FORMATS: [Format; 4] = [Format::Curator, Format::Spring, Format::Serverset, Format::Nerve];

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        (record, target) in (any_record(), 0..FORMATS.len()).prop_map(|(record, index)| {
            let target = any_target(FORMATS[index], &record);
            (record, target)
        }),
    ) {
        let znode = target.znode(&id("p-1"), &record);
        let path = path_of(&znode);
        let read = target.format().decode(&path, &znode.data).unwrap();
        prop_assert_eq!(read.addresses[0], record.addresses[0]);
        prop_assert_eq!(read.default_port().unwrap().port, target.port);
        prop_assert!(target.is_of(&record, &path, &znode.data));
        let numbers = |record: &Record| {
            let mut numbers: Vec<_> = record.ports.iter().map(|port| (port.name.clone(), port.port)).collect();
            numbers.sort();
            numbers
        };
        match target.format() {
            Format::Serverset => {
                prop_assert_eq!(numbers(&read), numbers(&record));
                prop_assert_eq!(read.is_up(), record.is_up());
            }
            Format::Spring => {
                prop_assert_eq!(read.is_up(), record.is_up());
                prop_assert_eq!(&read.meta, &record.meta);
                prop_assert_eq!(&read.zone, &record.zone);
            }
            Format::Nerve => {
                prop_assert_eq!(read.weight, record.weight.min(256));
                prop_assert_eq!(read.priority > 0, record.effective_priority() > 0);
                prop_assert_eq!(&read.meta, &record.meta);
                prop_assert_eq!(&read.zone, &record.zone);
            }
            Format::Curator => prop_assert_eq!(read.registered_at_ms, record.registered_at_ms),
        }
    }

    #[test]
    fn arbitrary_bytes_are_an_error_or_a_record_that_can_be_written(
        index in 0..FORMATS.len(),
        path in "(/?[ -~é/_]{0,40}|/s/(member|base64|p)_[0-9]{0,4}_?[a-zA-Z0-9=_-]{0,40}(_[0-9]{10})?)",
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        check(FORMATS[index], &path, &data);
    }

    #[test]
    fn mangled_instances_are_an_error_or_a_record_that_can_be_written(
        record in any_record(),
        index in 0..FORMATS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 1..6),
    ) {
        let znode = any_target(FORMATS[index], &record).znode(&id("p-1"), &record);
        let mut data = znode.data.clone();
        for (at, change) in changes {
            if data.is_empty() {
                break;
            }
            let at = at.index(data.len());
            match change {
                Change::Set(byte) => data[at] = byte,
                Change::Cut => data.truncate(at),
                Change::Insert(text) => { data.splice(at..at, text.bytes()); }
                Change::Remove(count) => { data.drain(at..(at + count).min(data.len())); }
            }
        }
        // Also by the readers of the other formats.
        for format in FORMATS {
            check(format, &path_of(&znode), &data);
        }
        let encoded = data_encoding::BASE64URL.encode(&data);
        check(Format::Nerve, &format!("/n/base64_{}_{encoded}_0000000001", encoded.len()), b"");
    }
}

#[test]
fn what_is_too_long_is_refused_unread() {
    let data = vec![b' '; Record::BYTES_MAX + 1];
    for format in FORMATS {
        let error = format.decode("/s/web/member_0000000001", &data).unwrap_err();
        assert!(matches!(error, FormatError::TooLong { .. }), "{format}: {error}");
    }
    let nested = "[".repeat(Record::BYTES_MAX);
    let text = format!(r#"{{"host":"10.0.0.1","port":1,"x":{nested}"#);
    let error = Format::Nerve.decode("/n/i_0000000001", &text.as_bytes()[..Record::BYTES_MAX]).unwrap_err();
    assert!(matches!(error, FormatError::Json(_)), "{error}");
}

fn check(format: Format, path: &str, data: &[u8]) {
    let Ok(record) = format.decode(path, data) else { return };
    assert!(record.owner.is_empty(), "nobody's");
    let again = Record::decode(&record.encode().expect("it can be written")).expect("it can be read again");
    assert_eq!(
        (&again.addresses, &again.ports, again.status),
        (&record.addresses, &record.ports, record.status)
    );
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8),
    Cut,
    Insert(String),
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let texts = [
        "null",
        "\"",
        "{",
        "}",
        "[",
        "]",
        "-1",
        "65536",
        "0",
        "1e400",
        "99999999999999999999",
        "\\u0000",
        "\\ud800",
        ",",
        "\"port\":1,",
        "\"host\":\"::1\",",
        "\"v\":9,",
        "\"owner\":\"me\",",
        "\"labels\":{\"az\":1},",
    ];
    prop_oneof![
        any::<u8>().prop_map(Change::Set),
        Just(Change::Cut),
        prop::sample::select(texts.to_vec()).prop_map(|text| Change::Insert(text.to_owned())),
        (1..12_usize).prop_map(Change::Remove),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let names = ["http", "admin", "grpc", "default", "z"];
    let ports = prop::sample::subsequence(names.to_vec(), 1..=names.len()).prop_shuffle();
    let ports = ports.prop_flat_map(|names| {
        let count = names.len();
        (Just(names), prop::collection::vec(1..=u16::MAX, count))
    });
    let status =
        prop::sample::select(vec![Status::Up, Status::Failing, Status::Draining, Status::Maintenance]);
    let meta = prop::collection::btree_map("[a-z]{3,8}|ü\"", ".{0,20}", 0..4);
    let zone = prop::option::of("[a-z]{1,9}");
    (
        any::<IpAddr>().prop_filter_map("no host's", host_address),
        ports,
        status,
        meta,
        zone,
        any::<(u16, u16, i64)>(),
    )
        .prop_map(
            |(address, (names, numbers), status, mut meta, zone, (weight, priority, registered_at_ms))| {
                meta.retain(|key, _| key != "zone");
                let ports =
                    names.iter().zip(numbers).map(|(name, number)| port(name, number.into()).unwrap());
                // A port called `default` is the nameless one, so that it has to be the first.
                let mut ports: Vec<_> = ports.collect();
                ports.sort_by_key(|port| port.name.as_str() != PORT_NAME);
                Record {
                    addresses: vec![address],
                    ports,
                    status,
                    meta: meta.into(),
                    zone,
                    weight,
                    priority,
                    registered_at_ms,
                    ..instance("10.0.0.1")
                }
            },
        )
}

fn any_target(format: Format, record: &Record) -> FormatTarget {
    let (name, ssl_port) = ("payments".to_owned(), record.ports.get(1).map(|port| port.port));
    let kind = match format {
        Format::Curator => FormatKind::Curator { name, ssl_port, payload: Some("ü".to_owned()) },
        Format::Spring => FormatKind::Spring { name, ssl_port },
        Format::Serverset => FormatKind::Serverset { shard: Some(7) },
        Format::Nerve => FormatKind::Nerve,
    };
    FormatTarget { port: record.ports[0].port, ..target("/roots/one", kind) }
}

fn path_of(znode: &ForeignZnode) -> String {
    if znode.mode.is_sequential() { znode.path() + "0000000012" } else { znode.path() }
}

/// A target with the default port of [`instance`].
pub(super) fn target(root: &str, kind: FormatKind) -> FormatTarget {
    FormatTarget { root: ZnodePath::parse(root).unwrap(), port: 8040, kind }
}

pub(super) fn id(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// An instance that is up.
pub(super) fn instance(address: &str) -> Record {
    let text = format!(
        r#"{{"v":1,"addresses":["{address}"],"status":"up","owner":"me","registered_at_ms":1553592092875,
            "ports":[{{"name":"http","port":8040}},{{"name":"admin","port":8041}},{{"name":"dns","port":53,"protocol":"udp"}}],
            "meta":{{"version":"7"}}}}"#
    );
    Record::decode(text.as_bytes()).unwrap()
}

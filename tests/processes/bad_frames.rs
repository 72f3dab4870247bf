//! Malformed frames on the client port: that one connection is closed with a log line, the others are served.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::raw_client::{buffer, connect_request, int, long, text};
use crate::support::{Dev, RawClient, wait_until};

const SENDERS: usize = 8;

#[test]
fn every_malformed_frame_closes_its_connection_and_no_other() {
    let dev = Dev::start(None, &[]);
    let mut canary = dev.connect();
    canary.create("/canary", Some(b"alive"), 1).expect("the canary sings");
    let cases = [frames(), unknown_operations(), truncations(), lies()].concat();
    assert!(cases.len() > 800, "only {} cases were made", cases.len());

    let failures = run_all(&cases, |case| {
        let mut client =
            RawClient::connect(&dev.client.address(), 4_000).map_err(|error| error.to_string())?;
        expect_close(&mut client, &case.bytes)
    });

    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert_eq!(canary.get("/canary").expect("the canary sings").as_deref(), Some(&b"alive"[..]));
    wait_until_told(&dev, cases.len());
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

#[test]
fn every_malformed_connect_request_closes_its_connection_and_no_other() {
    let dev = Dev::start(None, &[]);
    let mut canary = dev.connect();
    let cases = connect_requests();

    let failures = run_all(&cases, |case| {
        let mut stream = TcpStream::connect(dev.client.address()).map_err(|error| error.to_string())?;
        stream.write_all(&case.bytes).map_err(|error| error.to_string())?;
        expect_end(&mut stream, Duration::from_secs(5))
    });

    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    canary.ping().expect("the canary sings");
    // An expired session is no mistake of its client.
    wait_until_told(&dev, cases.len() - 1);
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

#[test]
fn a_connection_closed_for_what_it_sent_leaves_a_log_line_with_its_peer_and_why() {
    let dev = Dev::start(None, &[]);
    for (told, (case, why)) in [
        (&frames()[0], "frame length -1 is negative"),
        (&truncations()[20], "malformed request"),
        (&unknown_operations()[0], "operation 10 is not implemented"),
        (&lies()[1], "malformed request"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = dev.connect();
        let peer = client.stream().local_addr().expect("it is connected").to_string();

        expect_close(&mut client, &case.bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));

        wait_until_told(&dev, told + 1);
        let log = dev.log();
        let line = log.lines().rfind(|line| line.contains(TOLD)).expect("it was just there");
        assert!(line.contains(&peer) && line.contains(why), "{}: {line}", case.name);
    }
}

#[test]
fn random_bytes_never_harm_others() {
    let dev = Dev::start(None, &[]);
    let mut canary = dev.connect();
    let mut random = fastrand::Rng::with_seed(20_260);
    for _round in 0..300 {
        let mut bytes = vec![0; random.usize(1..200)];
        random.fill(&mut bytes);
        if random.bool() {
            // A plausible length, so that more than the framer is reached.
            let length = i32::try_from(bytes.len()).expect("short");
            bytes.splice(0..0, length.to_be_bytes());
        }
        let mut stream = TcpStream::connect(dev.client.address()).expect("it accepts");
        let is_after_handshake = random.bool();
        if is_after_handshake {
            let mut client = RawClient::connect(&dev.client.address(), 4_000).expect("it serves");
            let _may_be_refused = client.send_bytes(&bytes);
        } else {
            let _may_be_refused = stream.write_all(&bytes);
        }
    }
    canary.ping().expect("the canary sings");
    dev.connect().close().expect("a new client is served");
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

/// What the log says of each connection that is closed for what it sent.
const TOLD: &str = "closing a connection for what it sent";

/// Waits until the log has told of exactly so many connections.
fn wait_until_told(dev: &Dev, connections: usize) {
    let told = || dev.log().lines().filter(|line| line.contains(TOLD)).count();
    wait_until(&format!("{connections} log lines"), Duration::from_secs(5), || told() >= connections);
    assert_eq!(told(), connections);
}

/// Bytes that are no request, and why.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    bytes: Vec<u8>,
}

impl Case {
    /// A frame with an honest length.
    fn framed(name: String, frame: &[u8]) -> Self {
        Self { name, bytes: buffer(Some(frame)) }
    }
}

/// A well-formed record, and where its lengths and counts stand.
struct Record {
    op: i32,
    name: &'static str,
    bytes: Vec<u8>,
    lengths: Vec<usize>,
}

/// A record is put together from these.
enum Field {
    Fixed(Vec<u8>),
    /// A length or count with what follows it.
    Counted(Vec<u8>),
}

fn record(op: i32, name: &'static str, fields: Vec<Field>) -> Record {
    let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
    for field in fields {
        match field {
            Field::Fixed(field) => bytes.extend(field),
            Field::Counted(field) => {
                lengths.push(bytes.len());
                bytes.extend(field);
            }
        }
    }
    Record { op, name, bytes, lengths }
}

/// One of each operation that has a record.
fn records() -> Vec<Record> {
    use Field::{Counted, Fixed};
    let path = || Counted(text("/canary"));
    let acl = || vec![Counted(int(1)), Fixed(int(31)), Counted(text("world")), Counted(text("anyone"))];
    let create = |flags: i32| {
        let mut fields = vec![path(), Counted(buffer(Some(b"data")))];
        fields.extend(acl());
        fields.push(Fixed(int(flags)));
        fields
    };
    let set_acl = || {
        let mut fields = vec![path()];
        fields.extend(acl());
        fields.push(Fixed(int(-1)));
        fields
    };
    let watched = || vec![path(), Fixed(vec![0])];
    let paths = || vec![Counted(int(1)), Counted(text("/w"))];
    let watches = |lists: usize| {
        let mut fields = vec![Fixed(long(0))];
        (0..lists).for_each(|_| fields.extend(paths()));
        fields
    };
    let header = |op: i32, is_last: bool| Fixed([int(op), vec![u8::from(is_last)], int(-1)].concat());
    let mut multi = vec![header(1, false)];
    multi.extend(create(0));
    multi.extend([header(5, false), path(), Counted(buffer(Some(b"x"))), Fixed(int(-1))]);
    multi.extend([header(13, false), path(), Fixed(int(0))]);
    multi.extend([header(2, false), path(), Fixed(int(-1)), header(-1, true)]);
    vec![
        record(1, "create", create(0)),
        record(15, "create2", create(3)),
        record(2, "delete", vec![path(), Fixed(int(-1))]),
        record(3, "exists", watched()),
        record(4, "getData", watched()),
        record(5, "setData", vec![path(), Counted(buffer(Some(b"data"))), Fixed(int(-1))]),
        record(6, "getACL", vec![path()]),
        record(7, "setACL", set_acl()),
        record(8, "getChildren", watched()),
        record(12, "getChildren2", watched()),
        record(9, "sync", vec![path()]),
        record(14, "multi", multi),
        record(101, "setWatches", watches(3)),
        record(105, "setWatches2", watches(5)),
        record(106, "addWatch", vec![path(), Fixed(int(1))]),
        record(17, "checkWatches", vec![path(), Fixed(int(1))]),
        record(18, "removeWatches", vec![path(), Fixed(int(1))]),
        record(100, "auth", vec![Fixed(int(0)), Counted(text("digest")), Counted(buffer(Some(b"a:b")))]),
    ]
}

fn header(op: i32) -> Vec<u8> {
    let xid = match op {
        100 => -4,
        101 | 105 => -8,
        _ => 1,
    };
    [int(xid), int(op)].concat()
}

/// Lengths that no frame may have, and frames too short for a header.
fn frames() -> Vec<Case> {
    let lengths = [-1, -2, i32::MIN, i32::MAX, 1 << 20, 1 << 24].map(|length: i32| Case {
        name: format!("a frame of {length} bytes"),
        bytes: [int(length), vec![0; 16]].concat(),
    });
    let headers = (0..8).map(|length| Case::framed(format!("a header of {length} bytes"), &vec![0; length]));
    lengths.into_iter().chain(headers).collect()
}

fn unknown_operations() -> Vec<Case> {
    [10, 0, -1, 13, 20, 23, 50, 99, 108, 1_000, -10, -12, i32::MIN, i32::MAX]
        .map(|op| {
            Case::framed(format!("operation {op}"), &[int(1), int(op), text("/canary"), int(0)].concat())
        })
        .to_vec()
}

/// Every record cut at every byte.
fn truncations() -> Vec<Case> {
    let mut cases = Vec::new();
    for record in records() {
        for kept in 0..record.bytes.len() {
            let name = format!("{} cut to {kept} of {} bytes", record.name, record.bytes.len());
            cases.push(Case::framed(name, &[&header(record.op), &record.bytes[..kept]].concat()));
        }
    }
    cases
}

/// Every length and count replaced by one that cannot be.
fn lies() -> Vec<Case> {
    let mut cases = Vec::new();
    for record in records() {
        for at in &record.lengths {
            let rest = i32::try_from(record.bytes.len() - at - 4).expect("short");
            for lie in [-2, i32::MIN, i32::MAX, 0x00ff_ffff, rest + 1] {
                let mut bytes = record.bytes.clone();
                bytes.splice(*at..at + 4, lie.to_be_bytes());
                let name = format!("{} with length {lie} at byte {at}", record.name);
                cases.push(Case::framed(name, &[header(record.op), bytes].concat()));
            }
        }
    }
    cases
}

fn connect_requests() -> Vec<Case> {
    let whole = connect_request(4_000);
    // The last byte, `readOnly`, is left out by old clients.
    let mut cases: Vec<Case> = (0..whole.len() - 1)
        .map(|kept| Case::framed(format!("a connect request cut to {kept} bytes"), &whole[..kept]))
        .collect();
    for lie in [-2, i32::MIN, i32::MAX, 18] {
        let mut bytes = whole.clone();
        bytes.splice(24..28, lie.to_be_bytes());
        cases.push(Case::framed(format!("a password of {lie} bytes"), &bytes));
    }
    for length in [-1, i32::MIN, i32::MAX, 1 << 20] {
        cases.push(Case { name: format!("a first frame of {length} bytes"), bytes: int(length) });
    }
    for (name, bytes) in [
        ("an HTTP request", &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("a session that nobody has", b"\0\0\0\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x27\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x10################\0"),
    ] {
        cases.push(Case { name: name.to_owned(), bytes: bytes.to_vec() });
    }
    cases
}

/// Runs every case, several at a time, and returns what went wrong.
fn run_all(cases: &[Case], run: impl Fn(&Case) -> Result<(), String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = run(case) {
                        failures.lock().expect("no sender panics").push(format!("{}: {error}", case.name));
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no sender panics")
}

fn expect_close(client: &mut RawClient, bytes: &[u8]) -> Result<(), String> {
    client.send_bytes(bytes).map_err(|error| error.to_string())?;
    let mut stream = client.stream().try_clone().map_err(|error| error.to_string())?;
    expect_end(&mut stream, Duration::from_secs(5))
}

/// The connection ends, perhaps after a reply.
fn expect_end(stream: &mut TcpStream, limit: Duration) -> Result<(), String> {
    stream.set_read_timeout(Some(limit)).map_err(|error| error.to_string())?;
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(format!("the connection stays open: {error}, after {received:02x?}")),
    }
}

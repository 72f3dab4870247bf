//! Questions that are none, or that nobody can answer: an RFC's response code or silence, never harm to others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::dns::{A, Header, ask_tcp, ask_udp, question};
use crate::support::{Dev, dig, wait_until};

const CANARY: &str = "rollcall.default.rollcall.internal";
const FORMERR: u8 = 1;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
const IN: u16 = 1;
/// Long enough for any answer; where silence is right, most of a test is spent waiting this long.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn random_packets_get_a_refusal_or_silence_and_harm_nobody() {
    let dev = serving();
    let mut random = fastrand::Rng::with_seed(53);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    socket.connect(("127.0.0.1", dev.dns.number())).expect("loopback can be reached");
    for round in 0..3_000 {
        let mut packet = vec![0; random.usize(0..600)];
        random.fill(&mut packet);
        // Half of them are real questions with a few bytes changed, which get further into the parser.
        if random.bool() {
            packet = question(round, CANARY, A, IN);
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..packet.len());
                packet[at] = random.u8(..);
            }
            packet.truncate(random.usize(1..=packet.len()));
        }
        socket.send(&packet).expect("loopback takes it");
        if round % 100 == 0 {
            expect_canary(&dev);
        }
    }
    expect_canary(&dev);
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

#[test]
fn every_cut_of_a_question_gets_format_error_or_silence() {
    let dev = serving();
    let whole = question(7, CANARY, A, IN);
    for kept in 0..whole.len() {
        // Silence is for what has not even an id; the wait for it is kept short.
        let limit = if kept < 12 { Duration::from_millis(100) } else { LIMIT };
        let Some(answer) = ask_udp(dev.dns.number(), &whole[..kept], limit) else {
            assert!(kept < 12, "no answer to a question cut to {kept} bytes");
            continue;
        };
        let header = Header::parse(&answer).expect("an answer has a header");
        assert!(header.is_response && header.id == 7, "{header:?} to a question cut to {kept} bytes");
        assert_eq!(header.rcode, FORMERR, "{header:?} to a question cut to {kept} bytes");
    }
    expect_canary(&dev);
}

#[test]
fn responses_are_never_answered() {
    let dev = serving();
    let mut message = question(9, CANARY, A, IN);
    message[2] |= 0x80;
    assert_eq!(ask_udp(dev.dns.number(), &message, Duration::from_millis(300)), None);
    expect_canary(&dev);
}

#[test]
fn what_is_not_offered_gets_the_response_code_of_the_rfc() {
    let dev = serving();
    let rcode = |message: &[u8]| {
        let answer = ask_udp(dev.dns.number(), message, LIMIT).expect("an answer");
        let header = Header::parse(&answer).expect("an answer has a header");
        assert!(header.is_response);
        (header.rcode, header.answers)
    };
    // Types that exist for nobody, and types that this name has none of: NODATA.
    for kind in [65_280, 99, 65, 15] {
        let (rcode, answers) = rcode(&question(1, CANARY, kind, IN));
        assert_eq!((rcode, answers), (0, 0), "type {kind}");
    }
    // Other operations.
    for operation in [1_u8, 2, 4, 5, 15] {
        let mut message = question(2, CANARY, A, IN);
        message[2] = operation << 3;
        assert_eq!(rcode(&message).0, NOTIMP, "operation {operation}");
    }
    // Another class, and a zone that is not ours.
    assert!([NOTIMP, REFUSED].contains(&rcode(&question(3, CANARY, A, 3)).0), "class CH");
    assert_eq!(rcode(&question(4, "example.org", A, IN)).0, REFUSED);
    // More than one question.
    let mut two = question(5, CANARY, A, IN);
    two[5] = 2;
    let second = question(5, CANARY, A, IN);
    two.extend_from_slice(&second[12..]);
    assert!([FORMERR, NOTIMP].contains(&rcode(&two).0));
    expect_canary(&dev);
}

#[test]
fn names_with_bad_labels_do_not_exist() {
    let dev = serving();
    let long = "x".repeat(63);
    let spaced = [(b' ', "space"), (0, "NUL"), (0xff, "no UTF-8"), (b'_', "underscore"), (b'/', "slash")];
    for (byte, what) in spaced {
        let mut message = question(1, &format!("a?b.default.{ZONE}"), A, IN);
        let at = message.iter().position(|b| *b == b'?').expect("it is there");
        message[at] = byte;
        expect_nxdomain(&dev, &message, what);
    }
    for name in
        [format!("{long}.default.{ZONE}"), format!("-x.default.{ZONE}"), format!("a.b.c.d.e.f.{ZONE}")]
    {
        expect_nxdomain(&dev, &question(1, &name, A, IN), &name);
    }
    expect_canary(&dev);
}

#[test]
fn a_name_keeps_its_letter_case_and_an_unknown_one_carries_the_soa() {
    let dev = serving();
    let shouted = dig(dev.dns.number(), &["RollCall.DEFAULT.rollcall.INTERNAL.", "A"]);
    assert_eq!(shouted.status, "NOERROR", "{}", shouted.text);
    assert_eq!(shouted.answer[0].name, "RollCall.DEFAULT.rollcall.INTERNAL.", "{}", shouted.text);
    let unknown = dig(dev.dns.number(), &["nobody.default.rollcall.internal.", "A"]);
    assert_eq!(unknown.status, "NXDOMAIN", "{}", unknown.text);
    assert_eq!(unknown.authority.first().map(|record| record.kind.as_str()), Some("SOA"), "{}", unknown.text);
    let nodata = dig(dev.dns.number(), &["rollcall.default.rollcall.internal.", "AAAA"]);
    assert_eq!((nodata.status.as_str(), nodata.answer.len()), ("NOERROR", 0), "{}", nodata.text);
    assert_eq!(nodata.authority.first().map(|record| record.kind.as_str()), Some("SOA"), "{}", nodata.text);
}

#[test]
fn bad_tcp_messages_harm_nobody() {
    let dev = serving();
    let mut random = fastrand::Rng::with_seed(54);
    let mut held = Vec::new();
    for _round in 0..200 {
        let mut bytes = vec![0; random.usize(0..300)];
        random.fill(&mut bytes);
        if random.bool() {
            let length = u16::try_from(bytes.len()).expect("short");
            bytes.splice(0..0, length.to_be_bytes());
        }
        let mut stream = TcpStream::connect(("127.0.0.1", dev.dns.number())).expect("it accepts");
        let _may_be_refused = stream.write_all(&bytes);
        // Connections that wait for more are kept open; they must not use up anything that others need.
        held.push(stream);
    }
    expect_canary(&dev);
    // A message without a byte ends the connection or is passed over; the rest of the server goes on.
    let mut empty = TcpStream::connect(("127.0.0.1", dev.dns.number())).expect("it accepts");
    empty.write_all(&[0, 0]).expect("loopback takes it");
    empty.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
    let _nothing_or_end = empty.read(&mut [0; 16]);
    expect_canary(&dev);
    assert!(!dev.log().contains("panicked"), "{}", dev.log());
}

/// No question is passed on to the resolvers of this machine.
const SETTINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/bad_questions.yaml");
const ZONE: &str = "rollcall.internal";

fn serving() -> Dev {
    let dev = Dev::start(None, &["-c", SETTINGS]);
    wait_until("the canary is registered", Duration::from_secs(20), || {
        ask_udp(dev.dns.number(), &question(1, CANARY, A, IN), LIMIT)
            .and_then(|answer| Header::parse(&answer))
            .is_some_and(|header| header.answers == 1)
    });
    dev
}

fn expect_canary(dev: &Dev) {
    let message = question(0xcafe, CANARY, A, IN);
    let udp = ask_udp(dev.dns.number(), &message, LIMIT).expect("the canary sings over UDP");
    let tcp = ask_tcp(dev.dns.number(), &message, LIMIT).expect("the canary sings over TCP");
    for answer in [udp, tcp] {
        let header = Header::parse(&answer).expect("an answer has a header");
        assert_eq!((header.id, header.rcode, header.answers), (0xcafe, 0, 1), "{header:?}");
    }
}

fn expect_nxdomain(dev: &Dev, message: &[u8], what: &str) {
    let answer = ask_udp(dev.dns.number(), message, LIMIT).expect("an answer");
    let header = Header::parse(&answer).expect("an answer has a header");
    assert_eq!((header.rcode, header.answers), (NXDOMAIN, 0), "{what}");
}

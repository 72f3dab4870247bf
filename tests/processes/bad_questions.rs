//! Questions that are none, or that nobody can answer: an RFC's response code or silence, never harm to others.

use std::io::{ErrorKind, Read, Write};
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
/// Longer than anything takes where there is always something to come.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn random_packets_get_a_response_code_or_silence_and_harm_nobody() {
    let dev = serving();
    let mut random = fastrand::Rng::with_seed(53);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    socket.connect(("127.0.0.1", dev.dns.number())).expect("loopback can be reached");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let (mut silences, mut refusals) = (0, 0);
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
        let reply = reply_before_canary(&socket, &packet);
        assert_eq!(reply.is_none(), is_to_be_ignored(&packet), "{reply:?} to {packet:?}");
        match reply {
            None => silences += 1,
            Some(reply) => refusals += usize::from(expect_code(&packet, &reply) != 0),
        }
        if round % 100 == 0 {
            expect_canary(&dev);
        }
    }
    assert!(silences > 300 && refusals > 300, "{silences} silences and {refusals} refusals");
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
fn bad_tcp_messages_get_a_response_code_or_the_end_and_harm_nobody() {
    let dev = serving();
    let mut random = fastrand::Rng::with_seed(54);
    let (mut held, mut ends, mut refusals) = (Vec::new(), 0, 0);
    for _round in 0..200 {
        let mut bytes = vec![0; random.usize(0..300)];
        random.fill(&mut bytes);
        let mut stream = connect(&dev);
        if random.bool() {
            match reply_over(&mut stream, &bytes) {
                None => {
                    assert!(is_to_be_ignored(&bytes), "the connection ended after {bytes:?}");
                    ends += 1;
                }
                Some(reply) => refusals += usize::from(expect_code(&bytes, &reply) != 0),
            }
        } else {
            // What it begins with is taken for a length.
            let _may_be_refused = stream.write_all(&bytes);
        }
        // Connections that wait for more are kept open; they must not use up anything that others need.
        held.push(stream);
    }
    assert!(ends > 20 && refusals > 20, "{ends} ends and {refusals} refusals");
    expect_canary(&dev);
    // A message without a byte is no query, which ends the connection.
    assert_eq!(reply_over(&mut connect(&dev), &[]), None);
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

/// Whether no reply is right: to what has no whole header, and to what says that it is a reply.
fn is_to_be_ignored(message: &[u8]) -> bool {
    message.len() < 12 || message[2] & 0x80 != 0
}

/// The code of a reply to a message that nobody should send, which is one that the message may get. It may still be a question.
fn expect_code(message: &[u8], reply: &[u8]) -> u8 {
    let header = Header::parse(reply).expect("an answer has a header");
    assert!(header.is_response && reply[..2] == message[..2], "{header:?} to {message:?}");
    let is_query = message[2] >> 3 & 0xf == 0;
    let codes: &[u8] = if is_query { &[0, FORMERR, NXDOMAIN, REFUSED] } else { &[NOTIMP] };
    assert!(codes.contains(&header.rcode), "{header:?} to {message:?}");
    header.rcode
}

/// What comes back before the answer to a question that is asked behind the packet: the server takes what one socket sends in turn.
fn reply_before_canary(socket: &std::net::UdpSocket, packet: &[u8]) -> Option<Vec<u8>> {
    let canary = canary_beside(packet);
    socket.send(packet).expect("loopback takes it");
    socket.send(&canary).expect("loopback takes it");
    let receive = || {
        let mut reply = vec![0; 65_535];
        let length = socket.recv(&mut reply).unwrap_or_else(|error| panic!("{error} behind {packet:?}"));
        reply.truncate(length);
        reply
    };
    let first = receive();
    if first[..2] == canary[..2] {
        return None;
    }
    assert_eq!(receive()[..2], canary[..2], "one reply at most to {packet:?}");
    Some(first)
}

/// What comes back over a connection to a message, and then to a question; `None` when that ends the connection before any reply.
fn reply_over(stream: &mut TcpStream, message: &[u8]) -> Option<Vec<u8>> {
    let canary = canary_beside(message);
    let framed = |message: &[u8]| {
        let length = u16::try_from(message.len()).expect("it is short").to_be_bytes();
        [&length[..], message].concat()
    };
    // The connection may have ended already.
    let _sent = stream.write_all(&[framed(message), framed(&canary)].concat());
    let reply = next_framed(stream)?;
    let next = next_framed(stream).unwrap_or_else(|| panic!("no answer behind {message:?}"));
    assert_eq!(next[..2], canary[..2], "one reply at most to {message:?}");
    Some(reply)
}

/// The next message of a connection; `None` at its end.
fn next_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    if let Err(error) = stream.read_exact(&mut length) {
        let is_end = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind());
        assert!(is_end, "neither a reply nor an end: {error}");
        return None;
    }
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).expect("a whole reply");
    Some(message)
}

/// A question with another id than the message has.
fn canary_beside(message: &[u8]) -> Vec<u8> {
    let id = message.first_chunk().map_or(0, |id| !u16::from_be_bytes(*id));
    question(id, CANARY, A, IN)
}

fn connect(dev: &Dev) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", dev.dns.number())).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
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

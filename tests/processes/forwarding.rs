//! `rollcall sidecar` as the only resolver of a machine, as `dig` sees it.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::{Port, Sidecar, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn other_names_are_answered_by_the_resolvers_of_the_settings() {
    let (one, two) = (resolver(1), resolver(2));
    let (dns, http_port) = (Port::free(), Port::free());
    let settings = |upstream: u16| {
        format!(
            "dns: {{address: \"{}\", forward: {{upstreams: [\"127.0.0.1:{upstream}\"]}}}}\nhttp: {{address: \"{}\"}}\n",
            dns.address(),
            http_port.address()
        )
    };
    let (before, after) = (settings(one), settings(two));
    let (number, http_number) = (dns.number(), http_port.number());
    // Without an ensemble: what others know can be had at once.
    let sidecar = Sidecar::start_with("127.0.0.1:1", &before, [dns, http_port]);
    wait_until("it answers", LIMIT, || dig(number, &["www.example.com"]).status == "NOERROR");
    let told = dig(number, &["WWW.Example.com", "A"]);
    assert_eq!(told.answers("A"), ["192.0.2.1"], "{}", told.text);
    assert_eq!(told.answer[0].name, "WWW.Example.com.");
    assert_eq!(told.flags, ["qr", "rd", "ra"], "{}", told.text);
    let told = dig(number, &["+tcp", "tcp.example.com", "A"]);
    assert_eq!(told.answers("A"), ["192.0.2.1"], "{}", told.text);
    assert_eq!(dig(number, &["-x", "127.0.0.1"]).answers("PTR"), ["localhost."]);
    assert_eq!(dig(number, &["x.invalid"]).status, "NXDOMAIN");
    let own = dig(number, &["web.default.rollcall.internal"]);
    assert_eq!(own.status, "SERVFAIL", "that is its own to know: {}", own.text);
    let told = dig(number, &["+norecurse", "other.example.com"]);
    assert_eq!(told.status, "REFUSED", "{}", told.text);

    sidecar.configure(&after);
    wait_until("other resolvers are asked", LIMIT, || {
        dig(number, &["www.example.com"]).answers("A") == ["192.0.2.2"]
    });
    let metrics = http::get(http_number, "/metrics").expect("metrics are there");
    let counted = "rollcall_dns_forward_queries_total{outcome=\"upstream\"}";
    assert!(metrics.body.contains(counted), "{}", metrics.body);
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// A resolver that knows every name to be 192.0.2.`last`; its port. It lives as long as the process.
fn resolver(last: u8) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
    let port = socket.local_addr().expect("it has an address").port();
    std::thread::spawn(move || {
        let mut packet = [0; 2000];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            // Its header with QR, RD and RA, its question, and one record that points to the name in it.
            let question_end = 12 + packet[12..length].iter().position(|octet| *octet == 0).unwrap_or(0) + 5;
            let mut answer = packet[..question_end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
            let _client_may_be_gone = socket.send_to(&answer, client);
        }
    });
    port
}

//! `rollcall sidecar` as the only resolver of a machine, as `dig` sees it.

use std::time::Duration;

use crate::resolver::resolver;
use crate::support::{Port, Sidecar, dig, http, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn other_names_are_answered_by_the_resolvers_of_the_settings() {
    let (one, two) = (resolver(&[1], 60, |_| ()).port(), resolver(&[2], 60, |_| ()).port());
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

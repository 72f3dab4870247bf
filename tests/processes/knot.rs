//! Knot DNS as the upstream: what the sidecar tells of its zone is what Knot tells, type by type, with signatures and without.

use std::process::Command;
use std::time::Duration;

use crate::support::dig::{Dig, Resource};
use crate::support::{KnotZone, Port, Sidecar, dig, start_knot, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

/// Names and types; each is asked for with signatures, too.
const QUESTIONS: [(&str, &str); 46] = [
    ("peers.test", "SOA"),
    ("peers.test", "NS"),
    ("peers.test", "MX"),
    ("peers.test", "TXT"),
    ("peers.test", "CAA"),
    ("peers.test", "DNSKEY"),
    ("peers.test", "NSEC3PARAM"),
    ("www.peers.test", "A"),
    ("wWw.PEERS.test", "AAAA"),
    ("www.peers.test", "MX"),
    ("www.peers.test", "NSEC"),
    ("short.peers.test", "A"),
    ("alias.peers.test", "A"),
    ("alias.peers.test", "CNAME"),
    ("chain.peers.test", "AAAA"),
    ("chain.peers.test", "TXT"),
    ("dangling.peers.test", "A"),
    ("outside.peers.test", "CNAME"),
    ("_http._tcp.peers.test", "SRV"),
    ("_tcp.peers.test", "A"),
    ("text.peers.test", "TXT"),
    ("long.peers.test", "TXT"),
    ("a.b.wild.peers.test", "A"),
    ("X.wild.peers.test", "TXT"),
    ("x.wild.peers.test", "MX"),
    ("empty.peers.test", "A"),
    ("deep.empty.peers.test", "TXT"),
    ("leaf.tree.peers.test", "A"),
    ("no.tree.peers.test", "A"),
    ("host.peers.test", "HINFO"),
    ("phone.peers.test", "NAPTR"),
    ("key.peers.test", "SSHFP"),
    ("_443._tcp.www.peers.test", "TLSA"),
    ("service.peers.test", "HTTPS"),
    ("service.peers.test", "SVCB"),
    ("file.peers.test", "AFSDB"),
    ("person.peers.test", "RP"),
    ("place.peers.test", "LOC"),
    ("exchange.peers.test", "KX"),
    ("link.peers.test", "URI"),
    ("delegated.peers.test", "DS"),
    ("odd.peers.test", "TYPE65280"),
    ("strange\\.dot.peers.test", "A"),
    ("under_score.peers.test", "A"),
    ("reverse.peers.test", "PTR"),
    ("no-such-name.peers.test", "A"),
];

#[test]
fn the_sidecar_tells_what_knot_tells() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let knot = Port::free();
    let number = knot.number();
    let zone = KnotZone { domain: "peers.test", text: include_str!("knot.zone"), is_signed: true };
    let _process = start_knot(folder.path(), number, zone, |program| Command::new(program));
    wait_until("Knot answers, with signatures", LIMIT, || {
        !dig(number, &["+dnssec", "www.peers.test", "A"]).answers("RRSIG").is_empty()
    });
    let (dns, http) = (Port::free(), Port::free());
    let port = dns.number();
    let settings = format!(
        "dns: {{address: \"{}\", forward: {{upstreams: [\"{}\"]}}}}\nhttp: {{address: \"{}\"}}\n",
        dns.address(),
        knot.address(),
        http.address()
    );
    let sidecar = Sidecar::start_with("127.0.0.1:1", &settings, [dns, http]);
    wait_until("the sidecar answers", LIMIT, || dig(port, &["www.peers.test"]).status == "NOERROR");
    let (mut compared, mut with_proofs) = (0, 0);
    for (name, kind) in QUESTIONS {
        for options in [&["+nodnssec"][..], &["+dnssec"], &["+dnssec", "+tcp"], &["+nodnssec", "+tcp"]] {
            let arguments = [options, &["+bufsize=1232", name, kind]].concat();
            let (mut theirs, mut ours) = (dig(number, &arguments), dig(port, &arguments));
            if name.contains(|letter: char| letter.is_ascii_uppercase()) {
                // Knot lets the question's letters show in other names, too; the sidecar's answer is for others as well.
                into_small_letters(&mut theirs);
                into_small_letters(&mut ours);
            }
            compare(&theirs, &ours, &format!("{arguments:?}"));
            compared += 1;
            let is_proof = |record: &Resource| matches!(&*record.kind, "NSEC" | "NSEC3");
            with_proofs += usize::from(!theirs.answer.is_empty() && theirs.authority.iter().any(is_proof));
        }
    }
    eprintln!("{compared} answers compared");
    assert!(with_proofs > 0, "answers from wildcards come with proofs");

    // What is too long for UDP comes cut, and whole over TCP.
    let (theirs, ours) =
        (dig(number, &["+ignore", "big.peers.test"]), dig(port, &["+ignore", "big.peers.test"]));
    assert!(
        theirs.flags.contains(&"tc".to_owned()) && ours.flags.contains(&"tc".to_owned()),
        "{}",
        ours.text
    );
    compare(&dig(number, &["+tcp", "big.peers.test"]), &dig(port, &["+tcp", "big.peers.test"]), "big");
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
}

/// Demands the same code, the same answers, and the same authority but for who serves the zone, for which nobody has asked.
fn compare(theirs: &Dig, ours: &Dig, what: &str) {
    let context = || format!("{what}\nKnot: {}\nsidecar: {}", theirs.text, ours.text);
    assert_eq!(theirs.status, ours.status, "{}", context());
    assert!(!theirs.status.is_empty(), "{}", context());
    assert_eq!(sorted(&theirs.answer), sorted(&ours.answer), "{}", context());
    let authority: Vec<_> =
        theirs.authority.iter().filter(|record| !is_of_servers(record)).cloned().collect();
    assert_eq!(sorted(&authority), sorted(&ours.authority), "{}", context());
    for (theirs, ours) in by_text(&theirs.answer).iter().zip(by_text(&ours.answer)) {
        assert!(ours.ttl <= theirs.ttl && ours.ttl + 60 > theirs.ttl, "{}", context());
    }
}

fn into_small_letters(dig: &mut Dig) {
    for record in dig.answer.iter_mut().chain(&mut dig.authority) {
        record.name.make_ascii_lowercase();
        record.data.make_ascii_lowercase();
    }
}

/// All but the TTLs, which count down.
fn sorted(records: &[Resource]) -> Vec<String> {
    let mut texts: Vec<_> =
        records.iter().map(|record| format!("{} {} {}", record.name, record.kind, record.data)).collect();
    texts.sort();
    texts
}

/// Whether it says who serves the zone, or signs that.
fn is_of_servers(record: &Resource) -> bool {
    let covered = record.data.split(' ').next().filter(|_| record.kind == "RRSIG");
    covered.unwrap_or(&record.kind).eq_ignore_ascii_case("NS")
}

fn by_text(records: &[Resource]) -> Vec<&Resource> {
    let mut records: Vec<_> = records.iter().collect();
    records.sort_by_key(|record| (record.name.clone(), record.kind.clone(), record.data.clone()));
    records
}

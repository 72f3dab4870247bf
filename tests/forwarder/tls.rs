//! Upstreams over TLS (RFC 7858): whom they are believed to be, one connection for many questions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::ResponseCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::upstream::{Over, Sent, Upstream, address, answer, now};
use crate::world::{World, addresses, extended, until};

#[tokio::test]
async fn rfc7858_3_3_many_questions_share_a_connection_and_answers_may_come_in_any_order() {
    const NAMES: u8 = 40;
    let (upstream, authority) = upstream_for("dns.example").await;
    let held = Mutex::new(Vec::new());
    upstream.says(move |query, _| {
        let label = query.queries[0].name().iter().next().map(String::from_utf8_lossy);
        let Some(last) = label.and_then(|label| label.parse().ok()) else {
            // The forwarder's own question, if the machine is slow.
            return vec![now(&answer(query))];
        };
        let mut held = held.lock().unwrap();
        held.push(now(&address(query, last)));
        if held.len() < usize::from(NAMES) { Vec::new() } else { held.drain(..).rev().collect() }
    });
    // Each is asked once, however long it takes until all are there.
    let world = world_with(&upstream, "dns.example", &authority, ", timeout: 4s, attempts: 1");
    let names: Vec<String> = (0..NAMES).map(|index| format!("{index}.example.com.")).collect();
    let told = futures_util::future::join_all(names.iter().map(|name| world.ask(name))).await;
    for (last, told) in (0..NAMES).zip(&told) {
        assert_eq!(addresses(told), [last]);
    }
    let got = upstream.got();
    assert_eq!(got.len(), usize::from(NAMES));
    assert!(got.iter().all(|one| one.over == Over::Tls && one.from == got[0].from), "on one connection");
    let ids: BTreeSet<_> = got.iter().map(|got| got.message.metadata.id).collect();
    assert_eq!(ids.len(), usize::from(NAMES));
}

#[tokio::test]
async fn rfc7858_3_2_who_has_a_certificate_for_another_name_is_told_nothing() {
    let (upstream, authority) = upstream_for("dns.example").await;
    let world = world(&upstream, "other.example", &authority);
    let told = world.ask("www.example.com.").await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(23)));
    assert_eq!(upstream.count(), 0);
    assert!(world.metric("rollcall_dns_upstream_failures_total{reason=\"tls\"}") > 0);
}

#[tokio::test]
async fn rfc7858_3_2_who_is_vouched_for_by_another_authority_is_told_nothing() {
    let (upstream, _) = upstream_for("dns.example").await;
    let (_, other) = upstream_for("dns.example").await;
    let world = world(&upstream, "dns.example", &other);
    assert_eq!(extended(&world.ask("www.example.com.").await), Some(23));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn rfc7858_3_4_what_was_on_a_connection_that_ends_is_asked_again_on_another() {
    let (upstream, authority) = upstream_for("dns.example").await;
    let times = AtomicU8::new(0);
    upstream.says(move |query, _| match times.fetch_add(1, Ordering::Relaxed) {
        1 => vec![Sent { packet: Vec::new(), ..now(query) }],
        last => vec![now(&address(query, last))],
    });
    let world = world(&upstream, "dns.example", &authority);
    assert_eq!(addresses(&world.ask("one.example.com.").await), [0]);
    assert_eq!(addresses(&world.ask("two.example.com.").await), [2]);
    let got = upstream.got();
    assert_eq!(got.len(), 3);
    assert!(got[0].from == got[1].from && got[1].from != got[2].from);
}

#[tokio::test]
async fn one_that_was_away_is_found_again_over_tls() {
    let (first, authority) = upstream_for("dns.example").await;
    let second = Upstream::start().await;
    second.answers(|query| address(query, 2));
    first.is_silent();
    let (ca, timeout) = (authority.path().join("ca.pem"), "timeout: 500ms");
    let upstreams = format!("upstreams: ['tls://{}#dns.example', '{}']", first.addr, second.addr);
    let world = World::start(&format!("{{{upstreams}, {timeout}, ca: {}}}", ca.display()), "");
    for index in 0..3 {
        assert_eq!(addresses(&world.ask(&format!("{index}.example.com.")).await), [2]);
    }
    let asked = first.count();
    assert_eq!(addresses(&world.ask("now.example.com.").await), [2]);
    assert_eq!(first.count(), asked);
    first.answers(|query| address(query, 1));
    let index = AtomicU8::new(0);
    until("it is asked first again", async || {
        let index = index.fetch_add(1, Ordering::Relaxed);
        addresses(&world.ask(&format!("later-{index}.example.com.")).await) == [1]
    })
    .await;
    assert!(first.probes().iter().all(|probe| probe.over == Over::Tls));
}

/// A resolver with a certificate for `name`, and a folder with that of the authority.
async fn upstream_for(name: &str) -> (Upstream, tempfile::TempDir) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (Upstream::start_tls(TlsAcceptor::from(Arc::new(config))).await, folder)
}

fn world(upstream: &Upstream, name: &str, authority: &tempfile::TempDir) -> World {
    world_with(upstream, name, authority, "")
}

fn world_with(upstream: &Upstream, name: &str, authority: &tempfile::TempDir, more: &str) -> World {
    let (addr, ca) = (upstream.addr, authority.path().join("ca.pem"));
    World::start(&format!("{{upstreams: ['tls://{addr}#{name}'], ca: {}{more}}}", ca.display()), "")
}

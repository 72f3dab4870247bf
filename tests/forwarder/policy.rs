//! Who is asked, who may ask, and what is answered without asking.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rollcall::dns::forward::NoAddress;
use rollcall::dns::{Forwarder, Hosts};
use rollcall::telemetry::Metrics;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use crate::upstream::{Upstream, address, code};
use crate::world::{World, addresses, extended, listed, plan, query, until};

#[tokio::test]
async fn names_of_a_domain_go_to_its_own_upstreams_and_settings_change_that_at_once() {
    let (general, corp) = (Upstream::start().await, Upstream::start().await);
    corp.answers(|query| address(query, 2));
    let general_only = format!("{{{}}}", listed(&[general.addr]));
    let both = format!("{{{}, domains: {{corp.example: ['{}']}}}}", listed(&[general.addr]), corp.addr);
    let world = World::start(&both, "");
    assert_eq!(addresses(&world.ask("www.corp.example.").await), [2]);
    assert_eq!(addresses(&world.ask("www.example.").await), [1]);
    world.configure(&general_only);
    assert_eq!(addresses(&world.ask("www.corp.example.").await), [1], "what was kept is another's word");
    world.configure("{enabled: false}");
    let told = world.ask("www.corp.example.").await;
    assert_eq!(told.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn upstreams_of_the_systems_file_are_followed() {
    // The file knows no ports, so that only who is asked can be seen.
    let world = World::start("{timeout: 50ms, attempts: 1}", "");
    assert_eq!(extended(&world.ask("a.example.").await), Some(22), "there is nobody yet");
    world.write_resolv_conf("nameserver 127.99.0.53\nsearch shop.example\n");
    until("its search list is known", async || {
        let told = world.ask("web.default.rollcall.internal.shop.example.").await;
        told.metadata.response_code == ResponseCode::NXDomain
    })
    .await;
    let told = world.ask("b.example.").await;
    assert_eq!(extended(&told), Some(23), "nobody listens there");
}

#[tokio::test]
async fn special_names_are_answered_without_asking() {
    let upstream = Upstream::start().await;
    let world = World::start(&format!("{{{}}}", listed(&[upstream.addr])), "search svc.cluster.local\n");
    let told = world.ask("localhost.").await;
    assert_eq!((addresses(&told), told.metadata.response_code), (vec![1], ResponseCode::NoError));
    let reverse = query("1.0.0.127.in-addr.arpa.", RecordType::PTR);
    assert_eq!(world.ask_with(&reverse).await.answers[0].data.to_string(), "localhost.");
    for name in ["x.invalid.", "www.example.onion.", "web.default.rollcall.internal.svc.cluster.local."] {
        assert_eq!(world.ask(name).await.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    let told = world.ask_with(&query("_dns.resolver.arpa.", RecordType::SVCB)).await;
    assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(upstream.count(), 0);
    assert_eq!(addresses(&world.ask("web.shop.svc.cluster.local.").await), [1]);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn without_recursion_desired_only_what_is_kept_is_told() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    let mut iterative = query("www.example.com.", RecordType::A);
    iterative.metadata.recursion_desired = false;
    assert_eq!(world.ask_with(&iterative).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(upstream.count(), 0);
    world.ask("www.example.com.").await;
    assert_eq!(addresses(&world.ask_with(&iterative).await), [1]);
}

#[tokio::test]
async fn a_client_that_asks_too_much_is_told_so_and_others_are_served() {
    let upstream = Upstream::start().await;
    upstream.is_silent();
    let settings = format!("{{{}, waiting_max: 8, client_waiting_max: 5}}", listed(&[upstream.addr]));
    let world = World::start(&settings, "");
    let greedy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for index in 0..5 {
        let asked = query(&format!("{index}.example.com."), RecordType::A);
        greedy.send_to(&asked.to_vec().unwrap(), world.addr).await.unwrap();
    }
    until("all of them wait", async || world.metric("rollcall_dns_forward_waiting") == 5).await;
    let told = world.ask_with(&query("more.example.com.", RecordType::A)).await;
    assert_eq!((told.metadata.response_code, extended(&told)), (ResponseCode::ServFail, Some(14)));
    assert_eq!(world.metric("rollcall_dns_forward_queries_total{outcome=\"busy\"}"), 1);

    upstream.answers(|query| address(query, 1));
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let told = world.ask_from(&other, &query("www.example.com.", RecordType::A)).await;
    assert_eq!(addresses(&told), [1]);
    until("their time is over", async || world.metric("rollcall_dns_forward_waiting") == 0).await;
    assert_eq!(addresses(&world.ask("then.example.com.").await), [1]);
}

#[tokio::test]
async fn the_cache_keeps_to_its_bounds() {
    let upstream = Upstream::start().await;
    let world = World::start(&format!("{{{}, cache_entries_max: 10}}", listed(&[upstream.addr])), "");
    for index in 0..30 {
        world.ask(&format!("{index}.example.com.")).await;
    }
    assert_eq!(world.forwarder.cache_entries(), 10);
    assert!(world.forwarder.cache_bytes() > 0);
    world.ask("29.example.com.").await;
    assert_eq!(upstream.count(), 30);
    world.configure(&format!("{{{}, cache_entries_max: 0}}", listed(&[upstream.addr])));
    world.ask("29.example.com.").await;
    assert_eq!((upstream.count(), world.forwarder.cache_entries()), (31, 0));
}

#[tokio::test]
async fn names_of_the_zone_are_never_asked_of_others() {
    let upstream = Upstream::start().await;
    let world = World::asking(&[upstream.addr]);
    let told = world.ask("web.default.rollcall.internal.").await;
    // Nothing was ever learnt there.
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
    assert!(told.metadata.recursion_available, "others can be asked for here");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn what_the_sidecar_itself_has_to_reach_is_looked_up_without_its_own_listener() {
    let upstream = Upstream::start().await;
    upstream.answers(|query| match query.queries[0].name().to_lowercase().to_string().as_str() {
        "zk.ns.example." if query.queries[0].query_type() == RecordType::A => address(query, 1),
        _ => code(query, ResponseCode::NXDomain),
    });
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&folder, &format!("{{{}, timeout: 200ms}}", listed(&[upstream.addr])));
    // Nobody has to listen there.
    let own = "127.77.0.1:53".parse().unwrap();
    let forwarder = Forwarder::new(plan, own, Arc::new(Metrics::new()), CancellationToken::new());
    let file = folder.path().join("system");
    let hosts_file = folder.path().join("hosts");
    std::fs::write(&hosts_file, "192.0.2.9 listed\n").unwrap();
    let hosts = Hosts::new(Arc::new(forwarder), &file, &hosts_file);
    std::fs::write(&file, "nameserver 10.0.0.1\nsearch ns.example\n").unwrap();
    assert!(hosts.look_up("zk").await.unwrap().is_empty(), "that is for the system to do");
    assert_eq!(upstream.count(), 0);
    std::fs::write(&file, "nameserver 127.77.0.1\nsearch ns.example\n").unwrap();
    assert_eq!(hosts.look_up("zk").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
    assert_eq!(hosts.look_up("listed").await.unwrap(), [IpAddr::from([192, 0, 2, 9])]);
    assert_eq!(hosts.look_up("other").await, Err(NoAddress::Unknown), "the system would ask the listener");
    upstream.is_silent();
    assert!(matches!(hosts.look_up("third").await, Err(NoAddress::Trouble(_))));
}

use std::sync::Arc;

use super::*;
use crate::dns::sample::{self, Sample};
use crate::registry::{Home, Label, Status};

#[test]
fn a_service_has_the_addresses_of_the_selected_tier() {
    let sample = web();
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
    assert_eq!(answer.rcode, ResponseCode::NoError);
    assert!(answer.is_authoritative && answer.authority.is_empty());
    assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 2", "10.0.0.2 ttl 2"]);
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::AAAA);
    assert_eq!(sorted(&answer.answers), ["fd00::1 ttl 2"]);
}

#[test]
fn a_standby_is_offered_once_no_primary_is_up() {
    let mut sample = web();
    sample.instance("web", "web-1").status(Status::Failing);
    sample.instance("web", "web-2").status(Status::Draining);
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
    assert_eq!(sorted(&answer.answers), ["10.0.0.3 ttl 2"]);
}

#[test]
fn what_is_known_by_its_name_alone_is_wanted_where_its_instances_matter_and_nowhere_else() {
    let sample = web().unfollowed("web");
    for (name, kind) in [
        ("web.default", RecordType::A),
        ("web", RecordType::AAAA),
        ("web.default", RecordType::SRV),
        ("_http._tcp.web.default", RecordType::SRV),
        ("web-1.web.default", RecordType::A),
        ("web-1.web.default", RecordType::TXT),
    ] {
        let answer = ask(&sample, &format!("{name}.rollcall.internal."), kind);
        assert_eq!(answer.rcode, ResponseCode::ServFail, "{name} {kind}");
        assert_eq!(answer.extended, Some(ExtendedError::NotRead), "{name} {kind}");
        assert_eq!(answer.wanted.unwrap().to_string(), "web.default", "{name} {kind}");
    }
    for (name, kind, rcode) in [
        ("web.default", RecordType::MX, ResponseCode::NoError),
        ("_tcp.web.default", RecordType::SRV, ResponseCode::NoError),
        ("empty.shop", RecordType::A, ResponseCode::NoError),
        ("unknown.default", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = ask(&sample, &format!("{name}.rollcall.internal."), kind);
        assert_eq!((answer.rcode, answer.wanted), (rcode, None), "{name} {kind}");
    }
    assert!(web_is_marked(&sample), "so that it is followed for long enough");
}

fn web_is_marked(sample: &Sample) -> bool {
    sample
        .view
        .services
        .values()
        .any(|service| service.key.name.as_str() == "web" && service.lookups.is_set())
}

#[test]
fn addresses_are_those_of_the_zone_and_srv_names_all() {
    let mut sample = web();
    sample.instance("web", "web-1").zone("a");
    sample.instance("web", "web-2").zone("b");
    sample.view.settle(Home::new(Some("b".to_owned()), []));
    for _ in 0..20 {
        let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
        assert_eq!(sorted(&answer.answers), ["10.0.0.2 ttl 2"], "3 of 4 weights, half of the callers");
    }
    assert_eq!(ask(&sample, "web.default.rollcall.internal.", RecordType::SRV).answers.len(), 3);
}

/// Whoever asks for both families gets of each what there is, and nobody is told that there is nothing.
#[test]
fn tiers_and_zones_are_drawn_among_those_that_have_such_an_address() {
    let mut sample = web();
    sample.instance("web", "web-1").addresses(&["fd00::1"]);
    sample.instance("web", "web-2").addresses(&["fd00::2"]);
    let of = |sample: &Sample, kind| sorted(&ask(sample, "web.default.rollcall.internal.", kind).answers);
    assert_eq!(of(&sample, RecordType::A), ["10.0.0.3 ttl 2"], "the standby alone has one");
    assert_eq!(of(&sample, RecordType::AAAA), ["fd00::1 ttl 2", "fd00::2 ttl 2"]);
    sample.instance("web", "web-3").status(Status::Failing);
    assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::A));

    let mut sample = web();
    sample.instance("web", "web-1").addresses(&["fd00::1"]);
    sample.instance("web", "web-1").zone("here");
    sample.instance("web", "web-2").zone("there");
    sample.view.settle(Home::new(Some("here".to_owned()), []));
    for _ in 0..50 {
        assert_eq!(of(&sample, RecordType::A), ["10.0.0.2 ttl 2"]);
        assert_eq!(of(&sample, RecordType::AAAA), ["fd00::1 ttl 2"]);
    }
}

#[test]
fn srv_names_every_instance_that_is_up_with_its_own_priority_and_weight() {
    let answer = ask(&web(), "web.default.rollcall.internal.", RecordType::SRV);
    assert_eq!(
        sorted(&answer.answers),
        [
            "0 1 8080 web-1.web.default.rollcall.internal. ttl 2",
            "0 3 8080 web-2.web.default.rollcall.internal. ttl 2",
            "10 1 8080 web-3.web.default.rollcall.internal. ttl 2",
        ]
    );
    let last = answer.answers.last().unwrap().data.to_string();
    assert!(last.starts_with("10 1 8080 web-3."), "standbys stand behind: {last}");
    assert_eq!(
        sorted(&answer.additional),
        ["10.0.0.1 ttl 2", "10.0.0.2 ttl 2", "10.0.0.3 ttl 2", "fd00::1 ttl 2"]
    );
    assert!(answer.additional.iter().all(|record| record.name.to_string().starts_with("web-")));
}

#[test]
fn every_srv_target_resolves_to_its_additional_addresses() {
    let sample = web();
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
    for glue in &answer.additional {
        let direct = ask(&sample, &glue.name.to_string(), glue.record_type());
        assert!(direct.answers.contains(glue), "{glue}");
    }
}

#[test]
fn srv_gives_the_effective_priority() {
    let mut sample = web();
    sample.instance("web", "web-1").effective_priority(20);
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
    assert!(sorted(&answer.answers).iter().any(|text| text.starts_with("20 1 8080 web-1.")));
}

#[test]
fn a_named_port_is_found_by_name_and_protocol() {
    let sample = web();
    let http = ask(&sample, "_http._tcp.web.default.rollcall.internal.", RecordType::SRV);
    assert_eq!(http.answers.len(), 3);
    let metrics = ask(&sample, "_metrics._udp.web.default.rollcall.internal.", RecordType::SRV);
    assert_eq!(sorted(&metrics.answers), ["0 1 9090 web-1.web.default.rollcall.internal. ttl 2"]);
    for no_data in ["_metrics._tcp.web.default.rollcall.internal.", "_tcp.web.default.rollcall.internal."] {
        assert_no_data(&ask(&sample, no_data, RecordType::SRV));
    }
    assert_no_data(&ask(&sample, "_http._tcp.web.default.rollcall.internal.", RecordType::A));
}

#[test]
fn an_instance_is_found_whatever_its_status() {
    let mut sample = web();
    sample.instance("web", "web-2").status(Status::Draining);
    let answer = ask(&sample, "web-2.web.default.rollcall.internal.", RecordType::A);
    assert_eq!(sorted(&answer.answers), ["10.0.0.2 ttl 2"]);
    assert_no_data(&ask(&sample, "web-2.web.default.rollcall.internal.", RecordType::AAAA));
    assert_nx_domain(&ask(&sample, "web-9.web.default.rollcall.internal.", RecordType::A));
}

#[test]
fn filters_leave_the_rules_as_they_are_for_those_that_are_meant() {
    let mut sample = web();
    sample.instance("web", "web-1").tags(&["blue"]).zone("eu-1a");
    sample.instance("web", "web-3").tags(&["blue"]).zone("EU-1a");
    let addresses = |sample: &Sample, name: &str| {
        let answer = ask(sample, &format!("{name}.web.default.rollcall.internal."), RecordType::A);
        answer.answers.iter().map(|record| record.data.to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    let of =
        |ids: &[u8]| ids.iter().map(|id| format!("10.0.0.{id}")).collect::<std::collections::BTreeSet<_>>();
    for (filter, ids) in [
        ("primary", &[1, 2][..]),
        ("standby", &[3]),
        ("all", &[1, 2, 3]),
        ("blue.tag", &[1]),
        ("blue.tag.all", &[1, 3]),
        ("blue.tag.standby", &[3]),
        ("eu-1a.az", &[1]),
        ("eu-1a.az.standby", &[3]),
        ("green.tag", &[]),
    ] {
        assert_eq!(addresses(&sample, filter), of(ids), "{filter}");
    }
    // The tier rule holds among those that are meant.
    sample.instance("web", "web-1").status(Status::Failing);
    assert_eq!(addresses(&sample, "blue.tag"), of(&[3]));
    assert_no_data(&ask(&sample, "green.tag.web.default.rollcall.internal.", RecordType::A));
    assert_no_data(&ask(&sample, "tag.web.default.rollcall.internal.", RecordType::A));
    assert_nx_domain(&ask(&sample, "primary.nobody.default.rollcall.internal.", RecordType::A));
    let srv = ask(&sample, "_http._tcp.standby.web.rollcall.internal.", RecordType::SRV);
    assert_eq!(sorted(&srv.answers), ["10 1 8080 web-3.web.default.rollcall.internal. ttl 2"]);
}

#[test]
fn an_instance_tells_what_it_is_in_a_txt_record_rfc_6763_section_6() {
    let mut sample = web();
    sample.instance("web", "web-1").tags(&["blue", "green"]).zone("eu-1a");
    let answer = ask(&sample, "web-1.web.default.rollcall.internal.", RecordType::TXT);
    let RData::TXT(txt) = &answer.answers[0].data else { panic!("{answer:?}") };
    let texts: Vec<_> = txt.txt_data.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    assert_eq!(texts, ["status=up", "weight=1", "priority=0", "zone=eu-1a", "tags=blue,green"]);
    assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::TXT));
}

#[test]
fn consuls_names_have_the_same_answers_under_names_of_theirs() {
    let mut sample = web();
    assert_eq!(
        ask(&sample, "web.service.consul.", RecordType::A).rcode,
        ResponseCode::Refused,
        "not enabled"
    );
    sample.plan.consul = Some(ConsulDomain::parse("consul", label("dc1"), label("default")).unwrap());
    sample.instance("web", "web-2").tags(&["blue"]);
    let ask = |name: &str, kind| ask(&sample, name, kind);
    assert_eq!(
        sorted(&ask("web.service.consul.", RecordType::A).answers),
        ["10.0.0.1 ttl 2", "10.0.0.2 ttl 2"]
    );
    assert_eq!(sorted(&ask("blue.web.service.dc1.consul.", RecordType::A).answers), ["10.0.0.2 ttl 2"]);
    let srv = ask("_web._tcp.service.consul.", RecordType::SRV);
    assert_eq!(
        sorted(&srv.answers),
        [
            "0 1 8080 0a000001.addr.dc1.consul. ttl 2",
            "0 3 8080 0a000002.addr.dc1.consul. ttl 2",
            "10 1 8080 0a000003.addr.dc1.consul. ttl 2",
        ]
    );
    for glue in &srv.additional {
        assert!(ask(&glue.name.to_string(), glue.record_type()).answers.contains(glue), "{glue}");
    }
    assert_eq!(sorted(&ask("web-1.node.consul.", RecordType::AAAA).answers), ["fd00::1 ttl 2"]);
    assert_eq!(
        sorted(&ask("fd000000000000000000000000000001.addr.consul.", RecordType::AAAA).answers),
        ["fd00::1 ttl 2"]
    );
    for name in ["web-1.node.consul.", "0a000001.addr.consul.", "consul."] {
        assert_eq!(ask(name, RecordType::ANY).answers[0].record_type(), RecordType::HINFO, "{name}");
    }
    for kind in [RecordType::SOA, RecordType::NS] {
        assert_eq!(ask("consul.", kind).answers[0].record_type(), kind);
    }
    for (name, rcode) in [
        ("empty.service.shop.ns.consul.", ResponseCode::NoError),
        ("service.consul.", ResponseCode::NoError),
        ("nobody.service.consul.", ResponseCode::NXDomain),
        ("web.service.dc2.consul.", ResponseCode::NXDomain),
        ("nobody.node.consul.", ResponseCode::NXDomain),
    ] {
        let answer = ask(name, RecordType::A);
        assert_negative(&answer, rcode);
        assert_eq!(answer.authority[0].name.to_string(), "consul.", "{name}");
    }
}

#[test]
fn of_a_node_nothing_is_said_that_is_not_known_of_all_services() {
    let mut sample = web();
    sample.service_with_one("api");
    sample.plan.consul = Some(ConsulDomain::parse("consul", label("dc1"), label("default")).unwrap());
    let ask = |sample: &Sample, name| ask(sample, name, RecordType::A);
    assert_negative(&ask(&sample, "nobody.node.consul."), ResponseCode::NXDomain);
    // What is known of one that is followed is told.
    let sample = sample.unfollowed("web");
    assert_eq!(sorted(&ask(&sample, "one.node.consul.").answers), ["10.2.0.1 ttl 2"]);
    for name in ["web-1.node.consul.", "nobody.node.consul."] {
        let answer = ask(&sample, name);
        assert_eq!((answer.rcode, answer.authority.len()), (ResponseCode::ServFail, 0), "{name}");
        assert_eq!(answer.extended, Some(ExtendedError::NotRead), "{name}");
        assert_eq!(answer.wanted, None, "nobody knows whose it is");
    }
    // A node is of the own namespace.
    let other = web().unfollowed("empty");
    let other = Sample { plan: sample.plan, ..other };
    assert_negative(&ask(&other, "nobody.node.consul."), ResponseCode::NXDomain);
}

#[test]
fn one_label_is_a_service_of_the_own_namespace_or_a_namespace() {
    let sample = web();
    assert_eq!(ask(&sample, "web.rollcall.internal.", RecordType::A).answers.len(), 2);
    assert_eq!(ask(&sample, "_http._tcp.web.rollcall.internal.", RecordType::SRV).answers.len(), 3);
    for kind in [RecordType::A, RecordType::SRV, RecordType::TXT] {
        assert_no_data(&ask(&sample, "default.rollcall.internal.", kind));
        assert_no_data(&ask(&sample, "shop.rollcall.internal.", kind));
        assert_nx_domain(&ask(&sample, "defaul.rollcall.internal.", kind));
        assert_nx_domain(&ask(&sample, "zoo.rollcall.internal.", kind));
    }
}

#[test]
fn a_known_service_with_nobody_or_without_such_records_is_no_data() {
    let mut sample = web();
    assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::TXT));
    assert_no_data(&ask(&sample, "empty.shop.rollcall.internal.", RecordType::A));
    assert_no_data(&ask(&sample, "empty.shop.rollcall.internal.", RecordType::SRV));
    assert_no_data(&ask(&sample, "_http._tcp.empty.shop.rollcall.internal.", RecordType::SRV));
    for id in ["web-1", "web-2", "web-3"] {
        sample.instance("web", id).status(Status::Maintenance);
    }
    assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::A));
    assert_no_data(&ask(&sample, "web.default.rollcall.internal.", RecordType::SRV));
}

#[test]
fn names_never_heard_of_do_not_exist() {
    for name in [
        "nobody.default.rollcall.internal.",
        "web.nowhere.rollcall.internal.",
        "_http._tcp.nobody.default.rollcall.internal.",
        "_tcp.nobody.default.rollcall.internal.",
        "a.b.c.d.e.rollcall.internal.",
    ] {
        assert_nx_domain(&ask(&web(), name, RecordType::A));
    }
}

#[test]
fn the_apex_has_a_soa_and_an_ns() {
    let soa = ask(&web(), "rollcall.internal.", RecordType::SOA);
    assert_eq!(sorted(&soa.answers), ["rollcall.internal. nobody.invalid. 7 3600 1200 604800 1 ttl 1"]);
    assert_eq!(
        sorted(&ask(&web(), "rollcall.internal.", RecordType::NS).answers),
        ["rollcall.internal. ttl 1"]
    );
    assert_no_data(&ask(&web(), "rollcall.internal.", RecordType::A));
    let unknown = Sample::never_loaded();
    assert_eq!(ask(&unknown, "rollcall.internal.", RecordType::SOA).answers.len(), 1);
}

#[test]
fn nothing_learnt_is_a_failure_that_says_so() {
    for name in ["web.default.rollcall.internal.", "nobody.default.rollcall.internal."] {
        let answer = ask(&Sample::never_loaded(), name, RecordType::A);
        assert_eq!(answer.rcode, ResponseCode::ServFail);
        assert_eq!(answer.extended.map(ExtendedError::code), Some(22));
        assert!(answer.authority.is_empty() && !answer.is_authoritative);
    }
}

#[test]
fn of_consuls_names_those_that_a_view_must_know_fail_while_nothing_is_learnt() {
    let mut sample = Sample::never_loaded();
    sample.plan.consul = Some(ConsulDomain::parse("consul", label("dc1"), label("default")).unwrap());
    for name in
        ["web.service", "blue.web.service.dc1", "_web._tcp.service", "web.service.shop.ns", "web-1.node"]
    {
        for kind in [RecordType::A, RecordType::SRV, RecordType::TXT, RecordType::ANY] {
            let answer = ask(&sample, &format!("{name}.consul."), kind);
            assert_eq!(answer.rcode, ResponseCode::ServFail, "{name} {kind}");
            assert_eq!(answer.extended, Some(ExtendedError::NoReachableAuthority), "{name} {kind}");
            assert!(!answer.is_authoritative && answer.answers.is_empty() && answer.authority.is_empty());
            assert!(!answer.is_out_of_zone, "nobody else is asked: {name} {kind}");
        }
    }
    // What a name says by itself, and what is no name of Consul's, need no view.
    let address = ask(&sample, "0a000001.addr.consul.", RecordType::A);
    assert_eq!((sorted(&address.answers), address.extended), (vec!["10.0.0.1 ttl 2".to_owned()], None));
    assert_eq!(ask(&sample, "consul.", RecordType::SOA).answers.len(), 1);
    assert_no_data(&ask(&sample, "service.consul.", RecordType::A));
    for name in ["web.service.dc2.consul.", "web.query.consul."] {
        assert_nx_domain(&ask(&sample, name, RecordType::A));
    }
}

#[test]
fn what_nothing_can_be_called_does_not_exist_whatever_is_known() {
    let mut stale = web();
    stale.freshness = Freshness::Stale;
    for sample in [Sample::never_loaded(), stale, web()] {
        for name in ["www.eu.example.com", "a.b.c.d.e.f", "w_b.shop", "_http.web.shop"] {
            let answer = ask(&sample, &format!("{name}.rollcall.internal."), RecordType::A);
            assert_nx_domain(&answer);
            assert_eq!(answer.extended, None, "{name}");
        }
    }
}

#[test]
fn stale_answers_live_a_second_and_say_that_they_are_stale() {
    let mut sample = web();
    sample.freshness = Freshness::Stale;
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
    assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 1", "10.0.0.2 ttl 1"]);
    assert_eq!(answer.extended.map(ExtendedError::code), Some(3));
    let unheard = ask(&sample, "nobody.default.rollcall.internal.", RecordType::A);
    assert_eq!(unheard.extended.map(ExtendedError::code), Some(19));
    let fresh = ask(&web(), "web.default.rollcall.internal.", RecordType::A);
    assert_eq!(fresh.extended, None);
}

#[test]
fn a_service_may_set_its_own_ttl_but_not_over_the_stale_one() {
    let mut sample = web();
    Arc::make_mut(sample.service("web")).settings.dns_ttl_s = Some(30);
    let ttl = |sample: &Sample| ask(sample, "web.default.rollcall.internal.", RecordType::A).answers[0].ttl;
    assert_eq!(ttl(&sample), 30);
    sample.freshness = Freshness::Stale;
    assert_eq!(ttl(&sample), 1);
    Arc::make_mut(sample.service("web")).settings.dns_ttl_s = Some(u32::MAX);
    sample.freshness = Freshness::Current;
    assert_eq!(ttl(&sample), TTL_MAX_S);
}

#[test]
fn other_zones_and_transfers_are_refused() {
    for (name, kind) in [
        ("example.com.", RecordType::A),
        ("rollcall.internal.", RecordType::AXFR),
        ("web.default.rollcall.internal.", RecordType::IXFR),
    ] {
        let answer = ask(&web(), name, kind);
        assert_eq!((answer.rcode, answer.is_authoritative), (ResponseCode::Refused, false));
        assert!(answer.answers.is_empty() && answer.authority.is_empty());
    }
}

#[test]
fn any_is_answered_with_as_little_as_possible() {
    for name in [
        "web.default.rollcall.internal.",
        "web-1.web.default.rollcall.internal.",
        "_http._tcp.web.default.rollcall.internal.",
        "rollcall.internal.",
    ] {
        let answer = ask(&web(), name, RecordType::ANY);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
    }
    assert_nx_domain(&ask(&web(), "nobody.default.rollcall.internal.", RecordType::ANY));
}

#[test]
fn owners_keep_the_callers_letters() {
    let name = "WeB.dEfAuLt.RollCall.Internal.";
    for kind in [RecordType::A, RecordType::SRV, RecordType::ANY] {
        let answer = ask(&web(), name, kind);
        assert!(answer.answers.iter().all(|record| record.name.to_string() == name));
    }
}

#[test]
fn no_address_stands_twice_in_a_set() {
    let mut sample = web();
    sample.instance("web", "web-2").addresses(&["10.0.0.1", "10.0.0.1"]);
    let answer = ask(&sample, "web.default.rollcall.internal.", RecordType::A);
    assert_eq!(sorted(&answer.answers), ["10.0.0.1 ttl 2"]);
    let srv = ask(&sample, "web.default.rollcall.internal.", RecordType::SRV);
    assert_eq!(
        srv.additional.iter().filter(|record| record.name.to_string().starts_with("web-2")).count(),
        1
    );
}

#[test]
fn the_order_follows_the_weights() {
    let sample = web();
    let mut rng = Rng::with_seed(1);
    let name = Name::from_ascii("web.default.rollcall.internal.").unwrap();
    let is_heavy_first = |rng: &mut Rng| {
        let answer = sample.knowledge().answer(&name, RecordType::A, rng);
        answer.answers[0].data.to_string() == "10.0.0.2"
    };
    let heavy_first = (0..4000).filter(|_| is_heavy_first(&mut rng)).count();
    assert!((2800..3200).contains(&heavy_first), "3 of 4 by weight, {heavy_first} of 4000 were");
}

fn web() -> Sample {
    sample::web()
}

fn ask(sample: &Sample, name: &str, kind: RecordType) -> Answer {
    sample.knowledge().answer(&Name::from_ascii(name).unwrap(), kind, &mut Rng::with_seed(7))
}

fn sorted(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<_> =
        records.iter().map(|record| format!("{} ttl {}", record.data, record.ttl)).collect();
    texts.sort();
    texts
}

fn assert_no_data(answer: &Answer) {
    assert_negative(answer, ResponseCode::NoError);
}

fn assert_nx_domain(answer: &Answer) {
    assert_negative(answer, ResponseCode::NXDomain);
}

fn assert_negative(answer: &Answer, rcode: ResponseCode) {
    assert_eq!(answer.rcode, rcode);
    assert!(answer.is_authoritative && answer.answers.is_empty() && answer.additional.is_empty());
    assert_eq!(sorted(&answer.authority).len(), 1);
    let soa = &answer.authority[0];
    assert_eq!((soa.record_type(), soa.ttl), (RecordType::SOA, 1));
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

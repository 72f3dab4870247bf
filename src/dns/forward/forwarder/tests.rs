//! What was encoded before, against the slow way, through the handler.

mod logged;

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, NULL, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::dns::forward::explanation::Explanations;
use crate::dns::forward::reply::Found;
use crate::dns::{Handler, Outcome, Zone, sample};
use crate::registry::Label;
use crate::tls::Trust;

#[test]
fn a_name_of_upstreams_that_becomes_ours_is_answered_by_us() {
    let world = World::start();
    world.know("www.example.com.", RecordType::A);
    assert_eq!(world.ask("www.example.com.", RecordType::A), (false, ResponseCode::NoError));
    assert_eq!(world.ask("wWw.example.com.", RecordType::A), (true, ResponseCode::NoError));
    let zone = Zone::parse("example.com", Label::parse("default").unwrap()).unwrap();
    world.handler.serve(DnsPlan::of_zone(zone));
    for _ in 0..2 {
        assert_eq!(world.ask("www.example.com.", RecordType::A), (false, ResponseCode::NXDomain));
    }
}

#[test]
fn a_name_that_becomes_one_of_the_search_list_is_answered_at_once() {
    let (world, name) = (World::start(), "web.default.rollcall.internal.shop.example.");
    world.know(name, RecordType::A);
    for is_again in [false, true] {
        assert_eq!(world.ask(name, RecordType::A), (is_again, ResponseCode::NoError));
    }
    world.forwarder.take_file(Ok("search shop.example\n".to_owned()));
    for _ in 0..2 {
        assert_eq!(world.ask(name, RecordType::A), (false, ResponseCode::NXDomain));
    }
}

#[test]
fn what_is_kept_stays_while_the_file_is_away_empty_or_names_one_of_those_before() {
    let world = World::start();
    let take = |text: &str| world.forwarder.take_file(Ok(text.to_owned()));
    let is_kept = || world.forwarder.cache_entries() > 0;
    let asked = || -> Vec<String> {
        let routes = world.forwarder.routes.load();
        routes.default.upstreams.iter().map(|upstream| upstream.address.addr.ip().to_string()).collect()
    };
    take("nameserver 10.0.0.1\nnameserver 10.0.0.2\n");
    world.know("www.example.com.", RecordType::A);
    world.forwarder.take_file(Err("gone".to_owned()));
    assert_eq!((asked(), is_kept()), (vec!["10.0.0.1".into(), "10.0.0.2".into()], true));
    assert_eq!(world.ask("www.example.com.", RecordType::A).1, ResponseCode::NoError);
    take("");
    assert_eq!((asked(), is_kept()), (vec!["10.0.0.1".into(), "10.0.0.2".into()], true));
    take("nameserver 10.0.0.2\nnameserver 10.0.0.1\n");
    assert_eq!((asked(), is_kept()), (vec!["10.0.0.2".into(), "10.0.0.1".into()], true));
    take("nameserver 10.0.0.3\nnameserver 10.0.0.1\n");
    assert_eq!((asked(), is_kept()), (vec!["10.0.0.3".into(), "10.0.0.1".into()], true));
    assert_eq!(world.ask("www.example.com.", RecordType::A).1, ResponseCode::NoError);
    take("nameserver 10.0.0.4\n");
    assert_eq!((asked(), is_kept()), (vec!["10.0.0.4".into()], false));
}

#[test]
fn nothing_is_given_again_once_nothing_is_forwarded() {
    let world = World::start();
    world.know("www.example.com.", RecordType::A);
    for is_again in [false, true] {
        assert_eq!(world.ask("www.example.com.", RecordType::A), (is_again, ResponseCode::NoError));
    }
    let plan = (**world.forwarder.plan.load()).clone();
    world.forwarder.serve(ForwardPlan { is_enabled: false, ..plan });
    assert_eq!(world.ask("www.example.com.", RecordType::A), (false, ResponseCode::Refused));
}

#[test]
fn reverse_names_are_looked_up_among_the_instances_each_time() {
    let (world, name) = (World::start(), "1.2.0.192.in-addr.arpa.");
    for kind in [RecordType::PTR, RecordType::TXT] {
        world.know(name, kind);
        for _ in 0..3 {
            assert_eq!(world.ask(name, kind), (false, ResponseCode::NoError));
        }
    }
}

#[test]
fn what_leads_to_a_name_of_ours_is_asked_for_again_once_that_is_ours_no_more() {
    let world = World::start();
    let alias = Name::from_ascii("shop.example.com.").unwrap();
    let target = Name::from_ascii("web.default.rollcall.internal.").unwrap();
    let kind = RecordType::A;
    let records = vec![(Owner::Question, 600, RData::CNAME(CNAME(target.clone())))];
    let (authority, explanations) = (Vec::new(), Explanations::default());
    let answer = Sample { kind, is_nxdomain: false, is_authentic: false, records, authority, explanations };
    let found = Found { open: Some(target), ..answer.found(&alias) };
    let question = Question { name: alias, kind, dnssec_ok: false, checking_disabled: false };
    world.keep(&question, found, clock::now());
    for _ in 0..3 {
        assert_eq!(world.ask("shop.example.com.", kind), (false, ResponseCode::NoError));
    }
    let zone = Zone::parse("other.internal", Label::parse("default").unwrap()).unwrap();
    world.handler.serve(DnsPlan::of_zone(zone));
    let wishes = Wishes { recursion: true, ..Wishes::default() };
    let packet = packet(&question.name, kind, wishes);
    let _inside = world.runtime.enter();
    let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let outcome = world.handler.answer(&packet, client, Transport::Udp, &mut Vec::new());
    assert!(matches!(outcome, Outcome::Later(_)), "{outcome:?}");
}

#[test]
fn what_is_given_again_is_what_the_slow_way_says() {
    let world = World::start();
    let transports = prop_oneof![Just(Transport::Udp), Just(Transport::Tcp)];
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) };
    proptest!(config, |(
        name in names(),
        letters in any::<u64>(),
        answer in answers(),
        wishes in wishes(),
        age in 0..50_u64,
        transport in transports,
    )| {
        let packet = packet(&in_letters(&name, letters), answer.kind, wishes);
        let question = Question {
            name,
            kind: answer.kind,
            dnssec_ok: wishes.edns.is_some_and(|(_, dnssec_ok)| dnssec_ok),
            checking_disabled: wishes.checking_disabled,
        };
        // A second must not end between the two.
        let (slow, again, turned, is_again) = loop {
            let now = clock::now();
            let stored = now - Duration::from_secs(age);
            world.keep(&question, answer.found(&question.name), stored);
            world.forwarder.change_rules();
            let (slow, is_slow_again) = world.answer(&packet, transport);
            prop_assert!(!is_slow_again);
            let (again, is_again) = world.answer(&packet, transport);
            let (turned, _) = world.answer(&packet, transport);
            let seconds = |now: Instant| (now - stored).as_secs();
            if seconds(now) == seconds(clock::now()) {
                break (slow, again, turned, is_again);
            }
        };
        let (told, told_again) = (Message::from_vec(&slow).unwrap(), Message::from_vec(&again).unwrap());
        prop_assert_eq!(said(&told), said(&told_again));
        // Addresses have changed places.
        let told_turned = Message::from_vec(&turned).unwrap();
        prop_assert_eq!(said_in_any_order(told.clone()), said_in_any_order(told_turned));
        // The slow way compresses better by the question's ends.
        let limit = match (transport, wishes.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => 512,
            (Transport::Udp, Some((octets, _))) => usize::from(octets.clamp(512, 1232)),
        };
        let is_tight = slow.len() + 255 * (told.answers.len() + told.authorities.len()) > limit;
        prop_assert!(is_again || is_tight || told.metadata.truncation, "{} octets", slow.len());
        if is_again && question.name.num_labels() > 0 {
            let end = HEADER + question.name_octets() + 4;
            prop_assert_eq!(&again[HEADER..end], &packet[HEADER..end], "the question is the client's own");
        }
    });
}

#[test]
fn what_others_have_said_than_those_who_are_asked_by_now_is_not_kept() {
    let world = World::start();
    let take = |text: &str| world.forwarder.take_file(Ok(text.to_owned()));
    take("nameserver 10.0.0.1\n");
    let before = world.forwarder.routes.load_full();
    let name = Name::from_ascii("www.example.com.").unwrap();
    let question = Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false };
    let found = World::found(&question.name, RecordType::A);
    let results = [Ok(Arc::new(found)), Err(Trouble::Unreachable.into())];
    for result in &results {
        world.forwarder.keep(&question, result, &before);
        assert_eq!(world.forwarder.cache_entries(), 1);
    }
    take("nameserver 10.0.0.2\n");
    for result in &results {
        world.forwarder.keep(&question, result, &before);
        assert_eq!(world.forwarder.cache_entries(), 0);
    }
}

#[test]
fn who_is_asked_is_known_before_the_cache_is_emptied() {
    let world = World::start();
    world.forwarder.take_file(Ok("nameserver 10.0.0.1\n".to_owned()));
    let before = world.forwarder.routes.load_full();
    let begin = clock::now();
    // While it is read, the cache cannot be emptied.
    let cache = world.forwarder.cache();
    let (forwarder, inside) = (&world.forwarder, world.runtime.handle());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _inside = inside.enter();
            forwarder.take_file(Ok("nameserver 10.0.0.2\n".to_owned()));
        });
        let mut is_changed = false;
        while !is_changed && begin.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
            is_changed = !forwarder.routes.load().agrees_with(&before);
        }
        drop(cache);
        assert!(is_changed);
    });
}

#[test]
fn an_answer_with_thousands_of_names_is_whole_over_tcp_and_given_again() {
    let world = World::start();
    let name = Name::from_ascii("example.com.").unwrap();
    let servers = |index| Name::from_ascii(format!("ns-{index}.servers.of.somebody.example.")).unwrap();
    let records = (0..2_500).map(|index| (Owner::Question, 600, RData::NS(NS(servers(index))))).collect();
    let (kind, authority, explanations) = (RecordType::NS, Vec::new(), Explanations::default());
    let answer = Sample { kind, is_nxdomain: false, is_authentic: false, records, authority, explanations };
    let question = Question { name: name.clone(), kind, dnssec_ok: false, checking_disabled: false };
    world.keep(&question, answer.found(&name), clock::now());
    let packet = packet(&name, kind, Wishes { recursion: true, ..Wishes::default() });
    for is_again in [false, true] {
        let (octets, was_again) = world.answer(&packet, Transport::Tcp);
        let message = Message::from_vec(&octets).unwrap();
        assert_eq!((message.answers.len(), was_again), (2_500, is_again));
        assert!(!message.metadata.truncation);
    }
    assert_eq!(world.handler.metrics().dns_shortened.get(), 0);
}

#[test]
fn addresses_take_turns_in_being_the_first_and_what_stands_around_them_stays() {
    let address = |last| RData::A(A::new(192, 0, 2, last));
    let alias = Name::from_ascii("b.example.net.").unwrap();
    let signature = || RData::Unknown { code: RecordType::from(46), rdata: NULL::with([0, 1].repeat(20)) };
    let of = |owner: Owner, data| (owner, 600, data);
    let plain = || (1..=3).map(|last| of(Owner::Question, address(last)));
    let other = || Owner::Other(alias.clone());
    let behind_alias = [of(Owner::Question, RData::CNAME(CNAME(alias.clone())))]
        .into_iter()
        .chain((1..=3).map(|last| of(other(), address(last))));
    let signed = plain().chain([of(Owner::Question, signature())]);
    let between = plain().take(2).chain([of(Owner::Question, signature())]).chain(plain().skip(2));
    let cases: [(&str, Vec<_>, &[[u8; 3]]); 4] = [
        ("plain", plain().collect(), &TURNS),
        ("alias", behind_alias.collect(), &TURNS),
        ("signed", signed.collect(), &TURNS),
        ("between", between.collect(), &[[1, 2, 3]; 5]),
    ];
    for (what, records, expected) in cases {
        let (world, name, kind) =
            (World::start(), Name::from_ascii("www.example.com.").unwrap(), RecordType::A);
        let kinds: Vec<_> = records.iter().map(|(_, _, data)| data.record_type()).collect();
        let (authority, explanations) = (Vec::new(), Explanations::default());
        let answer =
            Sample { kind, is_nxdomain: false, is_authentic: false, records, authority, explanations };
        let question = Question { name: name.clone(), kind, dnssec_ok: false, checking_disabled: false };
        world.keep(&question, answer.found(&name), clock::now());
        let packet = packet(&name, kind, Wishes { recursion: true, ..Wishes::default() });
        world.answer(&packet, Transport::Udp);
        for expected in expected {
            let (octets, is_again) = world.answer(&packet, Transport::Udp);
            let told = Message::from_vec(&octets).unwrap();
            let lasts = told.answers.iter().filter_map(|record| record.data.ip_addr());
            let lasts: Vec<u8> = lasts.map(|ip| ip.to_string()[8..].parse().unwrap()).collect();
            assert_eq!((&lasts[..], is_again), (&expected[..], true), "{what}");
            let kinds_told: Vec<_> = told.answers.iter().map(Record::record_type).collect();
            assert_eq!(kinds_told, kinds, "{what}");
        }
    }
}

/// Three addresses as five answers have them.
const TURNS: [[u8; 3]; 5] = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3], [2, 3, 1]];

/// A handler whose forwarder is told what upstreams have said.
struct World {
    handler: Handler,
    forwarder: Arc<Forwarder>,
    runtime: Runtime,
}

impl World {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let inside = runtime.enter();
        let plan = ForwardPlan { resolv_conf: "/dev/null".into(), ..ForwardPlan::default() };
        let own = SocketAddr::from(([127, 0, 0, 1], 1));
        let forwarder =
            Arc::new(Forwarder::new(plan, own, Arc::new(Metrics::new()), CancellationToken::new()));
        drop(inside);
        let (handler, _) = sample::web().into_handler_and_cache();
        let handler = handler.with_forwarder(Some(forwarder.clone()));
        Self { handler, forwarder, runtime }
    }

    fn keep(&self, question: &Question, found: Found, stored: Instant) {
        let encoded = Encoded::new(question, &found);
        self.forwarder.cache_mut().insert(question, (Arc::new(found), encoded), stored);
    }

    /// What upstreams may say about a name.
    fn found(name: &Name, kind: RecordType) -> Found {
        let data = RData::A(A::new(192, 0, 2, 1));
        let records = vec![(Owner::Question, 600, data)];
        let (authority, explanations) = (Vec::new(), Explanations::default());
        Sample { kind, is_nxdomain: false, is_authentic: false, records, authority, explanations }.found(name)
    }

    /// Has it know something about a name.
    fn know(&self, name: &str, kind: RecordType) {
        let name = Name::from_ascii(name).unwrap();
        let found = Self::found(&name, kind);
        let question = Question { name, kind, dnssec_ok: false, checking_disabled: false };
        self.keep(&question, found, clock::now());
    }

    /// Whether the answer was given again, and its code.
    fn ask(&self, name: &str, kind: RecordType) -> (bool, ResponseCode) {
        let name = Name::from_ascii(name).unwrap();
        let wishes = Wishes { recursion: true, ..Wishes::default() };
        let (octets, is_again) = self.answer(&packet(&name, kind, wishes), Transport::Udp);
        (is_again, Message::from_vec(&octets).unwrap().metadata.response_code)
    }

    fn answer(&self, packet: &[u8], transport: Transport) -> (Vec<u8>, bool) {
        let hits = self.handler.metrics().dns_hits.get();
        let client = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let mut out = Vec::new();
        let outcome = self.handler.answer(packet, client, transport, &mut out);
        assert!(matches!(outcome, Outcome::Reply), "{outcome:?}");
        (out, self.handler.metrics().dns_hits.get() > hits)
    }
}

/// An answer but for the name that it is about.
#[derive(Clone, Debug)]
struct Sample {
    kind: RecordType,
    is_nxdomain: bool,
    is_authentic: bool,
    records: Vec<(Owner, u32, RData)>,
    authority: Vec<(Owner, u32, RData)>,
    explanations: Explanations,
}

#[derive(Clone, Debug)]
enum Owner {
    Question,
    Above,
    Other(Name),
}

impl Sample {
    fn found(&self, name: &Name) -> Found {
        let record = |(owner, ttl, data): &(Owner, u32, RData)| {
            let owner = match owner {
                Owner::Question => name.to_lowercase(),
                Owner::Above => name.base_name().to_lowercase(),
                Owner::Other(name) => name.clone(),
            };
            Record::from_rdata(owner, *ttl, data.clone())
        };
        Found {
            rcode: if self.is_nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError },
            answers: self.records.iter().map(record).collect(),
            authority: self.authority.iter().map(record).collect(),
            is_authentic: self.is_authentic,
            is_negative: false,
            open: None,
            explanations: self.explanations.clone(),
        }
    }
}

/// What a client wants beside name and type.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    id: u16,
    recursion: bool,
    authentic: bool,
    checking_disabled: bool,
    edns: Option<(u16, bool)>,
}

fn packet(name: &Name, kind: RecordType, wishes: Wishes) -> Vec<u8> {
    let mut message = Message::new(wishes.id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = wishes.recursion;
    message.metadata.authentic_data = wishes.authentic;
    message.metadata.checking_disabled = wishes.checking_disabled;
    message.add_query(Query::query(name.clone(), kind));
    if let Some((octets, dnssec_ok)) = wishes.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(octets).set_dnssec_ok(dnssec_ok);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

/// All that a message says, letters of names and order of records included.
fn said(message: &Message) -> Vec<String> {
    let records = [&message.answers, &message.authorities, &message.additionals];
    let records = records.map(|records| {
        let texts: Vec<String> = records.iter().map(|record| format!("{record} {:?}", record.data)).collect();
        texts.join("\n")
    });
    let head = format!("{:?} {} {:?}", message.metadata, message.queries[0], message.edns);
    [vec![head], records.into()].concat()
}

/// The same but for the order of answers.
fn said_in_any_order(mut message: Message) -> Vec<String> {
    message.answers.sort_by_key(|record| format!("{record} {:?}", record.data));
    said(&message)
}

fn names() -> impl Strategy<Value = Name> {
    let octet = prop_oneof![8 => b'a'..=b'z', 1 => b'0'..=b'9', 1 => any::<u8>()];
    let label = proptest::collection::vec(octet, 1..12);
    proptest::collection::vec(label, 1..5).prop_map(|labels| {
        let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        name.set_fqdn(true);
        name.to_lowercase()
    })
}

fn in_letters(name: &Name, letters: u64) -> Name {
    let mut index = 0;
    let labels: Vec<Vec<u8>> = name
        .iter()
        .map(|label| {
            label
                .iter()
                .map(|octet| {
                    index += 1;
                    if letters >> (index % 64) & 1 == 1 { octet.to_ascii_uppercase() } else { *octet }
                })
                .collect()
        })
        .collect();
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
    name.set_fqdn(true);
    name
}

fn answers() -> impl Strategy<Value = Sample> {
    let kind = prop_oneof![
        Just(RecordType::A),
        Just(RecordType::MX),
        Just(RecordType::TXT),
        (256..60_000_u16).prop_map(RecordType::from)
    ];
    let kind = kind.prop_filter("a question's own type is no ANY", |kind| *kind != RecordType::ANY);
    let records = |count| proptest::collection::vec((owners(), 100..200_000_u32, data()), count);
    let records = (records(1..12), records(0..3));
    let bits = any::<[bool; 2]>();
    (kind, bits, records, explanations()).prop_map(|(kind, bits, (records, authority), explanations)| {
        let [is_nxdomain, is_authentic] = bits;
        Sample { kind, is_nxdomain, is_authentic, records, authority, explanations }
    })
}

fn explanations() -> impl Strategy<Value = Explanations> {
    proptest::collection::vec((any::<u16>(), ".{0,50}"), 0..4).prop_map(|all| {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        let mut edns = Edns::new();
        for (code, text) in all {
            let data = [&code.to_be_bytes(), text.as_bytes()].concat();
            edns.options_mut().insert(EdnsOption::Unknown(15, data));
        }
        message.set_edns(edns);
        Explanations::of(&message)
    })
}

fn owners() -> impl Strategy<Value = Owner> {
    let other = (names(), any::<u64>()).prop_map(|(name, letters)| Owner::Other(in_letters(&name, letters)));
    prop_oneof![3 => Just(Owner::Question), 1 => Just(Owner::Above), 1 => other]
}

fn data() -> impl Strategy<Value = RData> {
    let name = || (names(), any::<u64>()).prop_map(|(name, letters)| in_letters(&name, letters));
    let text = proptest::collection::vec("[ -~]{0,60}", 1..4);
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(A(octets.into()))),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(AAAA(octets.into()))),
        name().prop_map(|name| RData::CNAME(CNAME(name))),
        name().prop_map(|name| RData::NS(NS(name))),
        (any::<u16>(), name()).prop_map(|(preference, name)| RData::MX(MX::new(preference, name))),
        (any::<[u16; 3]>(), name()).prop_map(|([a, b, c], name)| RData::SRV(SRV::new(a, b, c, name))),
        text.prop_map(|texts| RData::TXT(TXT::new(texts))),
        (name(), name(), any::<u32>())
            .prop_map(|(one, other, serial)| RData::SOA(SOA::new(one, other, serial, 1, 2, 3, 4))),
        proptest::collection::vec(any::<u8>(), 1..300)
            .prop_map(|octets| RData::Unknown { code: RecordType::from(65_280), rdata: NULL::with(octets) }),
    ]
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let edns = proptest::option::of((any::<u16>(), any::<bool>()));
    (any::<u16>(), any::<[bool; 3]>(), edns).prop_map(
        |(id, [recursion, authentic, checking_disabled], edns)| Wishes {
            id,
            recursion,
            authentic,
            checking_disabled,
            edns,
        },
    )
}

const HEADER: usize = crate::dns::head::HEADER_OCTETS;

use hickory_proto::op::{Edns, Message, MessageType, OpCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData};
use proptest::prelude::*;

use super::*;
use crate::dns::head::HEADER_OCTETS;
use crate::dns::reply::{OPTION_EXTENDED_ERROR, UDP_OCTETS_MAX};
use crate::dns::sample::{self, Sample};

mod encoded;
mod logged;
mod room;

#[test]
fn an_answer_repeats_id_question_and_flags() {
    let mut query = query("wEb.default.rollcall.internal.", RecordType::A);
    query.metadata.recursion_desired = true;
    query.metadata.checking_disabled = true;
    let answer = ask(&web(), &query);
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::NoError));
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert!(answer.metadata.checking_disabled && !answer.metadata.recursion_available);
    assert_eq!(answer.queries[0].name().to_string(), "wEb.default.rollcall.internal.");
    assert!(answer.answers.iter().all(|record| record.name.to_string() == "wEb.default.rollcall.internal."));
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.edns.is_none(), "no OPT for clients that sent none");
}

#[test]
fn owners_are_compressed_against_the_question() {
    let bytes = raw(
        &web(),
        &query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap(),
        Transport::Udp,
    );
    // Header, question (31 + 4), and two records of 2 + 10 + 4.
    assert_eq!(bytes.len(), 12 + 35 + 2 * 16);
}

#[test]
fn what_is_no_query_is_met_with_silence() {
    let good = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
    for length in 0..HEADER_OCTETS {
        assert!(raw(&web(), &good[..length], Transport::Udp).is_empty());
    }
    let mut response = good;
    response[2] |= 0x80;
    assert!(raw(&web(), &response, Transport::Tcp).is_empty());
    response.truncate(20);
    assert!(raw(&web(), &response, Transport::Udp).is_empty(), "malformed and a response");
}

#[test]
fn other_opcodes_are_not_implemented() {
    for op_code in [OpCode::Status, OpCode::Notify, OpCode::Update, OpCode::Unknown(9)] {
        let mut query = query("web.default.rollcall.internal.", RecordType::A);
        query.metadata.op_code = op_code;
        let answer = ask(&web(), &query);
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
        assert_eq!((answer.metadata.id, answer.metadata.op_code), (7, op_code));
    }
}

#[test]
fn anything_but_one_question_is_a_format_error() {
    let mut none = query("web.default.rollcall.internal.", RecordType::A);
    none.queries.clear();
    let mut two = query("web.default.rollcall.internal.", RecordType::A);
    two.queries.push(two.queries[0].clone());
    for query in [none, two] {
        let answer = ask(&web(), &query);
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
    }
}

#[test]
fn malformed_queries_are_format_errors() {
    let good = query("web.default.rollcall.internal.", RecordType::A).to_vec().unwrap();
    let cut = good[..good.len() - 1].to_vec();
    let mut pointer_loop = good[..HEADER_OCTETS].to_vec();
    pointer_loop.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    let mut lying_counts = good.clone();
    lying_counts[11] = 200;
    let mut two_opts = query("web.default.rollcall.internal.", RecordType::A);
    two_opts.set_edns(Edns::new());
    let mut two_opts = two_opts.to_vec().unwrap();
    two_opts.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    two_opts[11] = 2;
    for packet in [cut, pointer_loop, lying_counts, two_opts] {
        let answer = Message::from_vec(&raw(&web(), &packet, Transport::Udp)).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
    }
}

#[test]
fn other_classes_are_refused() {
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        let mut query = query("web.default.rollcall.internal.", RecordType::A);
        query.queries[0].set_query_class(class);
        assert_eq!(ask(&web(), &query).metadata.response_code, ResponseCode::Refused);
    }
}

#[test]
fn edns_is_answered_with_our_size_version_0_and_the_do_bit() {
    let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 4096);
    query.edns.as_mut().unwrap().set_dnssec_ok(true);
    let edns = ask(&web(), &query).edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version()), (UDP_OCTETS_MAX, 0));
    assert!(edns.flags().dnssec_ok && edns.options().options.is_empty());
}

#[test]
fn later_edns_versions_are_told_ours() {
    let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 4096);
    query.edns.as_mut().unwrap().set_version(1);
    let answer = ask(&web(), &query);
    // 16 means BADVERS in an OPT record and BADSIG in a TSIG record; hickory reads it as the latter.
    assert_eq!(u16::from(answer.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn extended_errors_go_to_clients_with_edns_only() {
    let name = "web.default.rollcall.internal.";
    let mut stale = web();
    stale.freshness = Freshness::Stale;
    let handler = stale.into_handler();
    assert_eq!(
        extended(&ask_handler(&handler, &with_edns(name, RecordType::A, 1232))),
        Some((3, String::new()))
    );
    assert!(ask_handler(&handler, &query(name, RecordType::A)).edns.is_none());
    let never = Sample::never_loaded().into_handler();
    let answer = ask_handler(&never, &with_edns(name, RecordType::A, 1232));
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended(&answer), Some((22, "no ensemble reached yet".to_owned())));
}

#[test]
fn a_query_about_what_is_not_followed_is_held_once_and_answered_with_what_has_come() {
    let (handler, cache) = web().unfollowed("web").into_handler_and_cache();
    let demand = Arc::<Demand>::default();
    let handler = handler.with_demand(Some(demand.clone()));
    let packet = with_edns("web.default.rollcall.internal.", RecordType::A, 1232).to_vec().unwrap();
    let mut out = Vec::new();
    let answer = |out: &Vec<u8>| Message::from_vec(out).unwrap();
    let outcome = handler.answer(&packet, client(), Transport::Udp, &mut out);
    assert!(matches!(outcome, Outcome::Later(Later { awaited: Awaited::Held(..), .. })), "{outcome:?}");
    let ready = |out: &mut Vec<u8>| {
        let ready = Ready { told: None, was_held: true, begun: clock::now() };
        handler.answer_ready(ready, &packet, client(), Transport::Udp, out)
    };
    assert!(matches!(ready(&mut out), Outcome::Reply));
    assert_eq!(answer(&out).metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended(&answer(&out)), Some((22, "instances not read yet".to_owned())));

    cache.publish(web().view);
    for held in [true, false] {
        let outcome = match held {
            true => ready(&mut out),
            false => handler.answer(&packet, client(), Transport::Udp, &mut out),
        };
        assert!(matches!(outcome, Outcome::Reply));
        assert_eq!(answer(&out).answers.len(), 2);
    }
    assert_eq!(demand.held(), 1);
    let metrics = String::from_utf8(handler.metrics().render()).unwrap();
    assert!(
        metrics.contains("rollcall_dns_answer_seconds_count{source=\"held\",transport=\"udp\"} 2\n"),
        "{metrics}"
    );

    // Where there is no room to wait, or nobody to ask, it fails at once.
    let (handler, _) = web().unfollowed("web").into_handler_and_cache();
    assert!(matches!(handler.answer(&packet, client(), Transport::Udp, &mut out), Outcome::Reply));
    assert_eq!(answer(&out).metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_upstreams_say_waits_for_a_service_that_it_leads_to_and_is_not_followed() {
    let (handler, cache) = web().unfollowed("web").into_handler_and_cache();
    let demand = Arc::<Demand>::default();
    let handler = handler.with_demand(Some(demand.clone()));
    let name = "shop.example.com.";
    let asked = query(name, RecordType::A);
    let (packet, query) = (asked.to_vec().unwrap(), asked.queries[0].clone());
    let ready = || {
        let target = Name::from_ascii("web.default.rollcall.internal.").unwrap();
        let alias = RData::CNAME(CNAME(target));
        let answers = vec![hickory_proto::rr::Record::from_rdata(query.name().clone(), 60, alias)];
        let answer = Answer { answers, is_recursive: true, ..Answer::default() };
        let metadata = Metadata::response_from_request(&asked.metadata);
        let limit = Limit::of(Transport::Udp, None);
        let asked = Original { metadata, query: query.clone(), edns: None, cookie: None, limit };
        Ready { told: Some(Box::new(Told { asked, answer })), was_held: false, begun: clock::now() }
    };
    let mut out = Vec::new();
    let outcome = handler.answer_ready(ready(), &packet, client(), Transport::Udp, &mut out);
    let Outcome::Later(later) = outcome else { panic!("{outcome:?}") };
    cache.publish(web().view);
    let read = later.ready().await;
    let outcome = handler.answer_ready(read, &packet, client(), Transport::Udp, &mut out);
    assert!(matches!(outcome, Outcome::Reply), "{outcome:?}");
    let answer = Message::from_vec(&out).unwrap();
    assert_eq!((answer.metadata.id, answer.answers.len(), demand.held()), (7, 3, 1));

    // It waits once.
    cache.publish(web().unfollowed("web").view);
    let unread = Ready { was_held: true, ..ready() };
    let outcome = handler.answer_ready(unread, &packet, client(), Transport::Udp, &mut out);
    assert!(matches!(outcome, Outcome::Reply), "{outcome:?}");
    let answer = Message::from_vec(&out).unwrap();
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::ServFail, 0));
}

#[test]
fn additional_records_go_before_answers_do() {
    // 20 SRV records of 55 octets fit into 1232 with few of their 20 addresses.
    let query = with_edns("big.default.rollcall.internal.", RecordType::SRV, 1232);
    let answer = ask(&sample::big(20), &query);
    assert_eq!(answer.answers.len(), 20);
    assert!(
        !answer.metadata.truncation && (1..20).contains(&answer.additionals.len()),
        "{}",
        answer.additionals.len()
    );
    assert!(answer.edns.is_some());
}

#[test]
fn answers_that_do_not_fit_are_cut_and_say_so() {
    let name = "big.default.rollcall.internal.";
    let plain = ask(&sample::big(100), &query(name, RecordType::A));
    assert!(plain.metadata.truncation);
    assert_eq!(plain.answers.len(), (512 - 12 - 35) / 16);
    let tiny = ask(&sample::big(100), &with_edns(name, RecordType::A, 100));
    assert_eq!(tiny.answers.len(), (512 - 12 - 35 - 11) / 16, "less than 512 counts as 512");
    let huge = ask(&sample::big(100), &with_edns(name, RecordType::A, 65_535));
    assert_eq!(huge.answers.len(), (1232 - 12 - 35 - 11) / 16, "more than 1232 counts as 1232");
    let bytes = raw(&sample::big(100), &query(name, RecordType::A).to_vec().unwrap(), Transport::Tcp);
    let tcp = Message::from_vec(&bytes).unwrap();
    assert!(!tcp.metadata.truncation && tcp.answers.len() == 100);
}

#[test]
fn even_tcp_has_a_longest_answer() {
    let packet = query("big.default.rollcall.internal.", RecordType::SRV).to_vec().unwrap();
    let bytes = raw(&sample::big(2000), &packet, Transport::Tcp);
    assert!((65_400..=65_535).contains(&bytes.len()), "{}", bytes.len());
    let answer = Message::from_vec(&bytes).unwrap();
    assert!(
        !answer.metadata.truncation,
        "TC over TCP would send the client round for ever (RFC 2181 section 9)"
    );
    assert!((500..2000).contains(&answer.answers.len()), "{}", answer.answers.len());
}

#[test]
fn of_more_than_fits_each_answer_names_others() {
    let handler = sample::big(2000).into_handler();
    let packet = query("big.default.rollcall.internal.", RecordType::SRV).to_vec().unwrap();
    let named = || {
        let mut out = Vec::new();
        handler.answer(&packet, client(), Transport::Tcp, &mut out);
        let answer = Message::from_vec(&out).unwrap();
        answer.answers.iter().map(|record| record.data.to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    let all: std::collections::BTreeSet<_> = (0..12).flat_map(|_| named()).collect();
    assert!(all.len() > 1_950, "of 2000 instances only {} are ever named", all.len());
    let text = String::from_utf8(handler.metrics().render()).unwrap();
    assert!(text.contains("rollcall_dns_shortened_total 12"), "{text}");
}

#[test]
fn a_cookie_is_answered_with_one_rfc_7873_section_5_2() {
    let cookie = |octets: &[u8]| {
        let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 1232);
        let option = EdnsOption::Unknown(u16::from(EdnsCode::Cookie), octets.to_vec());
        query.edns.as_mut().unwrap().options_mut().insert(option);
        query
    };
    let of = |answer: &Message| {
        let EdnsOption::Unknown(_, octets) = answer.edns.as_ref()?.option(EdnsCode::Cookie)? else {
            return None;
        };
        Some(octets.clone())
    };
    let answer = ask(&web(), &cookie(&[7; 8]));
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 2));
    let answered = of(&answer).unwrap();
    assert_eq!((answered.len(), &answered[..8]), (24, &[7; 8][..]));
    // What was answered, or anything that may have been: all are served.
    for brought in [answered, vec![7; 16], vec![7; 40]] {
        let answer = ask(&web(), &cookie(&brought));
        assert_eq!(answer.answers.len(), 2);
        assert_eq!(of(&answer).unwrap()[..8], brought[..8]);
    }
    for malformed in [0, 7, 9, 15, 41] {
        let answer = ask(&web(), &cookie(&vec![7; malformed]));
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr, "{malformed} octets");
    }
    assert_eq!(of(&ask(&web(), &with_edns("web.default.rollcall.internal.", RecordType::A, 1232))), None);
}

#[test]
fn a_cookie_alone_needs_no_question_rfc_7873_section_5_4() {
    let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 1232);
    query.queries.clear();
    assert_eq!(ask(&web(), &query).metadata.response_code, ResponseCode::FormErr, "without a cookie");
    let option = EdnsOption::Unknown(u16::from(EdnsCode::Cookie), vec![7; 8]);
    query.edns.as_mut().unwrap().options_mut().insert(option);
    let answer = ask(&web(), &query);
    assert_eq!((answer.metadata.response_code, answer.queries.len()), (ResponseCode::NoError, 0));
    assert!(answer.edns.unwrap().option(EdnsCode::Cookie).is_some());
}

#[test]
fn options_that_nobody_knows_are_ignored_rfc_6891_section_6_1_2() {
    let mut query = with_edns("web.default.rollcall.internal.", RecordType::A, 1232);
    query.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(65_001, vec![1, 2, 3]));
    let answer = ask(&web(), &query);
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.edns.unwrap().options().options.is_empty());
}

#[test]
fn an_address_is_called_what_its_instance_is_rfc_1035_section_3_5() {
    let pointers = |sample: &Sample, name: &str| {
        let answer = ask(sample, &query(name, RecordType::PTR));
        let data: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        (answer.metadata.response_code, data)
    };
    let known = (ResponseCode::NoError, vec!["web-2.web.default.rollcall.internal.".to_owned()]);
    assert_eq!(pointers(&web(), "2.0.0.10.in-addr.arpa."), known);
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(pointers(&web(), six).1, ["web-1.web.default.rollcall.internal."]);
    assert_eq!(
        pointers(&web(), "9.0.0.10.in-addr.arpa."),
        (ResponseCode::Refused, vec![]),
        "not ours to say"
    );
    assert_eq!(pointers(&web(), "10.in-addr.arpa.").0, ResponseCode::Refused);
    // That nothing is known of it is no reason to say that there is nothing.
    assert_eq!(pointers(&web().unfollowed("web"), "2.0.0.10.in-addr.arpa.").0, ResponseCode::Refused);
}

#[test]
fn at_the_reverse_name_of_an_instance_is_its_name_and_nothing_else() {
    for name in ["2.0.0.10.in-addr.arpa.", "2.0.0.10.IN-ADDR.arpa."] {
        for kind in [RecordType::SOA, RecordType::NS] {
            let answer = ask(&web(), &query(name, kind));
            assert_eq!(
                (answer.answers.len(), answer.answers[0].record_type()),
                (1, kind),
                "the name is a zone"
            );
        }
        for kind in [RecordType::A, RecordType::TXT, RecordType::CNAME, RecordType::MX] {
            let answer = ask(&web(), &query(name, kind));
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
            assert!(answer.metadata.authoritative);
            assert_eq!(answer.authorities[0].record_type(), RecordType::SOA, "{kind}");
            assert_eq!(answer.authorities[0].name.to_string(), name, "of a zone that it is in");
        }
        assert_eq!(ask(&web(), &query(name, RecordType::ANY)).answers[0].record_type(), RecordType::HINFO);
        assert_eq!(ask(&web(), &query(name, RecordType::AXFR)).metadata.response_code, ResponseCode::Refused);
    }
}

#[test]
fn answers_are_counted() {
    let handler = sample::big(100).into_handler();
    ask_handler(&handler, &query("big.default.rollcall.internal.", RecordType::SRV));
    ask_handler(&handler, &query("x.default.rollcall.internal.", RecordType::TXT));
    handler.answer(b"x", client(), Transport::Udp, &mut Vec::new());
    let text = String::from_utf8(handler.metrics().render()).unwrap();
    for line in [
        "rollcall_dns_queries_total{kind=\"srv\",rcode=\"noerror\"} 1",
        "rollcall_dns_queries_total{kind=\"txt\",rcode=\"nxdomain\"} 1",
        "rollcall_dns_truncated_total 1",
        "rollcall_dns_dropped_total 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_packets_get_a_valid_answer_or_silence(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        check_any_packet(&packet)?;
    }

    #[test]
    fn mangled_queries_get_a_valid_answer_or_silence(
        name in name(), kind in kind(), has_edns: bool, has_response_bit: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let query = if has_edns { with_edns(&name, kind, 900) } else { query(&name, kind) };
        let mut packet = query.to_vec().unwrap();
        packet[2] |= u8::from(has_response_bit) << 7;
        for (index, byte) in changes {
            let index = index.index(packet.len());
            packet[index] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        check_any_packet(&packet)?;
    }

    #[test]
    fn no_answer_is_longer_than_allowed_and_tc_means_that_answers_are_missing(
        instances in 0_usize..150, kind in kind(), payload in prop::option::of(any::<u16>()), is_stale: bool,
    ) {
        let mut sample = sample::big(instances);
        sample.freshness = if is_stale { Freshness::Stale } else { Freshness::Current };
        let handler = sample.into_handler();
        let name = "big.default.rollcall.internal.";
        let query = payload.map_or_else(|| query(name, kind), |payload| with_edns(name, kind, payload));
        let packet = query.to_vec().unwrap();
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        handler.answer(&packet, client(), Transport::Udp, &mut udp);
        handler.answer(&packet, client(), Transport::Tcp, &mut tcp);
        let limit = payload.map_or(512, |payload| usize::from(payload.clamp(512, 1232)));
        prop_assert!(udp.len() <= limit, "{} octets of {limit}", udp.len());
        let (udp, tcp) = (Message::from_vec(&udp).unwrap(), Message::from_vec(&tcp).unwrap());
        prop_assert!(!tcp.metadata.truncation);
        prop_assert_eq!(udp.metadata.truncation, udp.answers.len() < tcp.answers.len());
        prop_assert!(!udp.answers.is_empty() || !udp.authorities.is_empty(), "never an empty success");
        prop_assert_eq!(udp.edns.is_some(), payload.is_some());
    }
}

/// Silence exactly for what is too short or has QR set; else an answer to it that hickory can read.
fn check_any_packet(packet: &[u8]) -> Result<(), TestCaseError> {
    thread_local! {
        static HANDLER: Arc<Handler> = sample::big(40).into_handler();
    }
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut out = vec![1, 2, 3];
        let outcome = HANDLER.with(|handler| handler.answer(packet, client(), transport, &mut out));
        let is_silent = packet.len() < HEADER_OCTETS || packet[2] & 0x80 != 0;
        prop_assert_eq!(matches!(outcome, Outcome::Silence), is_silent);
        if is_silent {
            prop_assert!(out.is_empty());
            continue;
        }
        prop_assert!(transport == Transport::Tcp || out.len() <= usize::from(UDP_OCTETS_MAX));
        let answer = Message::from_vec(&out);
        prop_assert!(answer.is_ok(), "{:?}: {:?}", answer, out);
        prop_assert_eq!(&out[..2], &packet[..2]);
        prop_assert!(out[2] & 0x80 != 0);
    }
    Ok(())
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("web.default.rollcall.internal.".to_owned()),
        Just("_http._tcp.big.default.rollcall.internal.".to_owned()),
        Just("web-1.web.default.rollcall.internal.".to_owned()),
        Just("rollcall.internal.".to_owned()),
        "[a-z_][a-z]{0,9}(\\.[a-z0-9_]{1,10}){0,5}\\.rollcall\\.internal\\.",
    ]
}

fn kind() -> impl Strategy<Value = RecordType> {
    prop::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::TXT,
        RecordType::SOA,
        RecordType::ANY,
    ])
}

fn web() -> Sample {
    sample::web()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(name: &str, kind: RecordType, payload: u16) -> Message {
    let mut message = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn extended(answer: &Message) -> Option<(u16, String)> {
    let code = EdnsCode::Unknown(OPTION_EXTENDED_ERROR);
    let Some(EdnsOption::Unknown(_, data)) = answer.edns.as_ref()?.option(code) else { return None };
    let text = String::from_utf8(data[2..].to_vec()).unwrap();
    Some((u16::from_be_bytes([data[0], data[1]]), text))
}

fn ask(sample: &Sample, query: &Message) -> Message {
    Message::from_vec(&raw(sample, &query.to_vec().unwrap(), Transport::Udp)).unwrap()
}

fn ask_handler(handler: &Handler, query: &Message) -> Message {
    let mut out = Vec::new();
    handler.answer(&query.to_vec().unwrap(), client(), Transport::Udp, &mut out);
    Message::from_vec(&out).unwrap()
}

/// The bytes of the answer; none for silence.
fn raw(sample: &Sample, packet: &[u8], transport: Transport) -> Vec<u8> {
    let mut out = Vec::new();
    sample.clone().into_handler().answer(packet, client(), transport, &mut out);
    out
}

fn client() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5353))
}

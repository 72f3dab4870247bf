//! A packet in, an answer in bytes out: the DNS protocol around [`Knowledge`].
//!
//! ```text
//! packet ─► header ─► (fast path) ─► hickory decodes ─► checks ─► Knowledge::answer ─► encode, cut to size ─► out
//!             │                            │              │              │
//!     silence, NOTIMP, FORMERR          FORMERR    BADVERS, REFUSED      held, and all of it again
//! ```
//!
//! **The fast path.** What was encoded before is asked for in [`Handler::answer`] before anything is decoded: the table of our own names
//! ([`super::fast`]), then what upstreams have said ([`super::forward`]). Each sees a plain question in its packet ([`super::plain`]), writes
//! the whole answer to `out` and counts it as the slow path does, or leaves the packet to the slow path, which can answer everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_server::server::Request;
use tracing::{debug, error, info, warn};

use super::DnsPlan;
use super::alias::{led_on, way_home};
use super::answer::{Answer, Freshness};
use super::authority::Knowledge;
use super::cookie::{ClientCookie, CookieJar};
use super::fast::{Draw, FastTable, Source};
use super::forward::{Forwarder, Forwarding, Rules};
use super::head::{Head, Remains};
use super::later::{Awaited, Forwarded, Later, Ready, Told};
use super::original::Original;
use super::plain::PlainQuery;
use super::reply::{Cut, Limit, Reply, answer_edns, bare_edns};
use super::reverse::{self, ReverseIndex};
use super::transport::Transport;
use crate::clock;
use crate::registry::{Cache, Demand};
use crate::telemetry::{DnsKind, DnsLatencies, DnsRcode, DnsSource, Metrics};

/// Answers packets from the cache. Shared by all sockets; never waits, never panics on any packet.
#[derive(Debug)]
pub struct Handler {
    cache: Arc<Cache>,
    /// Where what is not followed is asked for.
    demand: Option<Arc<Demand>>,
    /// Who knows what is out of the zone.
    forwarder: Option<Arc<Forwarder>>,
    plan: ArcSwap<Served>,
    reverse: ReverseIndex,
    cookies: CookieJar,
    metrics: Arc<Metrics>,
    /// When it was told last that an answer was too long, in seconds since 1970.
    shortened_told_s: AtomicU32,
}

/// What is answered for, with the answers that were made by that.
#[derive(Debug)]
struct Served {
    dns: DnsPlan,
    fast: FastTable,
}

impl Served {
    fn new(dns: DnsPlan) -> Self {
        Self { dns, fast: FastTable::default() }
    }

    /// Keeps a reply that is encoded in `out` for who asks the same, of what the cache had after so many publications.
    fn keep(&self, plain: &PlainQuery<'_>, reply: &Reply, out: &[u8], (cache, seen): (&Cache, u64)) {
        let Answer { source: Some(service), rcode: ResponseCode::NoError, first, extended, .. } =
            &reply.answer
        else {
            return;
        };
        let Some((counts, body)) = reply.body(out, plain.end()) else { return };
        let freshness = if extended.is_some() { Freshness::Stale } else { Freshness::Current };
        let source = Source { service: service.clone(), freshness, seen };
        self.fast.keep(plain, source, Draw { counts, body: body.into(), first: *first }, cache);
    }
}

/// What became of a packet.
#[derive(Debug)]
pub enum Outcome {
    /// The answer is in `out`.
    Reply,
    /// It was no query; nothing is to be sent.
    Silence,
    /// It has to be waited for: to be given to [`Handler::answer_ready`] once this is ready.
    Later(Later),
}

impl Handler {
    /// A handler that answers as `plan` says.
    pub fn new(cache: Arc<Cache>, plan: DnsPlan, metrics: Arc<Metrics>) -> Self {
        let (reverse, cookies) = (ReverseIndex::default(), CookieJar::default());
        let (plan, shortened_told_s) = (ArcSwap::from_pointee(Served::new(plan)), AtomicU32::new(0));
        Self { cache, demand: None, forwarder: None, plan, reverse, cookies, metrics, shortened_told_s }
    }

    /// The same handler, which asks for services that are not followed.
    #[must_use]
    pub fn with_demand(self, demand: Option<Arc<Demand>>) -> Self {
        Self { demand, ..self }
    }

    /// The same handler, which has names out of the zone looked up by others.
    #[must_use]
    pub fn with_forwarder(self, forwarder: Option<Arc<Forwarder>>) -> Self {
        Self { forwarder, ..self }
    }

    /// Answers as `plan` says from now on.
    pub fn serve(&self, plan: DnsPlan) {
        self.plan.store(Arc::new(Served::new(plan)));
        if let Some(forwarder) = &self.forwarder {
            // What was forwarded may be ours now.
            forwarder.change_rules();
        }
    }

    /// Where its queries are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one packet into `out`, whose former content is dropped and whose capacity is used again.
    pub fn answer(
        &self,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.answer_with(None, packet, client, transport, out)
    }

    /// The same for a packet that had to wait: with what is known by now. It may have to wait once more, where what upstreams say leads to
    /// a service that is not followed.
    pub fn answer_ready(
        &self,
        ready: Ready,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Ready { told, was_held, begun } = ready;
        let Some(told) = told else {
            return self.answer_with(Some(begun), packet, client, transport, out);
        };
        out.clear();
        let plan = self.plan.load();
        let rest = self.rest(&plan.dns, &told.asked.query, &told.answer);
        if let Some(Rest { own: Answer { wanted: Some(service), .. }, .. }) = &rest
            && let (false, Some(demand)) = (was_held, &self.demand)
            && let Some(held) = demand.hold(&self.cache, service)
        {
            return Outcome::Later(Later { awaited: Awaited::Held(held, Some(told)), begun });
        }
        let Told { asked, answer } = *told;
        let reply = asked.reply(with_rest(answer, rest));
        self.finish(&plan.dns, &reply, client, out);
        self.time(transport, DnsSource::Upstream, begun);
        Outcome::Reply
    }

    /// Answers a packet, which is not held again if it was since `held`.
    fn answer_with(
        &self,
        held: Option<Instant>,
        packet: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        // Before any view is loaded, so that what is kept is looked at again after the next publication.
        let seen = self.cache.publications();
        // Before any rule is read, for the same reason.
        let rules = self.forwarder.as_ref().map(|forwarder| forwarder.rules());
        let plan = self.plan.load();
        let plain = PlainQuery::read(packet);
        let timed = (held.is_none() && DnsLatencies::has_turn()).then(clock::now);
        if let Some(plain) = &plain
            && let Some(kind) = plan.fast.answer(plain, &self.cache, (transport, self.is_recursive()), out)
        {
            self.metrics.dns_hits.inc();
            self.metrics.count_dns_query(dns_kind(kind), DnsRcode::NoError);
            match (held, timed) {
                (Some(begun), _) => self.time(transport, DnsSource::Held, begun),
                (None, Some(begun)) => {
                    self.metrics.dns_seconds.observe_sampled(
                        transport.into(),
                        DnsSource::Hit,
                        clock::now() - begun,
                    );
                }
                (None, None) => {}
            }
            return Outcome::Reply;
        }
        if let (Some(plain), Some(forwarder), Some(rules), false) =
            (&plain, &self.forwarder, rules, plan.dns.is_logged)
            && let Some(rcode) = forwarder.answer_again(plain, rules, transport, out)
        {
            self.metrics.dns_hits.inc();
            self.metrics.count_dns_query(dns_kind(plain.kind()), dns_rcode(rcode));
            if let Some(begun) = timed {
                self.metrics.dns_seconds.observe_sampled(
                    transport.into(),
                    DnsSource::Cache,
                    clock::now() - begun,
                );
            }
            return Outcome::Reply;
        }
        let begun = held.or(timed).unwrap_or_else(clock::now);
        let Some(head) = Head::read(packet) else {
            self.metrics.dns_dropped.inc();
            return Outcome::Silence;
        };
        let (reply, source) = match head.refusal() {
            Some(rcode) => (refusal(head, packet, rcode), DnsSource::Query),
            None if head.has_broken_options(packet) => {
                (refusal(head, packet, ResponseCode::FormErr), DnsSource::Query)
            }
            None => match Request::from_bytes(head.without_subnet(packet), client, transport.into()) {
                Ok(request) => match self.reply(&plan.dns, rules, &request, transport) {
                    Ok(reply) => reply,
                    Err(forwarded) => {
                        return Outcome::Later(Later { awaited: Awaited::Forwarded(forwarded), begun });
                    }
                },
                Err(error) => {
                    debug!(%client, %error, "malformed query");
                    (refusal(head, packet, ResponseCode::FormErr), DnsSource::Query)
                }
            },
        };
        if let (None, Some(demand), Some(service)) = (held, &self.demand, &reply.answer.wanted)
            && let Some(held) = demand.hold(&self.cache, service)
        {
            return Outcome::Later(Later { awaited: Awaited::Held(held, None), begun });
        }
        if let Answer { source: Some(service), first: Some(first), .. } = &reply.answer {
            service.tally.count(*first);
        }
        let cut = self.finish(&plan.dns, &reply, client, out);
        if let (Some(plain), Cut::Whole, false) = (&plain, cut, plan.dns.is_logged) {
            plan.keep(plain, &reply, out, (&self.cache, seen));
        }
        self.time(transport, if held.is_some() { DnsSource::Held } else { source }, begun);
        Outcome::Reply
    }

    /// Notes that an answer is there.
    fn time(&self, transport: Transport, source: DnsSource, begun: Instant) {
        self.metrics.dns_seconds.observe(transport.into(), source, clock::now() - begun);
    }

    /// Encodes an answer, counts and logs it.
    fn finish(&self, plan: &DnsPlan, reply: &Reply, client: SocketAddr, out: &mut Vec<u8>) -> Cut {
        let cut = reply.encode(out).unwrap_or_else(|error| {
            error!(%client, %error, "an answer cannot be encoded");
            Reply::bare(reply.metadata, ResponseCode::ServFail, None, None).encode_bare(out);
            Cut::Whole
        });
        match cut {
            Cut::Whole => {}
            Cut::Truncated => self.metrics.dns_truncated.inc(),
            Cut::Shortened => self.on_shortened(reply),
        }
        self.tell(plan, client, reply, out.len(), cut);
        cut
    }

    /// Counts and logs an answer.
    fn tell(&self, plan: &DnsPlan, client: SocketAddr, reply: &Reply, octets: usize, cut: Cut) {
        let kind = reply.query.as_ref().map_or(DnsKind::Other, |query| dns_kind(query.query_type()));
        let rcode = reply.metadata.response_code;
        self.metrics.count_dns_query(kind, dns_rcode(rcode));
        if plan.is_logged {
            let name = reply.query.as_ref().map(|query| query.name().to_string());
            let kind = reply.query.as_ref().map(|query| query.query_type().to_string());
            let answers = reply.answer.answers.len();
            info!(target: "rollcall::dns::queries", %client, name, kind, %rcode, answers, octets, ?cut, "query");
        } else {
            debug!(%client, query = ?reply.query, %rcode, octets, ?cut, "query");
        }
    }

    /// An answer that is too long for any message, and so names fewer than there are.
    fn on_shortened(&self, reply: &Reply) {
        self.metrics.dns_shortened.inc();
        let now_s = unix_s();
        let last_s = self.shortened_told_s.swap(now_s, Ordering::Relaxed);
        if now_s.saturating_sub(last_s) < SHORTENED_LOG_S {
            // Not told, so that the next one in a minute is.
            self.shortened_told_s.store(last_s, Ordering::Relaxed);
            return;
        }
        let (name, records) = (reply.query.as_ref().map(Query::name), reply.answer.answers.len());
        if reply.answer.is_authoritative {
            warn!(
                ?name,
                records,
                "an answer does not fit into 64 KiB, the longest there is; it names some of the instances, by weight; ask for fewer with a filter"
            );
        } else {
            warn!(
                ?name,
                records,
                "an answer of upstreams, with what its aliases stand for, does not fit into 64 KiB, the longest there is; it has the first of its records"
            );
        }
    }

    /// The answer and what it is made from, or what it waits for.
    fn reply(
        &self,
        plan: &DnsPlan,
        rules: Option<Rules>,
        request: &Request,
        transport: Transport,
    ) -> Result<(Reply, DnsSource), Box<Forwarded>> {
        let metadata = Metadata::response_from_request(&request.metadata);
        let question = match request.queries.queries() {
            [] => None,
            [query, ..] => Some(query.original().clone()),
        };
        // What options of a later version mean is not known.
        let edns = request.edns.as_ref();
        let is_later_version = edns.is_some_and(|edns| edns.version() > 0);
        let cookie = match edns.map(|edns| edns.option(EdnsCode::Cookie)) {
            Some(Some(EdnsOption::Unknown(_, option))) if !is_later_version => {
                let Some(cookie) = ClientCookie::read(option) else {
                    let edns = edns.map(|asked| answer_edns(asked, &Answer::default(), None));
                    let reply = Reply::bare(metadata, ResponseCode::FormErr, question, edns);
                    return Ok((reply, DnsSource::Query));
                };
                Some(self.cookies.answer(cookie, request.src().ip(), unix_s()))
            }
            _ => None,
        };
        let Some(query) = question else {
            // A client that only wants a cookie (RFC 7873 section 5.4).
            let rcode = if cookie.is_some() { ResponseCode::NoError } else { ResponseCode::FormErr };
            let edns = edns.map(|asked| answer_edns(asked, &Answer::default(), cookie));
            return Ok((Reply::bare(metadata, rcode, None, edns), DnsSource::Query));
        };
        let mut answer = if is_later_version {
            Answer { rcode: ResponseCode::BADVERS, ..Answer::default() }
        } else if query.query_class() != DNSClass::IN {
            Answer { rcode: ResponseCode::Refused, ..Answer::default() }
        } else {
            self.look_up(plan, query.name(), query.query_type())
        };
        let limit = Limit::of(transport, request.edns.as_ref().map(Edns::max_payload));
        let asked = Original { metadata, query, edns: request.edns.clone(), cookie, limit };
        let mut source = DnsSource::Zone;
        if let (true, Some(forwarder), Some(rules)) = (answer.is_out_of_zone, &self.forwarder, rules) {
            match forwarder.ask(asked.to_forward(request), plan, rules) {
                Forwarding::Now(forwarded) => {
                    let rest = self.rest(plan, &asked.query, &forwarded);
                    (answer, source) = (with_rest(forwarded, rest), DnsSource::Cache);
                }
                Forwarding::Later(pending) => return Err(Box::new(Forwarded { pending, asked })),
            }
        }
        // Whoever asks about us may ask about others, too (RFC 1035 section 4.1.1).
        answer.is_recursive |= self.is_recursive();
        Ok((asked.reply(answer), source))
    }

    /// Whether names out of the zone can be asked for here.
    fn is_recursive(&self) -> bool {
        self.forwarder.as_ref().is_some_and(|forwarder| forwarder.is_enabled())
    }

    /// What we say to the rest of a query of which upstreams have said that it leads to a name of ours.
    fn rest(&self, plan: &DnsPlan, query: &Query, answer: &Answer) -> Option<Rest> {
        let asked = (query.name(), query.query_type());
        let (records, name) = way_home(asked, &answer.answers, |name| plan.is_ours(name))?;
        Some(Rest { records, own: self.look_up(plan, name, query.query_type()) })
    }

    fn look_up(&self, plan: &DnsPlan, name: &Name, kind: RecordType) -> Answer {
        let view = self.cache.load();
        let freshness = if self.cache.is_stale() { Freshness::Stale } else { Freshness::Current };
        let DnsPlan { zone, consul, ttls, is_logged: _ } = plan;
        let knowledge = Knowledge { view: &view, freshness, zone, consul: consul.as_ref(), ttls: *ttls };
        if let Some(address) = reverse::address_of(name) {
            let found = self.reverse.find(&view, address, clock::now());
            if !found.is_empty() {
                return knowledge.reverse(name, kind, &found);
            }
        }
        knowledge.answer(name, kind, &mut fastrand::Rng::new())
    }
}

/// What we say of a name of ours to which an answer of upstreams leads.
#[derive(Debug)]
struct Rest {
    /// So many records lead there.
    records: usize,
    own: Answer,
}

/// An answer of upstreams with the rest of it, which is counted as given.
fn with_rest(answer: Answer, rest: Option<Rest>) -> Answer {
    let Some(Rest { records, own }) = rest else { return answer };
    if let (Some(service), Some(first)) = (&own.source, own.first) {
        service.tally.count(first);
    }
    led_on(answer, records, own)
}

/// The reply to what is refused for its form.
fn refusal(head: Head, packet: &[u8], rcode: ResponseCode) -> Reply {
    let Remains { question, options, .. } = head.remains(packet);
    // Who has sent an OPT record is told so in one (RFC 6891 sections 6.1.1 and 7).
    Reply::bare(head.metadata(), rcode, question, options.map(|_| bare_edns()))
}

fn unix_s() -> u32 {
    u32::try_from(clock::unix_ms() / 1_000).unwrap_or(u32::MAX)
}

/// Seconds from one log line about answers that are too long to the next.
const SHORTENED_LOG_S: u32 = 60;

fn dns_kind(kind: RecordType) -> DnsKind {
    const KINDS: [(RecordType, DnsKind); 8] = [
        (RecordType::A, DnsKind::A),
        (RecordType::AAAA, DnsKind::Aaaa),
        (RecordType::SRV, DnsKind::Srv),
        (RecordType::TXT, DnsKind::Txt),
        (RecordType::PTR, DnsKind::Ptr),
        (RecordType::SOA, DnsKind::Soa),
        (RecordType::NS, DnsKind::Ns),
        (RecordType::ANY, DnsKind::Any),
    ];
    KINDS.iter().find(|(known, _)| *known == kind).map_or(DnsKind::Other, |(_, label)| *label)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are never answered")]
fn dns_rcode(rcode: ResponseCode) -> DnsRcode {
    match rcode {
        ResponseCode::NoError => DnsRcode::NoError,
        ResponseCode::FormErr => DnsRcode::FormErr,
        ResponseCode::NXDomain => DnsRcode::NxDomain,
        ResponseCode::NotImp => DnsRcode::NotImp,
        ResponseCode::Refused => DnsRcode::Refused,
        ResponseCode::BADVERS => DnsRcode::BadVers,
        _ => DnsRcode::ServFail,
    }
}

#[cfg(test)]
mod tests;

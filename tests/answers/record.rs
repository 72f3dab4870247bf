//! What lookups of one sidecar are told, whenever its view changes: by selection, by DNS and by HTTP, which have to agree.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode};
use rollcall::clock;
use rollcall::dns::{DnsPlan, Handler, Transport, Zone};
use rollcall::http::Router;
use rollcall::registry::select::select;
use rollcall::registry::{Cache, HELD_PRIORITY, Service};
use rollcall::telemetry::Metrics;
use tokio::task::JoinHandle;

use crate::world::{label, web_key};

/// How the service is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookups {
    /// By DNS and HTTP, as applications do, so that the sidecar probes what vanishes. These connections are real: they are refused.
    Real,
    /// Not at all: the selection is made beside, and leaves no mark.
    None,
}

/// Who is offered from a time on, the ids in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) at: Instant,
    pub(crate) to: String,
}

/// All that was told so far.
#[derive(Debug)]
pub(crate) struct Record {
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    moves: Vec<Move>,
    /// Who was seen to be held off, and when.
    held: Vec<(Instant, String)>,
}

impl Record {
    pub(crate) fn start(cache: Arc<Cache>, router: Arc<Router>, lookups: Lookups) -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let task = tokio::spawn(keep(cache, router, lookups, told.clone()));
        Self { told, task }
    }

    /// Who is offered now.
    pub(crate) fn latest(&self) -> String {
        self.told().moves.last().map(|last| last.to.clone()).unwrap_or_default()
    }

    /// Who was offered from `start` on, one after the other.
    pub(crate) fn moves_since(&self, start: Instant) -> Vec<Move> {
        self.told().moves.iter().filter(|known| known.at > start).cloned().collect()
    }

    /// Who was seen to be held off from `start` on.
    pub(crate) fn held_since(&self, start: Instant) -> Vec<String> {
        self.told().held.iter().filter(|(at, _)| *at > start).map(|(_, id)| id.clone()).collect()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        assert!(!self.task.is_finished(), "lookups agreed up to now");
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(cache: Arc<Cache>, router: Arc<Router>, lookups: Lookups, told: Arc<Mutex<Told>>) {
    let zone = Zone::parse("rollcall.internal", label("default")).expect("a zone");
    let handler = Handler::new(cache.clone(), DnsPlan::of_zone(zone), Arc::new(Metrics::new()));
    let mut published = cache.subscribe();
    loop {
        published.borrow_and_update();
        let (ids, addresses) = selected(&cache);
        if lookups == Lookups::Real {
            // Twice, since the first may be the one that is encoded, and the second what is kept of it.
            for _ in 0..2 {
                assert_eq!(by_dns(&handler), addresses, "DNS");
            }
            assert_eq!(by_http(&router).await, ids, "HTTP");
        }
        note(&mut told.lock().unwrap_or_else(PoisonError::into_inner), ids.join(" "), held(&cache));
        if published.changed().await.is_err() {
            return;
        }
    }
}

fn note(told: &mut Told, to: String, held: Vec<String>) {
    let at = clock::now();
    if told.moves.last().is_none_or(|last| last.to != to) {
        told.moves.push(Move { at, to });
    }
    told.held.extend(held.into_iter().map(|id| (at, id)));
}

fn selected(cache: &Cache) -> (Vec<String>, Vec<IpAddr>) {
    let view = cache.load();
    let Some(web) = view.services.get(&web_key()) else { return Default::default() };
    let selection = select(web, &mut fastrand::Rng::new());
    let mut ids: Vec<_> = selection.iter().map(|one| one.id.to_string()).collect();
    let mut addresses: Vec<_> = selection.iter().flat_map(|one| one.record.addresses.clone()).collect();
    ids.sort();
    addresses.sort();
    (ids, addresses)
}

fn held(cache: &Cache) -> Vec<String> {
    let view = cache.load();
    let instances = |web: &Arc<Service>| web.instances.clone();
    let instances = view.services.get(&web_key()).map(instances).unwrap_or_default();
    let held = instances.iter().filter(|one| one.record.effective_priority == Some(HELD_PRIORITY));
    held.map(|one| one.id.to_string()).collect()
}

/// The addresses of an answer to `web.default.rollcall.internal. A`; none when there is no answer.
fn by_dns(handler: &Handler) -> Vec<IpAddr> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "default", "rollcall", "internal", ""] {
        packet.push(u8::try_from(label.len()).expect("it is short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 1, 0, 1]);
    let mut out = Vec::new();
    handler.answer(&packet, SocketAddr::from(([127, 0, 0, 1], 40_000)), Transport::Udp, &mut out);
    let message = Message::from_vec(&out).expect("an answer");
    let address = |data: &RData| data.ip_addr();
    let mut addresses: Vec<_> = message.answers.iter().filter_map(|record| address(&record.data)).collect();
    addresses.sort();
    addresses
}

/// The instances that are marked as selected; none when the service is not known.
async fn by_http(router: &Router) -> Vec<String> {
    let request = Request::builder().method(Method::GET).uri("/api/v1/services/default/web");
    let response = router.answer(&request.body(()).expect("a request")).await;
    if response.status() != StatusCode::OK {
        return Vec::new();
    }
    let body = response.into_body().collect().await.expect("it is in memory").to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let instances = body["instances"].as_array().expect("a list").iter();
    let selected = instances.filter(|one| one["selected"] == true);
    selected.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

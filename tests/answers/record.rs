//! What lookups of one sidecar are told, whenever its view changes: by selection, by DNS and by HTTP, which have to agree.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rollcall::clock;
use rollcall::dns::{DnsPlan, Handler, Transport, Zone};
use rollcall::http::Router;
use rollcall::registry::select::select;
use rollcall::registry::{Cache, HELD_PRIORITY, Service};
use rollcall::telemetry::Metrics;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::told::{self, ask, get};
use crate::world::{label, web_key};

/// How the service is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookups {
    /// By DNS and HTTP, as applications do, so that the sidecar probes what vanishes. These connections are real: they are refused.
    Real,
    /// The same by all names and types, which are written down, and every [`PAUSE`] when nothing changes, too.
    Whole,
    /// Not at all: the selection is made beside, and leaves no mark.
    None,
}

/// From one look to the next while nothing changes; it comes at the same moment as nothing that matters.
const PAUSE: Duration = Duration::from_millis(16_900);

/// Who is offered from a time on, the ids in their order; or what else is told from then on.
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
    /// All that lookups were told.
    whole: Vec<Move>,
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
        since(&self.told().moves, start)
    }

    /// All that lookups are told now, where they are [`Lookups::Whole`].
    pub(crate) fn whole(&self) -> String {
        self.told().whole.last().map(|last| last.to.clone()).unwrap_or_default()
    }

    /// All that lookups were told from `start` on, one after the other, where they are [`Lookups::Whole`].
    pub(crate) fn whole_since(&self, start: Instant) -> Vec<Move> {
        since(&self.told().whole, start)
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
        if lookups != Lookups::None {
            // Twice, since the first may be the one that is encoded, and the second what is kept of it.
            for _ in 0..2 {
                assert_eq!(by_dns(&handler), addresses, "DNS");
            }
            assert_eq!(by_http(&router).await, ids, "HTTP");
        }
        let whole = match lookups {
            Lookups::Whole => Some(told::told(&handler, &router).await),
            Lookups::Real | Lookups::None => None,
        };
        note(&mut told.lock().unwrap_or_else(PoisonError::into_inner), ids.join(" "), whole, held(&cache));
        let changed = match lookups {
            Lookups::Whole => timeout(PAUSE, published.changed()).await.unwrap_or(Ok(())),
            Lookups::Real | Lookups::None => published.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn since(moves: &[Move], start: Instant) -> Vec<Move> {
    moves.iter().filter(|known| known.at > start).cloned().collect()
}

fn note(told: &mut Told, to: String, whole: Option<String>, held: Vec<String>) {
    let at = clock::now();
    for (moves, to) in [(&mut told.moves, Some(to)), (&mut told.whole, whole)] {
        if let Some(to) = to
            && moves.last().is_none_or(|last| last.to != to)
        {
            moves.push(Move { at, to });
        }
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
    let message = ask(handler, "web", 1, Transport::Udp);
    let mut addresses: Vec<_> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    addresses.sort();
    addresses
}

/// The instances that are marked as selected; none when the service is not known.
async fn by_http(router: &Router) -> Vec<String> {
    let Some(web) = get(router, "/api/v1/services/default/web").await else { return Vec::new() };
    let instances = web["instances"].as_array().expect("a list").iter();
    let selected = instances.filter(|one| one["selected"] == true);
    selected.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

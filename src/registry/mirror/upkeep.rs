//! What befalls a view whether there is an ensemble or not: time passes, probes come back, settings change.
//!
//! ```text
//! time, probes, settings ──► Upkeep ──► Occurrence ──► MirrorState (pure) ──► Cache
//! ```
//!
//! A mirror waits for the next occurrence wherever it waits for something else: for its first connection, which may be long in coming, and
//! for notices; and takes what has come meanwhile after each round of reads.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::Mirror;
use crate::clock;
use crate::registry::brake::probe::probe;
use crate::registry::brake::{ProbeOutcome, ProbeTarget};
use crate::registry::view_settings::{LiveViewSettings, ViewSettings};

/// How often an idle mirror looks when the server last proved itself.
const PROOF_INTERVAL: Duration = Duration::from_millis(500);
/// How often the brake is looked after while it holds something.
const BRAKE_TICK: Duration = Duration::from_millis(50);
/// How often the marks of lookups fade: what was looked up within the last minute is probed.
const LOOKUPS_AGE_INTERVAL: Duration = Duration::from_secs(15);

/// Where occurrences come from.
#[derive(Debug)]
pub(super) struct Upkeep {
    settings: LiveViewSettings,
    probes: JoinSet<(ProbeTarget, ProbeOutcome)>,
    lookups_aged_at: Instant,
    brake_looked_after_at: Instant,
}

/// One of them.
#[derive(Debug)]
pub(super) enum Occurrence {
    /// A probe has come back.
    Probed(ProbeTarget, ProbeOutcome),
    /// There are other settings.
    Settings(ViewSettings),
    /// The time is over that was to be waited.
    Elapsed,
}

impl Upkeep {
    /// Begins at `now` with what these settings are.
    pub(super) fn new(settings: LiveViewSettings, now: Instant) -> Self {
        let probes = JoinSet::new();
        Self { settings, probes, lookups_aged_at: now, brake_looked_after_at: now }
    }

    /// The settings now.
    pub(super) fn settings(&self) -> ViewSettings {
        self.settings.get()
    }

    /// Waits for the next occurrence, at most for `pause`. Losing this future loses nothing.
    pub(super) async fn next(&mut self, pause: Duration) -> Occurrence {
        tokio::select! {
            Some(probed) = self.probes.join_next() => {
                let (target, outcome) = probed.expect("probes do not panic and nobody aborts them");
                Occurrence::Probed(target, outcome)
            }
            settings = self.settings.changed() => Occurrence::Settings(settings),
            () = tokio::time::sleep(pause) => Occurrence::Elapsed,
        }
    }

    fn start_probe(&mut self, target: ProbeTarget) {
        self.probes.spawn(async move {
            let outcome = probe(&target).await;
            (target, outcome)
        });
    }
}

impl Mirror {
    /// Publishes what is decided by now, and probes whose turn it is; returns how long nothing needs to be looked at after that.
    pub(super) fn look_after_brake(&mut self) -> Duration {
        let now = clock::now();
        self.upkeep.brake_looked_after_at = now;
        if now.saturating_duration_since(self.upkeep.lookups_aged_at) >= LOOKUPS_AGE_INTERVAL {
            self.upkeep.lookups_aged_at = now;
            self.state.age_lookups();
            self.publish();
        }
        if self.state.brake().is_idle() {
            return PROOF_INTERVAL;
        }
        for target in self.state.take_probes(now) {
            self.upkeep.start_probe(target);
        }
        self.publish();
        BRAKE_TICK
    }

    /// Takes what happened. What probes decide is published when the brake is looked after.
    pub(super) fn on_occurrence(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Probed(target, outcome) => {
                self.state.on_probe(&target.service, &target.id, outcome, clock::now());
            }
            Occurrence::Settings(settings) => {
                self.on_own_services(settings.home.services());
                self.state.on_settings(settings, clock::now());
                self.publish();
            }
            Occurrence::Elapsed => {}
        }
    }

    /// Takes what has happened by now, where there is no time to wait for more.
    pub(super) fn catch_up(&mut self) {
        while let Some(occurrence) = self.upkeep.next(BRAKE_TICK).now_or_never() {
            self.on_occurrence(occurrence);
        }
        if clock::now() >= self.upkeep.brake_looked_after_at + BRAKE_TICK {
            self.look_after_brake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::client::{Client, ClientSettings};
    use crate::id::{SessionId, Zxid};
    use crate::registry::mirror::Source;
    use crate::registry::{
        BrakePlan, Cache, Home, Instance, Label, Layout, Record, Service, ServiceKey, Standing, View,
    };

    #[tokio::test]
    async fn a_hold_ends_while_the_ensemble_is_away() {
        let hold_max = Duration::from_millis(200);
        let world = World::start(BrakePlan { hold_max, ..BrakePlan::default() }, 1);
        world.shows("nobody, in the end", |view| view.services[&key()].instances.is_empty()).await;
        assert!(clock::now() >= world.started + hold_max);
    }

    #[tokio::test]
    async fn who_is_looked_up_is_probed_while_the_ensemble_is_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let world = World::start(BrakePlan::default(), port);
        world.cache.load().look_up(&key());
        world.shows("nobody, since nobody listens", |view| view.services[&key()].instances.is_empty()).await;
    }

    #[tokio::test]
    async fn other_settings_are_taken_over_while_the_ensemble_is_away() {
        let world = World::start(BrakePlan::default(), 1);
        let home = Home::new(Some("b".to_owned()), []);
        world.settings.send_replace(ViewSettings { home: home.clone(), ..ViewSettings::default() });
        world.shows("another zone", |view| *view.home == home).await;
        assert_eq!(world.cache.load().services[&key()].instances.len(), 1);
        let brake = BrakePlan { is_enabled: false, ..BrakePlan::default() };
        world.settings.send_replace(ViewSettings { brake, home });
        world.shows("nobody that is held", |view| view.services[&key()].instances.is_empty()).await;
    }

    #[tokio::test]
    async fn other_settings_are_taken_over_between_two_rounds_of_reads() {
        let cache = Arc::new(Cache::new(clock::now()));
        let (settings, live) = LiveViewSettings::new(ViewSettings::default());
        let mut mirror = mirror(&cache, live);
        let home = Home::new(Some("b".to_owned()), []);
        settings.send_replace(ViewSettings { home: home.clone(), ..ViewSettings::default() });
        mirror.catch_up();
        assert_eq!(*cache.load().home, home);
    }

    /// A mirror that goes on from a view with one instance that had vanished when it was saved, and finds no ensemble.
    struct World {
        cache: Arc<Cache>,
        settings: watch::Sender<ViewSettings>,
        started: Instant,
        _stop: tokio_util::sync::DropGuard,
    }

    impl World {
        fn start(brake: BrakePlan, port: u16) -> Self {
            let started = clock::now();
            let text = format!(
                r#"{{"v":1,"addresses":["127.0.0.1"],"ports":[{{"name":"http","port":{port}}}],"status":"up"}}"#
            );
            let record = Record::decode(text.as_bytes()).unwrap();
            let instance = Instance::new(label("web-1"), record, Zxid::ZERO, SessionId(1));
            let vanished_at = Some(started);
            let vanished = Instance { standing: Standing::Suspect, vanished_at, ..instance };
            let service = Service { instances: vec![Arc::new(vanished)].into(), ..Service::new(key()) };
            let services = [Arc::new(service)].into();
            let view = View { services, is_loaded: true, ..View::default() };
            let cache = Arc::new(Cache::with_saved(view, Duration::ZERO, started));
            let (settings, live) = LiveViewSettings::new(ViewSettings { brake, home: Home::default() });
            let stop = CancellationToken::new();
            tokio::spawn(mirror(&cache, live).run(stop.clone()));
            Self { cache, settings, started, _stop: stop.drop_guard() }
        }

        async fn shows(&self, what: &str, is_shown: impl Fn(&View) -> bool) {
            let mut published = self.cache.subscribe();
            let shown = async {
                while !is_shown(&self.cache.load()) {
                    published.changed().await.expect("the cache is there");
                }
            };
            tokio::time::timeout(Duration::from_secs(20), shown).await.expect(what);
        }
    }

    fn mirror(cache: &Arc<Cache>, settings: LiveViewSettings) -> Mirror {
        let client = Client::start(ClientSettings { servers: Vec::new(), ..ClientSettings::default() });
        Mirror::new(client, cache, Source::all(Layout::default()), settings)
    }

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn key() -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label("web") }
    }
}

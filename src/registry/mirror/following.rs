//! Which services are followed, where only those are that are looked up. Pure.
//!
//! ```text
//!            asked for              read, watched             nobody looks it up for long, or others are looked up more
//!  a name ─────────────► wanted ───────────────► followed ─────────────────────────────────────────────► a name
//!                          └── its list is refused ──► a name, until it is asked for again
//! ```
//!
//! In come what is asked for, which names there are, what was read, and the time; out go who is to be read next, and who lapses. That
//! a service is in use is told by its [`LookupMark`](crate::registry::LookupMark).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::registry::name::ServiceKey;
use crate::registry::view::View;

/// Services that are followed at a time, beside those that always are: each takes a watch at the member, and its instances here.
pub(super) const FOLLOWED_MAX: usize = 4_096;

/// Services that are followed or asked for, while nobody can lapse for want of a connection; who is asked for beyond that must be so again.
const WANTED_MAX: usize = 2 * FOLLOWED_MAX;

/// Keeps account of who is followed and why.
#[derive(Debug)]
pub(super) struct Following {
    /// For how long nobody may look a service up before it lapses.
    idle: Duration,
    /// Who is followed whether looked up or not: the sidecar's own.
    always: BTreeSet<ServiceKey>,
    /// Who was asked for, and when a use was seen last.
    wanted: BTreeMap<ServiceKey, Instant>,
    /// Who is wanted, or followed always, and was not read yet.
    unread: BTreeSet<ServiceKey>,
    look_at: Instant,
}

impl Following {
    /// Goes on with what a view shows as followed, the idle time of which begins anew at `now`.
    pub(super) fn new(idle: Duration, always: BTreeSet<ServiceKey>, view: &View, now: Instant) -> Self {
        let (wanted, unread) = (BTreeMap::new(), BTreeSet::new());
        let mut following = Self { idle, always: BTreeSet::new(), wanted, unread, look_at: now };
        following.set_always(always, view, now);
        following
    }

    /// Takes that these are followed always from now on, and the others of those that `view` shows as followed until nobody has looked
    /// them up for the idle time.
    pub(super) fn set_always(&mut self, always: BTreeSet<ServiceKey>, view: &View, now: Instant) {
        self.always = always;
        for (service, known) in &view.services {
            match (self.always.contains(service), known.is_followed) {
                (true, true) => drop(self.wanted.remove(service)),
                (true, false) => {
                    self.wanted.remove(service);
                    self.unread.insert(service.clone());
                }
                (false, true) => drop(self.wanted.entry(service.clone()).or_insert(now)),
                (false, false) if !self.wanted.contains_key(service) => drop(self.unread.remove(service)),
                (false, false) => {}
            }
        }
    }

    /// Whether a service of this name is to be read, and kept.
    pub(super) fn includes(&self, service: &ServiceKey) -> bool {
        self.wanted.contains_key(service) || self.always.contains(service)
    }

    /// Takes that there is a service of this name.
    pub(super) fn on_name(&mut self, service: &ServiceKey, is_followed: bool) {
        if !is_followed && self.includes(service) {
            self.unread.insert(service.clone());
        }
    }

    /// Takes that there is none any more.
    pub(super) fn on_gone(&mut self, service: &ServiceKey) {
        self.wanted.remove(service);
        self.unread.remove(service);
    }

    /// Takes that somebody asked for a service that `view` shows without its instances.
    pub(super) fn on_asked(&mut self, service: ServiceKey, view: &View, now: Instant) {
        let Some(known) = view.services.get(&service) else { return };
        let is_always = self.always.contains(&service);
        if known.is_followed || (!is_always && self.wanted.len() >= WANTED_MAX) {
            return;
        }
        self.unread.insert(service.clone());
        if is_always {
            // Its list was refused before.
            return;
        }
        self.wanted.insert(service, now);
        if self.wanted.len() > FOLLOWED_MAX {
            self.look_at = now;
        }
    }

    /// Some of those that are to be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &ServiceKey> {
        self.unread.iter()
    }

    /// Takes that one of those was read.
    pub(super) fn on_read(&mut self, service: &ServiceKey) {
        self.unread.remove(service);
    }

    /// Who lapses by `now`: whom nobody has looked up for the idle time, and, when too many are followed, those who were not for longest.
    pub(super) fn lapse(&mut self, view: &View, now: Instant) -> Vec<ServiceKey> {
        if now < self.look_at {
            return Vec::new();
        }
        self.look_at = now + interval(self.idle);
        for (key, used_at) in &mut self.wanted {
            if view.services.get(key).is_some_and(|service| service.lookups.take_use()) {
                *used_at = now;
            }
        }
        let idle = self.idle;
        let is_idle = |used_at: &Instant| now >= *used_at + idle;
        let mut lapsed: Vec<_> =
            self.wanted.iter().filter(|(_, used_at)| is_idle(used_at)).map(|(key, _)| key.clone()).collect();
        self.wanted.retain(|_, used_at| !is_idle(used_at));
        let surplus = self.wanted.len().saturating_sub(FOLLOWED_MAX);
        if surplus > 0 {
            let mut by_use: Vec<_> =
                self.wanted.iter().map(|(key, used_at)| (*used_at, key.clone())).collect();
            by_use.sort_unstable();
            lapsed.extend(by_use.into_iter().take(surplus).map(|(_, key)| key));
        }
        for key in &lapsed {
            self.wanted.remove(key);
            self.unread.remove(key);
        }
        lapsed
    }
}

/// How often marks are looked at: an idle time is at most an eighth longer than it is set.
fn interval(idle: Duration) -> Duration {
    (idle / 8).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;
    use crate::registry::{Label, Service};

    const IDLE: Duration = Duration::from_secs(80);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_asked_for_is_read_and_lapses_when_nobody_looks_it_up_for_the_idle_time() {
        let start = clock::now();
        let mut view = view(&[("api", false), ("own", false), ("web", false)]);
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        assert!(following.unread().eq([&key("own")]), "what is the sidecar's own needs nobody to ask");
        following.on_asked(key("web"), &view, start);
        following.on_asked(key("web"), &view, start);
        following.on_asked(key("unknown"), &view, start);
        assert!(following.unread().eq([&key("own"), &key("web")]));
        assert!(following.includes(&key("web")) && !following.includes(&key("api")));
        for name in ["own", "web"] {
            following.on_read(&key(name));
            set_followed(&mut view, name, true);
        }
        assert_eq!(following.unread().count(), 0);

        view.look_up(&key("web")).unwrap();
        assert!(following.lapse(&view, start + 10 * SECOND).is_empty());
        assert!(following.lapse(&view, start + 89 * SECOND).is_empty(), "used 79 s ago");
        assert_eq!(following.lapse(&view, start + 99 * SECOND), [key("web")]);
        assert!(!following.includes(&key("web")) && following.includes(&key("own")));
        assert!(following.lapse(&view, start + 1_000 * SECOND).is_empty(), "own services never lapse");
    }

    #[test]
    fn who_is_waited_on_does_not_lapse() {
        let start = clock::now();
        let view = view(&[("web", true)]);
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        let waiting = view.services[&key("web")].lookups.wait();
        for at in 1..100 {
            assert!(following.lapse(&view, start + at * 10 * SECOND).is_empty());
        }
        drop(waiting);
        assert_eq!(following.lapse(&view, start + 1_080 * SECOND), [key("web")]);
    }

    #[test]
    fn what_was_followed_before_a_restart_is_followed_and_its_idle_time_begins_anew() {
        let start = clock::now();
        let view = view(&[("api", false), ("web", true)]);
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        assert!(following.includes(&key("web")) && !following.includes(&key("api")));
        assert_eq!(following.unread().count(), 0, "it is known, if from the file alone");
        assert!(following.lapse(&view, start + IDLE - SECOND).is_empty());
        assert_eq!(following.lapse(&view, start + 2 * IDLE), [key("web")]);
    }

    #[test]
    fn what_becomes_an_own_service_is_followed_and_what_is_none_any_more_lapses_like_others() {
        let start = clock::now();
        let mut view = view(&[("own", true), ("web", false)]);
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        following.set_always([key("web"), key("new")].into(), &view, start + SECOND);
        assert!(following.unread().eq([&key("web")]) && following.includes(&key("own")));
        following.on_read(&key("web"));
        set_followed(&mut view, "web", true);
        following.on_name(&key("new"), false);
        assert!(following.unread().eq([&key("new")]));
        assert_eq!(following.lapse(&view, start + 2 * IDLE), [key("own")]);
    }

    #[test]
    fn names_come_and_go() {
        let start = clock::now();
        let view = view(&[("web", false)]);
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        following.on_name(&key("other"), false);
        following.on_name(&key("own"), false);
        following.on_asked(key("web"), &view, start);
        assert!(following.unread().eq([&key("own"), &key("web")]));
        for name in ["own", "web"] {
            following.on_gone(&key(name));
        }
        assert_eq!(following.unread().count(), 0);
        following.on_name(&key("web"), false);
        assert_eq!(following.unread().count(), 0, "another of that name must be asked for");
        following.on_name(&key("own"), false);
        assert!(following.unread().eq([&key("own")]));
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let start = clock::now();
        let names: Vec<_> = (0..FOLLOWED_MAX + 2).map(|number| format!("s{number:05}")).collect();
        let mut view = view(&names.iter().map(|name| (name.as_str(), true)).collect::<Vec<_>>());
        let late = key(&names[FOLLOWED_MAX + 1]);
        Arc::make_mut(view.services.get_mut(&late).unwrap()).is_followed = false;
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        for name in &names[1..] {
            view.look_up(&key(name)).unwrap();
        }
        assert_eq!(following.lapse(&view, start), [key(&names[0])], "a saved view may have more, too");
        following.on_asked(late.clone(), &view, start + 11 * SECOND);
        let lapsed = following.lapse(&view, start + 11 * SECOND);
        assert_eq!(lapsed, [key(&names[1])], "at once, not at the next interval");
        assert!(following.includes(&late) && following.unread().eq([&late]));
    }

    proptest! {
        #[test]
        fn whatever_happens_what_is_to_be_read_is_to_be_followed_and_who_lapses_is_not(
            steps in proptest::collection::vec((0..6_u8, 0..5_usize, 1..40_u32), 1..200),
        ) {
            let names = ["a", "b", "c", "d", "own"];
            let mut view = view(&names.map(|name| (name, false)));
            let mut now = clock::now();
            let mut following = Following::new(IDLE, [key("own")].into(), &view, now);
            let mut used_at: BTreeMap<ServiceKey, Instant> = BTreeMap::new();
            for (step, at, seconds) in steps {
                let service = key(names[at]);
                match step {
                    0 => {
                        view.look_up(&service).unwrap();
                        used_at.insert(service.clone(), now);
                        following.on_asked(service, &view, now);
                    }
                    1 => {
                        let unread: Vec<_> = following.unread().cloned().collect();
                        for service in unread {
                            following.on_read(&service);
                            set_followed(&mut view, service.name.as_str(), true);
                        }
                    }
                    2 => {
                        following.on_gone(&service);
                        set_followed(&mut view, names[at], false);
                        following.on_name(&service, false);
                    }
                    _ => {
                        now += SECOND * seconds;
                        for lapsed in following.lapse(&view, now) {
                            prop_assert!(!following.includes(&lapsed), "{lapsed}");
                            prop_assert!(now >= used_at[&lapsed] + IDLE, "{lapsed} was used lately");
                            set_followed(&mut view, lapsed.name.as_str(), false);
                        }
                    }
                }
                for service in following.unread() {
                    prop_assert!(following.includes(service), "{service}");
                }
                for (service, known) in &view.services {
                    prop_assert!(!known.is_followed || following.includes(service), "{service}");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_while_nobody_can_lapse_is_bounded() {
        let start = clock::now();
        let names: Vec<_> = (0..=WANTED_MAX).map(|number| format!("s{number:05}")).collect();
        let view = view(&names.iter().map(|name| (name.as_str(), false)).collect::<Vec<_>>());
        let mut following = Following::new(IDLE, [key("own")].into(), &view, start);
        for name in &names {
            following.on_asked(key(name), &view, start);
        }
        assert_eq!(following.unread().count(), WANTED_MAX);
        assert_eq!(following.lapse(&view, start).len(), WANTED_MAX - FOLLOWED_MAX);
        assert_eq!(following.unread().count(), FOLLOWED_MAX);
    }

    fn view(services: &[(&str, bool)]) -> View {
        let service = |(name, is_followed): &(&str, bool)| {
            Arc::new(Service { is_followed: *is_followed, ..Service::new(key(name)) })
        };
        View { services: services.iter().map(service).collect(), is_loaded: true, ..View::default() }
    }

    fn set_followed(view: &mut View, name: &str, is_followed: bool) {
        Arc::make_mut(view.services.get_mut(&key(name)).unwrap()).is_followed = is_followed;
    }

    fn key(name: &str) -> ServiceKey {
        let label = |text: &str| Label::parse(text).unwrap();
        ServiceKey { namespace: label("default"), name: label(name) }
    }
}

//! What would be answered if something were lost: the real selection and the real brake on the present view. Pure.
//!
//! ```text
//! now ──► expired: sessions of who is lost have ended ──► probed: those that are looked up were tried ──► settled
//! ```
//!
//! Who is lost says nothing to a probe, as where a machine or a network is gone, and is the last resort for a while. Where only the
//! process is gone the machine refuses for it, and it is out at once.
//!
//! Without the ensemble nobody is told of anything: what is answered stays as it is, whoever is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use tracing::subscriber::NoSubscriber;

use super::brake::{Brake, BrakePlan, ProbeOutcome};
use super::layout::Place;
use super::mirror::{MirrorState, ReadOutcome};
use super::name::{Label, ServiceKey};
use super::record::Protocol;
use super::select::{shares, tier};
use super::view::{Instance, Service, View};
use crate::config::nearest_word;
use crate::id::SessionId;

/// Something that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All machines of a failure domain.
    Zone(String),
    /// One machine.
    Node(String),
    /// So many instances of a service, of those that are offered first.
    Some(ServiceKey, usize, Remains),
    /// One instance.
    Instance(ServiceKey, Label, Remains),
    /// The whole ensemble.
    Ensemble,
}

/// What there is where an instance was that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remains {
    /// Nothing that would answer.
    Nothing,
    /// The machine, which refuses connections: only the process is lost.
    Machine,
}

impl Loss {
    /// The service that it names.
    pub const fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Some(service, ..) | Self::Instance(service, ..) => Some(service),
            Self::Zone(_) | Self::Node(_) | Self::Ensemble => None,
        }
    }
}

/// A text that names no loss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be lost; write zone=NAME, node=NAME, SERVICE/NUMBER, SERVICE/INSTANCE, process=SERVICE/NUMBER, \
     process=SERVICE/INSTANCE or ensemble"
)]
pub struct LossError {
    text: String,
}

/// A loss of something that the view does not show: of nothing, which nobody asks for but by mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLoss {
    /// What is not known.
    pub error: String,
    /// What to ask for.
    pub hint: String,
}

/// What would become of one service.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Its name.
    pub service: ServiceKey,
    /// Its instances that are lost.
    pub lost: BTreeSet<Label>,
    /// What is answered now.
    pub now: Answer,
    /// Once the sessions of the lost have expired.
    pub expired: Answer,
    /// Once those that are offered were probed, if they are to be.
    pub probed: Answer,
    /// In the end.
    pub settled: Answer,
}

/// Who is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The tier, an effective priority or the last resort; `None` when there is nobody.
    pub tier: Option<u32>,
    /// Who of it is offered to lookups of this zone, in the order of their ids.
    pub offered: Vec<Offer>,
}

/// One who is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Its id.
    pub id: Label,
    /// Its weight among them.
    pub weight: u16,
    /// The part of this zone's lookups in which it stands first.
    pub share: f64,
    /// Whether it is one of the lost.
    pub is_lost: bool,
}

/// Plays what would happen to every service that is followed, at `now`.
pub fn rehearse(view: &View, plan: &BrakePlan, losses: &[Loss], now: Instant) -> Vec<Rehearsal> {
    // The brake's warnings are about what happens, and none of this does.
    tracing::subscriber::with_default(NoSubscriber::new(), || play(view, plan, losses, now))
}

fn play(view: &View, plan: &BrakePlan, losses: &[Loss], now: Instant) -> Vec<Rehearsal> {
    let lost = Lost::of(view, losses);
    let mut state = MirrorState::new(view.clone(), Brake::new(plan.clone(), 0), now);
    let mut expired = view.clone();
    let (mut probed, mut settled) = (expired.clone(), expired.clone());
    if !losses.contains(&Loss::Ensemble) {
        for (service, instance, _) in lost.all(view) {
            // What lives by no session does not vanish with whoever it stands for.
            if instance.session != SessionId::NONE {
                let place = Place::Instance(service.clone(), instance.id.clone());
                state.on_read(&place, &ReadOutcome::Missing, now);
            }
        }
        expired = state.take_changed(now).unwrap_or(expired);
        for (service, instance, remains) in lost.all(view) {
            let outcome = match remains {
                Remains::Nothing => ProbeOutcome::Silent,
                Remains::Machine => ProbeOutcome::Refused,
            };
            // Without a port that TCP is spoken on nobody asks.
            if instance.record.ports.iter().any(|port| port.protocol == Protocol::Tcp) {
                state.on_probe(service, &instance.id, outcome, now);
            }
        }
        probed = state.take_changed(now).unwrap_or_else(|| expired.clone());
        settled = state.take_changed(now + plan.hold_max).unwrap_or_else(|| probed.clone());
    }
    let rehearsal = |(key, service): (&ServiceKey, &Arc<Service>)| {
        let lost = lost.of_service(service);
        let answer = |view: &View| Answer::of(view.services.get(key).map(AsRef::as_ref), &lost);
        Rehearsal {
            service: key.clone(),
            now: answer(view),
            expired: answer(&expired),
            probed: answer(&probed),
            settled: answer(&settled),
            lost,
        }
    };
    view.services.iter().filter(|(_, service)| service.is_followed).map(rehearsal).collect()
}

/// The first of `losses` that is one of something that `view` does not show, if there is one.
pub fn unknown(view: &View, losses: &[Loss]) -> Option<UnknownLoss> {
    losses.iter().find_map(|loss| match loss {
        Loss::Zone(name) => unknown_place(view, "zone", name, |instance| instance.record.zone.as_deref()),
        Loss::Node(name) => unknown_place(view, "node", name, |instance| instance.record.node.as_deref()),
        Loss::Some(key, ..) => unknown_service(view, key),
        Loss::Instance(key, id, _) => unknown_service(view, key).or_else(|| unknown_instance(view, key, id)),
        Loss::Ensemble => None,
    })
}

fn unknown_service(view: &View, key: &ServiceKey) -> Option<UnknownLoss> {
    if view.services.contains_key(key) {
        return None;
    }
    let neighbours = view.services.keys().filter(|it| it.namespace == key.namespace);
    let nearest = nearest_word(key.name.as_str(), neighbours.map(|it| it.name.as_str()));
    let nearest = view.services.keys().find(|it| match nearest {
        Some(nearest) => it.namespace == key.namespace && it.name.as_str() == nearest,
        None => it.name == key.name,
    });
    let error = format!("no service {key} is known");
    Some(UnknownLoss { error, hint: meant(nearest, || "lose one of those that are known".to_owned()) })
}

fn unknown_instance(view: &View, key: &ServiceKey, id: &Label) -> Option<UnknownLoss> {
    let service = view.services.get(key)?;
    if service.instance(id.as_str()).is_some() {
        return None;
    }
    let nearest = nearest_word(id.as_str(), service.instances.iter().map(|it| it.id.as_str()));
    let hint = meant(nearest.map(|nearest| format!("{key}/{nearest}")), || {
        format!("lose {key}/1 for any one that is offered")
    });
    Some(UnknownLoss { error: format!("{key} has no instance {id}"), hint })
}

fn unknown_place(
    view: &View,
    kind: &str,
    name: &str,
    place: impl Fn(&Instance) -> Option<&str>,
) -> Option<UnknownLoss> {
    let instances = view.services.values().flat_map(|service| &service.instances);
    let known: BTreeSet<_> = instances.filter_map(|instance| place(instance)).collect();
    if known.contains(name) {
        return None;
    }
    let nearest = nearest_word(name, known.iter().copied()).map(|nearest| format!("{kind}={nearest}"));
    let hint =
        meant(nearest, || format!("lose a {kind} that an instance of a service that is followed is in"));
    Some(UnknownLoss { error: format!("no instance that is known is in {kind} {name:?}"), hint })
}

fn meant(nearest: Option<impl fmt::Display>, otherwise: impl FnOnce() -> String) -> String {
    nearest.map_or_else(otherwise, |nearest| format!("did you mean {nearest}?"))
}

/// The losses, with what "some" of a service means decided.
struct Lost<'a> {
    losses: &'a [Loss],
    chosen: BTreeMap<(ServiceKey, Label), Remains>,
}

impl<'a> Lost<'a> {
    fn of(view: &View, losses: &'a [Loss]) -> Self {
        let mut chosen = BTreeMap::new();
        let mut choose = |key: &ServiceKey, id: &Label, remains: Remains| {
            let known = chosen.entry((key.clone(), id.clone())).or_insert(remains);
            // Of what is lost twice the less remains.
            *known = remains.min(*known);
        };
        for loss in losses {
            match loss {
                Loss::Some(key, count, remains) => {
                    let Some(service) = view.services.get(key) else { continue };
                    let mut up: Vec<_> = service.up().collect();
                    up.sort_by_key(|instance| instance.tier());
                    up.iter().take(*count).for_each(|it| choose(key, &it.id, *remains));
                }
                Loss::Instance(key, id, remains) => choose(key, id, *remains),
                Loss::Zone(_) | Loss::Node(_) | Loss::Ensemble => {}
            }
        }
        Self { losses, chosen }
    }

    /// What remains of the instance, if it is lost.
    fn remains(&self, key: &ServiceKey, instance: &Instance) -> Option<Remains> {
        let (zone, node) = (instance.record.zone.as_ref(), instance.record.node.as_ref());
        let is_machine_lost = self.losses.iter().any(|loss| match loss {
            Loss::Zone(lost) => zone == Some(lost),
            Loss::Node(lost) => node == Some(lost),
            Loss::Some(..) | Loss::Instance(..) | Loss::Ensemble => false,
        });
        if is_machine_lost {
            return Some(Remains::Nothing);
        }
        self.chosen.get(&(key.clone(), instance.id.clone())).copied()
    }

    fn all<'v>(&'v self, view: &'v View) -> impl Iterator<Item = (&'v ServiceKey, &'v Instance, Remains)> {
        let instances = view
            .services
            .iter()
            .flat_map(|(key, service)| service.instances.iter().map(move |instance| (key, &**instance)));
        instances.filter_map(|(key, instance)| Some((key, instance, self.remains(key, instance)?)))
    }

    fn of_service(&self, service: &Service) -> BTreeSet<Label> {
        let lost = service.instances.iter().filter(|it| self.remains(&service.key, it).is_some());
        lost.map(|instance| instance.id.clone()).collect()
    }
}

impl Answer {
    fn of(service: Option<&Service>, lost: &BTreeSet<Label>) -> Self {
        let tier = service.and_then(tier);
        let with_shares = service.map(|service| service.instances.iter().zip(shares(service)));
        let offer = |(instance, share): (&Arc<Instance>, Option<f64>)| {
            share.map(|share| Offer {
                id: instance.id.clone(),
                weight: instance.record.weight,
                share,
                is_lost: lost.contains(&instance.id),
            })
        };
        Self { tier, offered: with_shares.into_iter().flatten().filter_map(offer).collect() }
    }
}

impl FromStr for Loss {
    type Err = LossError;

    fn from_str(text: &str) -> Result<Self, LossError> {
        let error = || LossError { text: text.to_owned() };
        let (instances, remains) = match text.split_once('=') {
            Some((_, "")) => return Err(error()),
            Some(("zone", name)) => return Ok(Self::Zone(name.to_owned())),
            Some(("node", name)) => return Ok(Self::Node(name.to_owned())),
            Some(("process", instances)) => (instances, Remains::Machine),
            Some(_) => return Err(error()),
            None if text == "ensemble" => return Ok(Self::Ensemble),
            None => (text, Remains::Nothing),
        };
        let (service, which) = instances.split_once('/').ok_or_else(error)?;
        let (name, namespace) = service.split_once('.').unwrap_or((service, ServiceKey::NAMESPACE_DEFAULT));
        let label = |text: &str| Label::parse(text).map_err(|_| error());
        let key = ServiceKey { namespace: label(namespace)?, name: label(name)? };
        match which.parse() {
            Ok(0) => Err(error()),
            Ok(count) => Ok(Self::Some(key, count, remains)),
            Err(_) => Ok(Self::Instance(key, label(which)?, remains)),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(name) => write!(f, "zone={name}"),
            Self::Node(name) => write!(f, "node={name}"),
            Self::Some(service, count, remains) => write!(f, "{}{service}/{count}", remains.prefix()),
            Self::Instance(service, id, remains) => write!(f, "{}{service}/{id}", remains.prefix()),
            Self::Ensemble => f.write_str("ensemble"),
        }
    }
}

impl Remains {
    /// What the text of a loss begins with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Machine => "process=",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::id::Zxid;
    use crate::registry::sample::logged;
    use crate::registry::{Home, LAST_RESORT, Record};

    #[test]
    fn a_zone_that_is_lost_leaves_the_others() {
        let view = view(&[("web", &[("a1", "a", 0), ("a2", "a", 0), ("b1", "b", 0), ("b2", "b", 0)])]);
        let web = &played(&view, &["zone=a"])[0];
        assert_eq!(web.lost.len(), 2);
        assert_eq!(ids(&web.now), ["a1", "a2", "b1", "b2"]);
        assert_eq!(ids(&web.expired), ["a1", "a2", "b1", "b2"], "in limbo");
        assert_eq!(ids(&web.probed), ["b1", "b2"]);
        assert_eq!(ids(&web.settled), ["b1", "b2"]);
        assert!(web.expired.offered[0].is_lost && !web.expired.offered[2].is_lost);
    }

    #[test]
    fn processes_that_are_lost_are_those_offered_first_and_standbys_take_over() {
        let view =
            view(&[("web", &[("a", "z", 10), ("b", "z", 0), ("c", "z", 0)]), ("api", &[("x", "z", 0)])]);
        let played = played(&view, &["web/2"]);
        let (api, web) = (&played[0], &played[1]);
        assert!(api.lost.is_empty() && api.now == api.settled);
        assert_eq!(web.lost.iter().map(Label::as_str).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!((web.probed.tier, ids(&web.probed)), (Some(10), vec!["a"]));
    }

    #[test]
    fn when_all_machines_are_lost_they_are_the_last_resort_and_then_nobody_is_there() {
        let view = view(&[("web", &[("a", "z", 0), ("b", "z", 0), ("c", "z", 0)])]);
        let web = &played(&view, &["zone=z"])[0];
        assert_eq!((web.probed.tier, web.probed.offered.len()), (Some(LAST_RESORT), 3));
        assert_eq!((web.settled.tier, web.settled.offered.len()), (None, 0));
    }

    #[test]
    fn who_is_lost_says_nothing_and_who_lost_only_its_process_refuses() {
        let view = view(&[("web", &[("a", "z", 0), ("b", "z", 0)])]);
        let probed = |losses: &[&str]| {
            let web = played(&view, losses).remove(0);
            assert_eq!((web.settled.tier, web.settled.offered.len()), (None, 0), "{losses:?}");
            (web.probed.tier, web.probed.offered.len())
        };
        for lost in
            [&["web/2"][..], &["web/a", "web/b"], &["process=web/2", "web/2"], &["process=web/2", "zone=z"]]
        {
            assert_eq!(probed(lost), (Some(LAST_RESORT), 2), "{lost:?}");
        }
        for refusing in [&["process=web/2"][..], &["process=web/a", "process=web/b"]] {
            assert_eq!(probed(refusing), (None, 0), "{refusing:?}");
        }
        assert_eq!(probed(&["web/a", "process=web/b"]), (Some(LAST_RESORT), 1));
    }

    #[test]
    fn nothing_is_logged_as_if_it_had_happened() {
        let view = view(&[("web", &[("a", "z", 0), ("b", "z", 0), ("c", "z", 0)])]);
        let told = logged(|| {
            tracing::warn!("before");
            assert_eq!(ids(&played(&view, &["zone=z"])[0].expired), ["a", "b", "c"], "the brake holds them");
        });
        assert!(told.lines().count() == 1 && told.contains("before"), "{told}");
    }

    #[test]
    fn whom_nobody_can_ask_is_offered_until_it_is_believed_to_be_gone() {
        let mut view = view(&[("web", &[("a", "z", 0), ("b", "z", 0)])]);
        for service in view.services.values_mut() {
            for instance in Arc::make_mut(service).instances.iter_mut() {
                Arc::make_mut(instance).record.ports[0].protocol = Protocol::Udp;
            }
        }
        let web = played(&view, &["process=web/a"]).remove(0);
        assert_eq!((ids(&web.probed), ids(&web.settled)), (vec!["a", "b"], vec!["b"]));
    }

    #[test]
    fn shares_are_those_of_this_zones_lookups_before_and_after() {
        let mut view = view(&[
            ("app", &[("x", "a", 0), ("y", "b", 0)]),
            ("web", &[("a1", "a", 0), ("b1", "b", 0), ("b2", "b", 0), ("c1", "c", 0)]),
        ]);
        let key = |name: &str| view.services.keys().find(|key| key.name.as_str() == name).cloned();
        let home = Home::new(Some("a".to_owned()), key("app"));
        view.settle(home);
        let web = &played(&view, &["web/b1"])[1];
        let shares = |answer: &Answer| -> Vec<_> {
            answer.offered.iter().map(|offer| (offer.id.to_string(), offer.share)).collect()
        };
        assert_eq!(shares(&web.now), [("a1".to_owned(), 0.5), ("c1".to_owned(), 0.5)]);
        let settled = shares(&web.settled);
        assert_eq!(settled.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["a1", "c1"]);
        assert!((settled[0].1 - 2.0 / 3.0).abs() < 1e-9, "a third of the weights for half of the callers");
    }

    #[test]
    fn without_the_ensemble_nobody_hears_of_it() {
        let view = view(&[("web", &[("a", "z", 0), ("b", "y", 0)])]);
        let web = &played(&view, &["zone=z", "ensemble"])[0];
        assert_eq!(ids(&web.settled), ["a", "b"]);
        assert!(web.settled.offered[0].is_lost);
    }

    #[test]
    fn a_zone_and_an_instance_that_are_lost_with_the_ensemble_are_offered_on_and_without_it_are_gone() {
        let view =
            view(&[("web", &[("a1", "a", 0), ("b1", "b", 0), ("b2", "b", 0)]), ("api", &[("x", "c", 0)])]);
        let told = |losses: &[&str]| {
            let [api, web] = <[Rehearsal; 2]>::try_from(played(&view, losses)).unwrap();
            assert!(api.lost.is_empty() && api.now == api.settled, "{losses:?}");
            assert_eq!(web.lost.iter().map(Label::as_str).collect::<Vec<_>>(), ["a1", "b1"], "{losses:?}");
            [&web.now, &web.expired, &web.probed, &web.settled].map(|answer| ids(answer).join(" "))
        };
        for losses in [["zone=a", "ensemble", "web/b1"], ["zone=a", "ensemble", "process=web/b1"]] {
            assert_eq!(told(&losses), ["a1 b1 b2"; 4], "{losses:?}");
        }
        for losses in [["zone=a", "web/b1"], ["zone=a", "process=web/b1"]] {
            assert_eq!(told(&losses), ["a1 b1 b2", "a1 b1 b2", "b2", "b2"], "{losses:?}");
        }
    }

    #[test]
    fn what_is_not_known_cannot_be_lost_and_what_may_be_meant_is_told() {
        let view = view(&[("web", &[("web-1", "east", 0)]), ("api", &[("api-1", "west", 0)])]);
        for known in ["web/1", "web/9", "web/web-1", "zone=east", "ensemble"] {
            assert_eq!(unknown(&view, &[known.parse().unwrap()]), None, "{known}");
        }
        for (text, error, hint) in [
            ("wbe/1", "no service wbe.default is known", "did you mean web.default?"),
            ("web.shop/1", "no service web.shop is known", "did you mean web.default?"),
            ("nobody/1", "no service nobody.default is known", "lose one of those that are known"),
            ("web/wbe-1", "web.default has no instance wbe-1", "did you mean web.default/web-1?"),
            ("web/x", "web.default has no instance x", "lose web.default/1 for any one that is offered"),
            ("zone=esat", "no instance that is known is in zone \"esat\"", "did you mean zone=east?"),
            (
                "node=n1",
                "no instance that is known is in node \"n1\"",
                "lose a node that an instance of a service that is followed is in",
            ),
        ] {
            let losses = ["web/1", text].map(|text| text.parse().unwrap());
            let told = unknown(&view, &losses).unwrap();
            assert_eq!((told.error.as_str(), told.hint.as_str()), (error, hint), "{text}");
        }
    }

    #[test]
    fn losses_are_read_and_written_alike() {
        for (text, written) in [
            ("zone=a", "zone=a"),
            ("node=n 1", "node=n 1"),
            ("web/3", "web.default/3"),
            ("web.shop/web-1", "web.shop/web-1"),
            ("process=web/3", "process=web.default/3"),
            ("process=web.shop/web-1", "process=web.shop/web-1"),
            ("ensemble", "ensemble"),
        ] {
            assert_eq!(text.parse::<Loss>().unwrap().to_string(), written);
        }
        let bad = [
            "",
            "zone=",
            "rack=1",
            "web",
            "web/0",
            "web/",
            "Web/1",
            "/1",
            "a.b.c/1",
            "process=",
            "process=web",
        ];
        for bad in bad {
            assert!(bad.parse::<Loss>().is_err(), "{bad}");
        }
    }

    fn played(view: &View, losses: &[&str]) -> Vec<Rehearsal> {
        let losses: Vec<_> = losses.iter().map(|text| text.parse().unwrap()).collect();
        rehearse(view, &BrakePlan::default(), &losses, clock::now())
    }

    fn ids(answer: &Answer) -> Vec<&str> {
        answer.offered.iter().map(|offer| offer.id.as_str()).collect()
    }

    /// An instance's id, zone and priority.
    type Row<'a> = (&'a str, &'a str, u16);

    fn view(services: &[(&str, &[Row<'_>])]) -> View {
        let label = |text: &str| Label::parse(text).unwrap();
        let services = services.iter().map(|(name, instances)| {
            let key = ServiceKey { namespace: label("default"), name: label(name) };
            let instances = instances.iter().enumerate().map(|(index, (id, zone, priority))| {
                let text = format!(
                    r#"{{"v":1,"addresses":["10.0.0.{index}"],"ports":[{{"name":"http","port":80}}],"status":"up","zone":"{zone}","priority":{priority}}}"#
                );
                let record = Record::decode(text.as_bytes()).unwrap();
                Arc::new(Instance::new(label(id), record, Zxid::ZERO, SessionId(1)))
            });
            Arc::new(Service { instances: instances.collect(), ..Service::new(key) })
        });
        View { services: services.collect(), is_loaded: true, ..View::default() }
    }
}

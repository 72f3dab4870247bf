//! What a walk finds that the view does not show. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::{ReadOutcome, Walk, WalkedInstances, WalkedService};
use crate::registry::layout::Place;
use crate::registry::name::ServiceKey;
use crate::registry::record::Record;
use crate::registry::view::{Service, ServiceSettings, Standing, View};

/// Services that `walk` found by name and `view` does not show.
pub(super) fn unknown(view: &View, walk: &Walk) -> Vec<Place> {
    let unknown = walk.names.iter().filter(|key| !view.services.contains_key(key));
    unknown.cloned().map(Place::Service).collect()
}

/// Services that `view` shows and `walk` did not find. One whose instances are held has gone before, and that was told.
pub(super) fn gone(view: &View, walk: &Walk) -> Vec<Place> {
    let is_gone = |(key, service): &(&ServiceKey, &Arc<Service>)| {
        let is_held = service.instances.iter().any(|instance| instance.standing != Standing::Registered);
        !is_held && !walk.has(key) && !walk.refused.contains_key(&key.namespace)
    };
    view.services.iter().filter(is_gone).map(|(key, _)| Place::Service(key.clone())).collect()
}

/// Where `view` differs from what a walk found. What cannot be read or understood is no difference.
pub(super) fn differences(view: &View, walked: &BTreeMap<ServiceKey, WalkedService>) -> Vec<Place> {
    let mut places = Vec::new();
    for (key, walked) in walked {
        let ReadOutcome::Found { data, .. } = &walked.znode else { continue };
        if matches!(walked.instances, WalkedInstances::Taken) {
            continue;
        }
        let Some(known) = view.services.get(key) else {
            places.push(Place::Service(key.clone()));
            continue;
        };
        let settings = ServiceSettings::read(data.as_deref().unwrap_or_default());
        if settings.is_ok_and(|settings| settings != known.settings) {
            places.push(Place::Service(key.clone()));
        }
        if let WalkedInstances::Read(instances) = &walked.instances {
            let known_ids = known.instances.iter().filter(|it| it.standing == Standing::Registered);
            let gone = known_ids.filter(|instance| !instances.contains_key(&instance.id));
            places.extend(gone.map(|instance| Place::Instance(key.clone(), instance.id.clone())));
            let differing = instances.iter().filter(|(id, outcome)| differs(known, id.as_str(), outcome));
            places.extend(differing.map(|(id, _)| Place::Instance(key.clone(), id.clone())));
        }
    }
    places
}

fn differs(known: &Service, id: &str, outcome: &ReadOutcome) -> bool {
    let ReadOutcome::Found { data, stat } = outcome else { return false };
    let is_known = known.instance(id).is_some_and(|known| {
        // Whoever is held is so until its record is back.
        known.standing != Standing::Registered || known.mzxid == stat.mzxid
    });
    !is_known && Record::decode(data.as_deref().unwrap_or_default()).is_ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{SessionId, Zxid};
    use crate::registry::{Instance, Label};
    use crate::znode::{OpError, Stat};

    const RECORD: &str =
        r#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;

    #[test]
    fn what_is_as_it_is_shown_is_no_difference() {
        assert!(differences(&view(), &walk().services).is_empty());
        assert!(gone(&view(), &walk()).is_empty());
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let place = |id| Place::Instance(key("web"), label(id));
        let mut missing = walk();
        read(&mut missing).remove(&label("a"));
        assert_eq!(differences(&view(), &missing.services), [place("a")]);
        let mut more = walk();
        read(&mut more).insert(label("c"), found(RECORD, 9));
        assert_eq!(differences(&view(), &more.services), [place("c")]);
        let mut changed = walk();
        read(&mut changed).insert(label("b"), found(RECORD, 9));
        assert_eq!(differences(&view(), &changed.services), [place("b")]);
        assert_eq!(gone(&view(), &Walk::default()), [Place::Service(key("web"))]);
        assert_eq!(differences(&View::default(), &walk().services), [Place::Service(key("web"))]);
        let mut settings = walk();
        settings.services.get_mut(&key("web")).unwrap().znode = found(r#"{"min_healthy":7}"#, 1);
        assert_eq!(differences(&view(), &settings.services), [Place::Service(key("web"))]);
    }

    #[test]
    fn what_is_not_known_and_who_is_held_are_none() {
        let mut refused = Walk::default();
        refused.refused.insert(label("default"), OpError::NoAuth);
        assert!(gone(&view(), &refused).is_empty());
        let mut odd = walk();
        // One that never was a record, and one that others have overwritten.
        read(&mut odd).insert(label("d"), found("no record", 9));
        read(&mut odd).insert(label("a"), found("no record", 9));
        read(&mut odd).insert(label("e"), ReadOutcome::Refused(OpError::NoAuth));
        assert!(differences(&view(), &odd.services).is_empty());

        let mut held = view();
        let web = Arc::make_mut(held.services.get_mut(&key("web")).unwrap());
        let instance = Instance { standing: Standing::Limbo, ..(*web.instances[0]).clone() };
        web.instances[0] = Arc::new(instance);
        let mut missing = walk();
        read(&mut missing).remove(&label("a"));
        assert!(differences(&held, &missing.services).is_empty());
        assert!(gone(&held, &Walk::default()).is_empty());
    }

    fn view() -> View {
        let instance = |id| {
            let record = Record::decode(RECORD.as_bytes()).unwrap();
            Arc::new(Instance::new(label(id), record, Zxid::from_raw(5), SessionId(1)))
        };
        let service =
            Service { instances: vec![instance("a"), instance("b")].into(), ..Service::new(key("web")) };
        View { services: [Arc::new(service)].into(), is_loaded: true, ..View::default() }
    }

    fn walk() -> Walk {
        let instances = [("a", found(RECORD, 5)), ("b", found(RECORD, 5))];
        let instances = instances.map(|(id, outcome)| (label(id), outcome)).into();
        let znode = ReadOutcome::Found { data: None, stat: Stat::default() };
        let walked = WalkedService { znode, instances: WalkedInstances::Read(instances) };
        Walk { services: BTreeMap::from([(key("web"), walked)]), ..Walk::default() }
    }

    fn read(walk: &mut Walk) -> &mut BTreeMap<Label, ReadOutcome> {
        match &mut walk.services.get_mut(&key("web")).unwrap().instances {
            WalkedInstances::Read(instances) => instances,
            WalkedInstances::Unchanged | WalkedInstances::Taken | WalkedInstances::Refused(_) => {
                unreachable!("it was read")
            }
        }
    }

    fn found(data: &str, mzxid: i64) -> ReadOutcome {
        let stat = Stat { mzxid: Zxid::from_raw(mzxid), ..Stat::default() };
        ReadOutcome::Found { data: Some(Bytes::copy_from_slice(data.as_bytes())), stat }
    }

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: label("default"), name: label(name) }
    }
}

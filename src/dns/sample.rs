//! A small registry for this module's tests.

use std::sync::Arc;

use super::answer::Freshness;
use super::authority::Knowledge;
use super::name::Zone;
use super::{DnsPlan, Handler};
use crate::clock;
use crate::id::{Epoch, SessionId, Zxid};
use crate::registry::{Cache, Instance, Label, Record, Service, ServiceKey, Status, View};
use crate::telemetry::Metrics;

/// A view and how it is read.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) view: View,
    pub(crate) freshness: Freshness,
    pub(crate) plan: DnsPlan,
}

/// `web.default` with two primaries and a standby, `empty.shop` with nobody; the own namespace is `default`.
pub(crate) fn web() -> Sample {
    let mut sample = Sample::never_loaded();
    sample.view.is_loaded = true;
    sample.view.zxid = Zxid::new(Epoch(1), 7);
    let metrics = r#",{"name":"metrics","port":9090,"protocol":"udp"}"#;
    sample.add(
        "default",
        "web",
        &[
            ("web-1", r#""10.0.0.1","fd00::1""#, metrics, 0, 1),
            ("web-2", r#""10.0.0.2""#, "", 0, 3),
            ("web-3", r#""10.0.0.3""#, "", 10, 1),
        ],
    );
    sample.add("shop", "empty", &[]);
    sample
}

/// One service `big.default` with this many instances.
pub(crate) fn big(instances: usize) -> Sample {
    let mut sample = web();
    let ids: Vec<String> = (0..instances).map(|index| format!("big-{index}")).collect();
    let addresses: Vec<String> =
        (0..instances).map(|index| format!(r#""10.1.{}.{}""#, index / 256, index % 256)).collect();
    let rows: Vec<_> =
        ids.iter().zip(&addresses).map(|(id, address)| (id.as_str(), address.as_str(), "", 0, 1)).collect();
    sample.add("default", "big", &rows);
    sample
}

impl Sample {
    pub(crate) fn never_loaded() -> Self {
        let zone = Zone::parse("rollcall.internal", label("default")).expect("a zone");
        Self { view: View::default(), freshness: Freshness::Current, plan: DnsPlan::of_zone(zone) }
    }

    pub(crate) fn knowledge(&self) -> Knowledge<'_> {
        Knowledge {
            view: &self.view,
            freshness: self.freshness,
            zone: &self.plan.zone,
            consul: self.plan.consul.as_ref(),
            ttls: self.plan.ttls,
        }
    }

    /// A handler that answers from this view.
    pub(crate) fn into_handler(self) -> Arc<Handler> {
        Arc::new(self.into_handler_and_cache().0)
    }

    /// The same, and where it has the view from.
    pub(crate) fn into_handler_and_cache(self) -> (Handler, Arc<Cache>) {
        let cache = Arc::new(Cache::new(clock::now()));
        cache.publish(self.view);
        cache.set_synced(self.freshness == Freshness::Current);
        let metrics = Arc::new(Metrics::new());
        (Handler::new(Arc::clone(&cache), self.plan, metrics), cache)
    }

    /// The same view, of which of this service the name alone is known.
    pub(crate) fn unfollowed(mut self, name: &str) -> Self {
        let service = Arc::make_mut(self.service(name));
        (service.is_followed, service.instances) = (false, crate::registry::Instances::new());
        self
    }

    /// One more service of the namespace `default`, with one instance.
    pub(crate) fn service_with_one(&mut self, name: &str) {
        self.add("default", name, &[("one", r#""10.2.0.1""#, "", 0, 1)]);
    }

    fn add(&mut self, namespace: &str, name: &str, rows: &[(&str, &str, &str, u16, u16)]) {
        let key = ServiceKey { namespace: label(namespace), name: label(name) };
        let mut instances: Vec<_> = rows.iter().map(|row| Arc::new(instance(row))).collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let zxid = self.view.zxid;
        let service =
            Service { instances: instances.into(), zxid, children_zxid: zxid, ..Service::new(key.clone()) };
        self.view.services.insert(Arc::new(service));
    }

    /// The service of that name in whatever namespace.
    pub(crate) fn service(&mut self, name: &str) -> &mut Arc<Service> {
        let found = self.view.services.values_mut().find(|service| service.key.name.as_str() == name);
        found.expect("the sample has it")
    }

    pub(crate) fn instance(&mut self, service: &str, id: &str) -> Edit<'_> {
        let service = Arc::make_mut(self.service(service));
        let instance = service.instances.iter_mut().find(|instance| instance.id.as_str() == id);
        Edit(&mut Arc::make_mut(instance.expect("the sample has it")).record)
    }
}

/// Changes to one record.
pub(crate) struct Edit<'a>(&'a mut Record);

impl Edit<'_> {
    pub(crate) fn status(self, status: Status) {
        self.0.status = status;
    }

    pub(crate) fn zone(self, zone: &str) {
        self.0.zone = Some(zone.to_owned());
    }

    pub(crate) fn tags(self, tags: &[&str]) -> Self {
        self.0.tags = tags.iter().map(|tag| label(tag)).collect();
        self
    }

    pub(crate) fn effective_priority(self, priority: u16) {
        self.0.effective_priority = Some(priority);
    }

    pub(crate) fn addresses(self, addresses: &[&str]) {
        self.0.addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    }
}

fn instance((id, addresses, more_ports, priority, weight): &(&str, &str, &str, u16, u16)) -> Instance {
    let json = format!(
        r#"{{"v":1,"addresses":[{addresses}],"ports":[{{"name":"http","port":8080}}{more_ports}],
            "status":"up","weight":{weight},"priority":{priority}}}"#
    );
    let record = Record::decode(json.as_bytes()).expect("a record");
    Instance::new(label(id), record, Zxid::ZERO, SessionId::NONE)
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

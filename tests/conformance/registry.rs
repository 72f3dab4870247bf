//! What the server under test knows: services and instances, written down as their records are.

use std::sync::Arc;

use rollcall::id::{Epoch, SessionId, Zxid};
use rollcall::registry::{Instance, Label, Record, Service, ServiceKey, ServiceSettings, View};
use serde_json::{Value, json};

/// A view under construction.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    view: View,
}

/// One instance under construction: up, with one port, `http` on 8080, unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    id: String,
    record: Value,
}

/// An instance with an address.
pub(crate) fn member(id: &str, address: &str) -> Member {
    let record = json!({
        "v": 1, "addresses": [address], "ports": [{"name": "http", "port": 8080}], "status": "up",
    });
    Member { id: id.to_owned(), record }
}

impl Member {
    /// The same with further keys, or others, of its record.
    pub(crate) fn with(mut self, more: Value) -> Self {
        let Value::Object(more) = more else { panic!("no object: {more}") };
        self.record.as_object_mut().expect("a record is an object").extend(more);
        self
    }

    pub(crate) fn weight(self, weight: u16) -> Self {
        self.with(json!({ "weight": weight }))
    }

    fn instance(&self) -> Instance {
        let record = Record::decode(self.record.to_string().as_bytes()).expect("a record");
        Instance::new(label(&self.id), record, Zxid::ZERO, SessionId::NONE)
    }
}

impl Registry {
    /// One that was read, and is empty.
    pub(crate) fn new() -> Self {
        Self { view: View { is_loaded: true, zxid: Zxid::new(Epoch(1), 7), ..View::default() } }
    }

    /// The one that most tests ask about: in the namespace `shop` the services `web` (two primaries and a standby), `empty` (with nobody)
    /// and `down` (whose only instance fails its checks); in `data` the service `db`.
    pub(crate) fn shop() -> Self {
        let ports =
            json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090, "protocol": "udp"}]);
        let web = [
            member("web-1", "10.0.0.1").with(json!({
                "addresses": ["10.0.0.1", "fd00::1"], "ports": ports, "zone": "eu-1a", "node": "host-1", "tags": ["blue"],
                "meta": {"version": "1.2"},
            })),
            member("web-2", "10.0.0.2").with(json!({"zone": "eu-1b", "tags": ["green"], "weight": 3})),
            member("web-3", "10.0.0.3").with(json!({"zone": "eu-1a", "tags": ["blue"], "priority": 10})),
        ];
        let down = member("down-1", "10.0.1.1").with(json!({"status": "failing"}));
        let db = member("db-1", "10.0.2.1").with(json!({"ports": [{"name": "pg", "port": 5432}]}));
        Self::new()
            .service("shop", "web", &web)
            .service("shop", "empty", &[])
            .service("shop", "down", &[down])
            .service("data", "db", &[db])
    }

    /// With one service more, `many.shop`, of so many instances with an IPv4 address each.
    pub(crate) fn many(instances: u16) -> Self {
        let members: Vec<_> = (0..instances)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                member(&format!("many-{number}"), &format!("10.1.{high}.{low}"))
            })
            .collect();
        Self::shop().service("shop", "many", &members)
    }

    pub(crate) fn service(self, namespace: &str, name: &str, members: &[Member]) -> Self {
        self.service_with(namespace, name, members, ServiceSettings::default())
    }

    pub(crate) fn service_with(
        mut self,
        namespace: &str,
        name: &str,
        members: &[Member],
        settings: ServiceSettings,
    ) -> Self {
        let key = key(namespace, name);
        let mut instances: Vec<_> = members.iter().map(|member| Arc::new(member.instance())).collect();
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let service = Service { instances: instances.into(), settings, ..Service::new(key.clone()) };
        self.view.services.insert(Arc::new(service));
        self
    }

    /// With the name of this service alone, as where what is looked up is followed.
    pub(crate) fn name_alone(mut self, namespace: &str, name: &str) -> Self {
        let key = key(namespace, name);
        let service = Service { is_followed: false, ..Service::new(key.clone()) };
        self.view.services.insert(Arc::new(service));
        self
    }

    pub(crate) fn into_view(self) -> View {
        self.view
    }
}

pub(crate) fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: label(namespace), name: label(name) }
}

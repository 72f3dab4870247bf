//! A small view for this module's tests.

use std::sync::Arc;

use crate::id::{Epoch, SessionId, Zxid};
use crate::registry::{Instance, Label, Record, Service, ServiceKey, View};

/// `web.default` with three instances, of which one is draining and one a standby, and `empty.shop`.
pub(crate) fn view() -> View {
    let zxid = Zxid::new(Epoch(1), 7);
    let mut view = View { zxid, is_loaded: true, ..View::default() };
    let more = r#""weight":5,"zone":"a","tags":["blue"],"meta":{"k":"v"}"#;
    let web = vec![
        instance("web-1", "10.0.0.1", "up", more),
        instance("web-2", "10.0.0.2", "draining", r#""weight":1"#),
        instance("web-3", "10.0.0.3", "up", r#""effective_priority":9"#),
    ];
    for (namespace, name, instances) in [("default", "web", web), ("shop", "empty", Vec::new())] {
        let key = key(namespace, name);
        let service = Service { instances, zxid, children_zxid: zxid, ..Service::new(key.clone()) };
        view.services.insert(key, Arc::new(service));
    }
    view
}

pub(crate) fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: label(namespace), name: label(name) }
}

pub(crate) fn instance(id: &str, address: &str, status: &str, more: &str) -> Arc<Instance> {
    let json = format!(
        r#"{{"v":1,"addresses":["{address}"],"ports":[{{"name":"http","port":8080}}],"status":"{status}",{more}}}"#
    );
    let record = Record::decode(json.as_bytes()).expect("a record");
    Arc::new(Instance::new(label(id), record, Zxid::ZERO, SessionId::NONE))
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

//! A small view and a sidecar's status for this module's tests.

use std::sync::Arc;
use std::time::Duration;

use super::sidecar_status::{
    ConnectionState, ConnectionStatus, SettingsStatus, SidecarStatus, StateDirStatus,
};
use crate::id::{Epoch, SessionId, Zxid};
use crate::registry::check::{CheckKind, CheckStanding, HealthState, LastFailure};
use crate::registry::{
    Instance, Label, OwnCheck, OwnInstance, OwnStatus, Record, RegistrationState, Service, ServiceKey,
    Status, View,
};

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
        let service =
            Service { instances: instances.into(), zxid, children_zxid: zxid, ..Service::new(key.clone()) };
        view.services.insert(Arc::new(service));
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

/// A sidecar with `web-1` of [`view`].
pub(crate) fn status() -> SidecarStatus {
    let last_failure = LastFailure { text: "no answer within 5 ms".to_owned(), at_ms: 4 };
    let standing = CheckStanding {
        state: HealthState::Passing,
        changed_at_ms: 5,
        passes: 3,
        failures: 0,
        share_percent: 100,
        last_failure: Some(last_failure),
    };
    let check = OwnCheck { name: label("tcp"), kind: CheckKind::Tcp, is_critical: true, standing };
    SidecarStatus {
        uptime: Duration::from_millis(5_012),
        connection: ConnectionStatus {
            state: ConnectionState::Connected,
            server: Some("127.0.0.1:2181".to_owned()),
            session: Some(SessionId(7)),
            session_timeout: Some(Duration::from_secs(10)),
            proof_age: Some(Duration::from_millis(12)),
            last_failure: None,
        },
        saved_at_ms: Some(9),
        state_dir: Some(StateDirStatus {
            folder: "state".to_owned(),
            losses: 1,
            trouble: Some("another has it".to_owned()),
        }),
        settings: Some(SettingsStatus {
            file: "sidecar.yaml".to_owned(),
            loaded_at_ms: 8,
            rejected: Some("1:1: colour: unknown key".to_owned()),
            restart_needed: vec!["root".to_owned()],
        }),
        instances: vec![OwnStatus { instance: own(), checks: vec![check] }],
    }
}

pub(crate) fn own() -> OwnInstance {
    OwnInstance {
        service: key("default", "web"),
        id: label("web-1"),
        health: HealthState::Passing,
        is_degraded: false,
        registration: RegistrationState::Registered(Status::Up),
        is_held: false,
        is_draining: false,
        maintenance: None,
        is_carried_out: true,
    }
}

fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

//! Small views for this module's tests.

use std::io::{Read, Seek};
use std::sync::Arc;

use super::{Home, Instance, Label, Record, Service, ServiceKey, View};
use crate::id::{SessionId, Zxid};

/// An instance's zone and weight.
pub(super) type Row<'a> = (Option<&'a str>, u16);

/// Services with instances `i00`, `i01` and so on that are up.
pub(super) fn view(services: &[(&str, &[Row<'_>])]) -> View {
    let services = services.iter().map(|(name, rows)| Arc::new(service(name, rows)));
    View { services: services.collect(), is_loaded: true, ..View::default() }
}

/// The same as seen from `zone`, in which `app` is registered.
pub(super) fn view_from(zone: &str, services: &[(&str, &[Row<'_>])]) -> View {
    let mut view = view(services);
    view.settle(Home::new(Some(zone.to_owned()), [key("app")]));
    view
}

pub(super) fn service(name: &str, rows: &[Row<'_>]) -> Service {
    let instances = rows.iter().enumerate().map(|(index, row)| Arc::new(instance(index, *row)));
    Service { instances: instances.collect(), ..Service::new(key(name)) }
}

pub(super) fn instance(index: usize, (zone, weight): Row<'_>) -> Instance {
    let text = br#"{"v":1,"addresses":["10.0.0.1"],"ports":[{"name":"http","port":80}],"status":"up"}"#;
    let record = Record::decode(text).unwrap();
    let record = Record { zone: zone.map(str::to_owned), weight, ..record };
    Instance::new(label(&format!("i{index:02}")), record, Zxid::ZERO, SessionId::NONE)
}

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: label("default"), name: label(name) }
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// What is logged meanwhile.
pub(super) fn logged(act: impl FnOnce()) -> String {
    let mut log = tempfile::tempfile().unwrap();
    let writer = Arc::new(log.try_clone().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    tracing::subscriber::with_default(subscriber, act);
    let mut told = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut told).unwrap();
    told
}

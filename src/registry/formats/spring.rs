//! Spring Cloud Zookeeper: Curator's `ServiceInstance` with a payload of Spring's own class.
//!
//! ```text
//! "payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
//!   "id":"p-1","name":"payments","metadata":{"instance_status":"UP","zone":"a"}}
//! ```
//!
//! `metadata` are texts: the record's `meta`, its zone, and `instance_status`. That is `UP` or `OUT_OF_SERVICE`; none, or an
//! empty one, is up, and what it says beyond those two is not offered.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::curator::Found;
use super::{Format, FormatError, take_texts};
use crate::registry::record::{Record, Status};

/// The payload that is written, in Spring's order.
#[derive(Debug, Serialize)]
pub(super) struct ZookeeperInstance<'a> {
    #[serde(rename = "@class")]
    class: &'static str,
    id: &'a str,
    name: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

impl<'a> ZookeeperInstance<'a> {
    pub(super) fn new(name: &'a str, id: &'a str, record: &'a Record) -> Self {
        let mut metadata: BTreeMap<_, _> = record.meta.iter().collect();
        if let Some(zone) = &record.zone {
            metadata.insert(ZONE_KEY, zone);
        }
        metadata.insert(STATUS_KEY, if record.is_up() { UP } else { OUT_OF_SERVICE });
        Self { class: CLASS, id, name, metadata }
    }
}

const CLASS: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
const ZONE_KEY: &str = "zone";
const STATUS_KEY: &str = "instance_status";
const UP: &str = "UP";
const OUT_OF_SERVICE: &str = "OUT_OF_SERVICE";

pub(super) fn decode(service: &str, name: &str, data: &[u8]) -> Result<Record, FormatError> {
    let mut found = Found::read(service, name, data)?;
    let mut meta = take_metadata(&mut found.rest);
    let mut record = found.into_record(Format::Spring)?;
    let status = match meta.remove(STATUS_KEY).as_deref() {
        None | Some(UP | "") => Status::Up,
        Some(OUT_OF_SERVICE) => Status::Maintenance,
        Some(other) => {
            meta.insert(STATUS_KEY.to_owned(), other.to_owned());
            Status::Unknown
        }
    };
    // An instance that Curator says is disabled stays so.
    if record.is_up() {
        record.status = status;
    }
    record.zone = meta.remove(ZONE_KEY);
    record.meta = meta.into();
    Ok(record)
}

/// The payload's metadata; those of another class are not known, and stay where they are.
fn take_metadata(rest: &mut Map<String, Value>) -> BTreeMap<String, String> {
    let payload = rest.get_mut("payload").and_then(Value::as_object_mut);
    let payload = payload.filter(|payload| payload.get("@class").is_some_and(|class| class == CLASS));
    let metadata = payload.and_then(|payload| payload.get_mut("metadata")).and_then(Value::as_object_mut);
    metadata.map(take_texts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::formats::FormatKind;
    use crate::registry::formats::tests::{id, instance, target};

    #[test]
    fn it_is_written_as_spring_writes_it() {
        let spring = target("/services", FormatKind::Spring { name: "payments".to_owned(), ssl_port: None });
        let record = Record { zone: Some("a".to_owned()), ..instance("10.1.2.3") };
        let znode = spring.znode(&id("p-1"), &record);
        assert_eq!(znode.path(), "/services/payments/p-1");
        let text = String::from_utf8(znode.data).unwrap();
        let payload = concat!(
            r#""payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","#,
            r#""id":"p-1","name":"payments","metadata":{"instance_status":"UP","version":"7","zone":"a"}},"#,
            r#""registrationTimeUTC":"#
        );
        assert!(text.contains(payload), "{text}");
        assert!(
            text.starts_with(r#"{"name":"payments","id":"p-1","address":"10.1.2.3","port":8040,"#),
            "{text}"
        );
    }

    #[test]
    fn the_status_is_up_unless_it_says_otherwise() {
        for (metadata, status) in [
            (r#"{"instance_status":"UP"}"#, Status::Up),
            (r#"{"instance_status":""}"#, Status::Up),
            ("{}", Status::Up),
            ("null", Status::Up),
            (r#"{"instance_status":"OUT_OF_SERVICE"}"#, Status::Maintenance),
            (r#"{"instance_status":"DOWN"}"#, Status::Unknown),
        ] {
            let payload = format!(r#"{{"@class":"{CLASS}","id":"x","metadata":{metadata}}}"#);
            assert_eq!(read(&payload).status, status, "{metadata}");
        }
        assert_eq!(read("null").status, Status::Up);
    }

    #[test]
    fn metadata_are_meta_and_what_is_not_springs_is_kept() {
        let payload = format!(
            r#"{{"@class":"{CLASS}","id":"x","metadata":{{"zone":"a","color":"red","n":1,"instance_status":"ODD"}}}}"#
        );
        let record = read(&payload);
        assert_eq!((record.zone.as_deref(), &record.meta["color"]), (Some("a"), "red"));
        assert_eq!(&record.meta["instance_status"], "ODD", "what is not understood can be looked up");
        let kept = &record.other["spring"]["payload"];
        assert_eq!((&kept["id"], &kept["metadata"]["n"]), (&"x".into(), &1.into()));

        let record = read(r#"{"@class":"a.B","metadata":{"instance_status":"DOWN"}}"#);
        assert_eq!(record.status, Status::Up, "another class has a meaning of its own");
        assert_eq!(record.other["spring"]["payload"]["@class"], "a.B");
    }

    fn read(payload: &str) -> Record {
        let text =
            format!(r#"{{"name":"payments","id":"p-1","address":"10.1.2.3","port":1,"payload":{payload}}}"#);
        Format::Spring.decode("/services/payments/p-1", text.as_bytes()).unwrap()
    }
}

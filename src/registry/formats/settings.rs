//! The settings of the formats that an own service is written in, beside our own.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Format::{self, Curator, Serverset, Spring};
use super::{FormatKind, FormatTarget};
use crate::config::Mistake;
use crate::registry::name::Label;
use crate::registry::record::{Port, Protocol, Record, Status};
use crate::registry::registration::Registration;
use crate::znode::ZnodePath;

/// Formats of one service: more is a mistake.
const FORMATS_MAX: usize = 16;
/// Bytes of the longest payload of Curator's, so that the instance is no longer than a record.
const PAYLOAD_BYTES_MAX: usize = 4 * 1024;
/// Where Spring Cloud Zookeeper looks, and what most users of Curator chose, which has no root of its own.
const ROOT: &str = "/services";

/// One format as the settings file has it. Only `format` is required, and `root` where the format has no usual one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FormatSettings {
    /// Which format.
    pub format: Format,
    /// The znode below which it is written. Default: `/services` for `curator` and `spring`, none for the others. Danger: others
    /// write there too.
    #[serde(default)]
    pub root: Option<String>,
    /// `curator` and `spring`: the service's name there, one component of a path. Default: the service's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The name of the TCP port that is meant. Default: the first TCP port.
    #[serde(default)]
    pub port: Option<String>,
    /// `curator` and `spring`: the name of the TCP port that speaks TLS; readers use it instead of the other. Default: none.
    #[serde(default)]
    pub ssl_port: Option<String>,
    /// `curator`: a text that goes with the instance. Default: null. Danger: readers with a class of their own for it fail.
    #[serde(default)]
    pub payload: Option<String>,
    /// `serverset`: which of a job's instances it is. Default: none.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(max = i32::MAX)))]
    pub shard: Option<u32>,
}

/// Decides every setting of `formats`, which stand at `path` in the file (`services[0].formats`), for a service of this name
/// with these ports. `registry` is where our own records are.
pub(in crate::registry) fn resolve_formats(
    formats: &[FormatSettings],
    path: &str,
    service: &str,
    ports: &[Port],
    registry: Option<&ZnodePath>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<FormatTarget> {
    if formats.len() > FORMATS_MAX {
        mistakes.push(Mistake::new(
            path,
            format!("{} formats are more than the {FORMATS_MAX} a service may have", formats.len()),
            "leave some out",
        ));
        return Vec::new();
    }
    let resolve = |(index, settings): (usize, &FormatSettings)| {
        settings.resolve(&format!("{path}[{index}]"), service, ports, registry, mistakes)
    };
    formats.iter().enumerate().filter_map(resolve).collect()
}

/// Refuses formats of the services at `path` that would write over one another, or confuse one another's readers.
pub(in crate::registry) fn refuse_shared_places(
    path: &str,
    registrations: &[(usize, Registration)],
    mistakes: &mut Vec<Mistake>,
) {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut parents: BTreeMap<String, (&str, String)> = BTreeMap::new();
    for (service, registration) in registrations {
        let record = registration.record(Status::Up, "", "", 0);
        for (index, target) in registration.formats.iter().enumerate() {
            let path = format!("{path}[{service}].formats[{index}]");
            let place = target.place(&registration.id, &record);
            if let Some(first) = places.get(&place) {
                mistakes.push(Mistake::new(
                    format!("{path}.root"),
                    format!("{first} is written there, too: {place}"),
                    "give each a root, a name or a port of its own",
                ));
                continue;
            }
            places.insert(place, path.clone());
            for parent in [target.root.as_str().to_owned(), target.parent()] {
                let (family, first) = parents.entry(parent).or_insert((target.family(), path.clone()));
                if *family != target.family() {
                    mistakes.push(Mistake::new(
                        format!("{path}.root"),
                        format!("instances of {first} are there, whose format is {family}"),
                        "give each format a root of its own",
                    ));
                    break;
                }
            }
        }
    }
}

impl FormatTarget {
    /// What tells the instance from others in the same place: its path, or, where that has a number, its endpoint too.
    fn place(&self, id: &Label, record: &Record) -> String {
        let (name, mode) = self.name(id);
        let path = format!("{}/{name}", self.parent());
        if mode.is_sequential() { format!("{path} of {}", self.endpoint(record)) } else { path }
    }

    /// Those whose readers understand one another.
    const fn family(&self) -> &'static str {
        match self.format() {
            Curator | Spring => "curator's",
            Serverset => "serverset",
            Format::Nerve => "nerve",
        }
    }
}

impl FormatSettings {
    fn resolve(
        &self,
        path: &str,
        service: &str,
        ports: &[Port],
        registry: Option<&ZnodePath>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<FormatTarget> {
        self.refuse_keys_of_other_formats(path, mistakes);
        let root = self.resolve_root(path, registry, mistakes);
        let name = self.resolve_name(path, service, mistakes);
        let port = self.resolve_port(path, ports, mistakes);
        let ssl_port = match &self.ssl_port {
            Some(name) => Some(tcp_port(&format!("{path}.ssl_port"), name, ports, mistakes)?),
            None => None,
        };
        if self.payload.as_ref().is_some_and(|payload| payload.len() > PAYLOAD_BYTES_MAX) {
            mistakes.push(Mistake::new(
                format!("{path}.payload"),
                format!("the payload is longer than {PAYLOAD_BYTES_MAX} bytes"),
                "shorten it",
            ));
        }
        if self.shard.is_some_and(|shard| i32::try_from(shard).is_err()) {
            mistakes.push(Mistake::new(
                format!("{path}.shard"),
                "the shard is more than readers can hold",
                format!("write a number up to {}", i32::MAX),
            ));
        }
        let kind = match self.format {
            Curator => FormatKind::Curator { name: name?, ssl_port, payload: self.payload.clone() },
            Spring => FormatKind::Spring { name: name?, ssl_port },
            Serverset => FormatKind::Serverset { shard: self.shard },
            Format::Nerve => FormatKind::Nerve,
        };
        Some(FormatTarget { root: root?, port: port?, kind })
    }

    fn refuse_keys_of_other_formats(&self, path: &str, mistakes: &mut Vec<Mistake>) {
        let keys: [(_, _, &[Format]); 4] = [
            ("name", self.name.is_some(), &[Curator, Spring]),
            ("ssl_port", self.ssl_port.is_some(), &[Curator, Spring]),
            ("payload", self.payload.is_some(), &[Curator]),
            ("shard", self.shard.is_some(), &[Serverset]),
        ];
        for (key, is_given, formats) in keys {
            if !is_given || formats.contains(&self.format) {
                continue;
            }
            let words: Vec<_> = formats.iter().map(|format| format.as_str()).collect();
            mistakes.push(Mistake::new(
                format!("{path}.{key}"),
                format!("the format {} has no {key}", self.format),
                format!("leave {key} out, or use format: {}", words.join(" or ")),
            ));
        }
    }

    fn resolve_root(
        &self,
        path: &str,
        registry: Option<&ZnodePath>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<ZnodePath> {
        let text = match (&self.root, self.format) {
            (Some(text), _) => text.as_str(),
            (None, Curator | Spring) => ROOT,
            (None, Serverset | Format::Nerve) => {
                mistakes.push(Mistake::new(
                    path,
                    format!("the format {} has no root by default", self.format),
                    "set root to the path where its readers look",
                ));
                return None;
            }
        };
        let path = format!("{path}.root");
        let root = match ZnodePath::parse(text) {
            Ok(root) => root,
            Err(error) => {
                let remedy = "write a znode path such as /services";
                mistakes.push(Mistake::new(path, error.to_string(), remedy));
                return None;
            }
        };
        let reserved = ZnodePath::parse("/zookeeper").expect("a path");
        if root.is_root() || root.is_at_or_below(&reserved) {
            mistakes.push(Mistake::new(
                path,
                format!("{root} is ZooKeeper's own"),
                "write a znode path such as /services",
            ));
            return None;
        }
        if registry.is_some_and(|registry| root.is_at_or_below(registry)) {
            mistakes.push(Mistake::new(
                path,
                format!("{root} is in the registry, where only its own records may be"),
                "name a path outside of root",
            ));
            return None;
        }
        Some(root)
    }

    fn resolve_name(&self, path: &str, service: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
        let Some(name) = &self.name else { return Some(service.to_owned()) };
        if let Err(error) = ZnodePath::root().join(name) {
            let remedy = "write one component of a path, without /";
            mistakes.push(Mistake::new(format!("{path}.name"), error.to_string(), remedy));
            return None;
        }
        Some(name.clone())
    }

    fn resolve_port(&self, path: &str, ports: &[Port], mistakes: &mut Vec<Mistake>) -> Option<u16> {
        if let Some(name) = &self.port {
            return tcp_port(&format!("{path}.port"), name, ports, mistakes);
        }
        let first = ports.iter().find(|port| port.protocol == Protocol::Tcp);
        // Without any port at all that is the mistake, and it is reported once.
        if first.is_none() && !ports.is_empty() {
            mistakes.push(Mistake::new(
                path,
                "the service has UDP ports only, which the format cannot tell from TCP ports",
                "add a TCP port, or leave the format out",
            ));
        }
        first.map(|port| port.port)
    }
}

fn tcp_port(path: &str, name: &str, ports: &[Port], mistakes: &mut Vec<Mistake>) -> Option<u16> {
    let tcp = || ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let found = tcp().find(|port| port.name.as_str() == name);
    if found.is_none() {
        let known: Vec<_> = tcp().map(|port| port.name.as_str()).collect();
        let remedy = if known.is_empty() {
            "name the service's port".to_owned()
        } else {
            format!("use {}", known.join(" or "))
        };
        mistakes.push(Mistake::new(path, format!("the service has no TCP port {name:?}"), remedy));
    }
    found.map(|port| port.port)
}

/// Refuses what would be longer in one of its formats than can be read again.
pub(in crate::registry) fn refuse_long(
    path: &str,
    id: &Label,
    record: &Record,
    formats: &[FormatTarget],
    mistakes: &mut Vec<Mistake>,
) {
    for (index, target) in formats.iter().enumerate() {
        let znode = target.znode(id, record);
        if target.format().decode(&znode.path(), &znode.data).is_err() {
            mistakes.push(Mistake::new(
                format!("{path}.formats[{index}]"),
                format!(
                    "its {} bytes would be more than the {} that are read",
                    znode.data.len(),
                    Record::BYTES_MAX
                ),
                "shorten meta, or name fewer ports",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::service::{OwnService, ServiceDefaults, resolve_services};

    #[test]
    fn a_format_is_enough_where_it_has_a_usual_root() {
        let targets = resolve(
            "ports: [{name: dns, port: 53, protocol: udp}, {name: http, port: 80}], formats: [{format: curator}]",
        );
        let targets = targets.unwrap();
        let (name, ssl_port, payload) = ("web".to_owned(), None, None);
        let root = ZnodePath::parse("/services").unwrap();
        let kind = FormatKind::Curator { name, ssl_port, payload };
        assert_eq!(targets, [FormatTarget { root, port: 80, kind }]);
    }

    #[test]
    fn every_key_is_obeyed() {
        let targets = resolve(
            "ports: [{name: http, port: 80}, {name: tls, port: 443}], formats: [
               {format: curator, root: /a, name: Web.App, port: tls, ssl_port: tls, payload: blue},
               {format: spring, root: /b, ssl_port: tls},
               {format: serverset, root: /c, shard: 3},
               {format: nerve, root: /d, port: tls}]",
        )
        .unwrap();
        let kinds: Vec<_> =
            targets.iter().map(|target| (target.root.as_str(), target.port, &target.kind)).collect();
        let ssl_port = Some(443);
        let payload = Some("blue".to_owned());
        assert_eq!(
            kinds,
            [
                ("/a", 443, &FormatKind::Curator { name: "Web.App".to_owned(), ssl_port, payload }),
                ("/b", 80, &FormatKind::Spring { name: "web".to_owned(), ssl_port }),
                ("/c", 80, &FormatKind::Serverset { shard: Some(3) }),
                ("/d", 443, &FormatKind::Nerve),
            ]
        );
    }

    #[test]
    fn every_mistake_is_reported_with_its_path() {
        let mistakes = resolve(
            "port: 80, formats: [{format: serverset}, {format: nerve, root: services, name: x},
               {format: spring, root: /zookeeper/x, payload: x}, {format: curator, root: /rollcall/services/default, shard: 1},
               {format: curator, name: a/b, port: http, ssl_port: tls}, {format: serverset, root: /a, shard: 4294967295}]",
        )
        .unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "services[0].formats[0]",
                "services[0].formats[1].name",
                "services[0].formats[1].root",
                "services[0].formats[2].payload",
                "services[0].formats[2].root",
                "services[0].formats[3].shard",
                "services[0].formats[3].root",
                "services[0].formats[4].name",
                "services[0].formats[4].port",
                "services[0].formats[4].ssl_port",
                "services[0].formats[5].shard",
            ],
            "{mistakes:#?}"
        );
        assert!(mistakes.iter().all(|mistake| !mistake.remedy.is_empty()), "{mistakes:#?}");
    }

    #[test]
    fn a_service_of_udp_ports_has_none_that_a_format_knows() {
        let mistakes =
            resolve("ports: [{name: dns, port: 53, protocol: udp}], checks: [], formats: [{format: spring}]")
                .unwrap_err();
        assert_eq!(mistakes[0].path, "services[0].formats[0]", "{mistakes:?}");
    }

    #[test]
    fn two_that_would_write_over_one_another_are_refused() {
        let twice = |first: &str, second: &str| {
            let text = format!(
                "[{{name: web, id: a, port: 80, formats: [{first}]}}, {{name: web, id: b, port: 81, formats: [{second}]}}]"
            );
            resolve_all(&text).map(|_| ()).map_err(|mistakes| mistakes[0].path.clone())
        };
        let refused = Err("services[1].formats[0].root".to_owned());
        assert_eq!(twice("{format: curator}", "{format: spring}"), Ok(()), "ids of their own");
        assert_eq!(twice("{format: serverset, root: /s}", "{format: serverset, root: /s}"), Ok(()));
        assert_eq!(twice("{format: serverset, root: /s}", "{format: nerve, root: /s}"), refused);
        assert_eq!(twice("{format: curator}", "{format: nerve, root: /services/web}"), refused);
        assert_eq!(twice("{format: nerve, root: /services}", "{format: curator}"), refused);
        let mistakes = resolve("port: 80, formats: [{format: curator}, {format: spring}]").unwrap_err();
        assert_eq!(mistakes[0].path, "services[0].formats[1].root");
        let mistakes = resolve("port: 80, formats: [{format: nerve, root: /n}, {format: nerve, root: /n}]");
        assert!(mistakes.unwrap_err()[0].message.contains("services[0].formats[0]"));
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        let ports: Vec<_> = (1..=300).map(|port| format!("{{name: p{port}, port: {port}}}")).collect();
        let text = format!("ports: [{}], formats: [{{format: serverset, root: /s}}]", ports.join(", "));
        let mistakes = resolve(&text).unwrap_err();
        assert_eq!(mistakes[0].path, "services[0].formats[0]", "{mistakes:?}");
    }

    fn resolve(keys: &str) -> Result<Vec<FormatTarget>, Vec<Mistake>> {
        resolve_all(&format!("[{{name: web, {keys}}}]"))
            .map(|mut registrations| registrations.remove(0).formats)
    }

    fn resolve_all(text: &str) -> Result<Vec<Registration>, Vec<Mistake>> {
        let services: Vec<OwnService> = serde_yaml::from_str(text).unwrap();
        let defaults = ServiceDefaults {
            address: Some("fd00:1234:5678:9abc:def0:1234:5678:9abc".parse().unwrap()),
            host_name: "host".to_owned(),
            registry_root: Some(ZnodePath::parse("/rollcall/services").unwrap()),
            ..ServiceDefaults::default()
        };
        resolve_services(&services, "services", &defaults)
    }
}

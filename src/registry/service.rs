//! The settings of a sidecar's own services, and the registrations that they stand for.
//!
//! [`OwnService`] is what the file says, with nothing decided; [`resolve_services`] checks all of them in one pass and
//! either decides everything or tells every mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;

use super::check::{Check, CheckKind, CheckSettings, resolve_checks};
use super::failback::HELD_PRIORITY;
use super::formats::{FormatSettings, refuse_long, refuse_shared_places, resolve_formats};
use super::host_address::host_address;
use super::name::{Label, ServiceKey};
use super::record::{Port, Protocol, Record, Status};
use super::registration::Registration;
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar};
use crate::znode::ZnodePath;

/// One own service as the settings file has it. Only `name` and a port are required.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(extend("anyOf" = [{"required": ["port"]}, {"required": ["ports"]}])))]
#[serde(deny_unknown_fields)]
pub struct OwnService {
    /// The service's name, a DNS label.
    #[cfg_attr(test, schemars(with = "schema::Label"))]
    pub name: String,
    /// The namespace it is in, a DNS label. Default: that of the sidecar.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub namespace: Option<String>,
    /// The instance's id, a DNS label, unique within the service; none of `primary`, `standby`, `all`, `tag` and `az`. Default: host name,
    /// hyphen, default port. Danger: two sidecars with one id hinder each other.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Label>"))]
    pub id: Option<String>,
    /// The only address it is reached at; instead of `addresses`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::IpAddress>"))]
    pub address: Option<Scalar>,
    /// The IPv4 and IPv6 addresses it is reached at. Default: the sidecar's own (`rollcall dev`: 127.0.0.1).
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<schema::IpAddress>"))]
    pub addresses: Vec<Scalar>,
    /// The only port, which is named `default` and speaks TCP; instead of `ports`.
    #[serde(default)]
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub port: Option<u16>,
    /// What it listens on; the first is the default port.
    #[serde(default)]
    pub ports: Vec<PortSettings>,
    /// Its share of traffic among equals; 0 means only when nothing else is there. Default: 1.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Its share of traffic while a check that is not critical fails; at most the weight. Default: 1, or 0 if the weight is 0.
    #[serde(default)]
    pub degraded_weight: Option<u16>,
    /// The least that a load which a check reports leaves of the weight; at most the weight. Default: a tenth of it, and at least 1 if it is.
    /// Danger: 0 makes an instance that says it is full one that is used only when nothing else is there.
    #[serde(default)]
    pub load_weight_min: Option<u16>,
    /// Its tier, lower is preferred: 0 for primaries, more for standbys. Default: 0.
    #[serde(default)]
    pub priority: Option<u16>,
    /// Its failure domain. Default: the sidecar's own.
    #[serde(default)]
    pub zone: Option<String>,
    /// The machine it runs on. Default: the sidecar's own.
    #[serde(default)]
    pub node: Option<String>,
    /// DNS labels that lookups can filter by.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<schema::Label>"))]
    pub tags: Vec<String>,
    /// Anything else about it.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// All of them must pass, but for those that are not critical. Default: a TCP connect to the first TCP port. Danger: an empty list offers the instance
    /// unchecked.
    #[serde(default)]
    pub checks: Option<Vec<CheckSettings>>,
    /// Formats of other systems that it is written in while it is up, beside our own, at most 16. Default: none.
    #[serde(default)]
    pub formats: Vec<FormatSettings>,
}

/// One port as the settings file has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PortSettings {
    /// What it is called, a DNS label, as in `_http._tcp`.
    #[cfg_attr(test, schemars(with = "schema::Label"))]
    pub name: String,
    /// The number, 1 to 65535.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub port: u16,
    /// How it is spoken to. Default: `tcp`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// What the sidecar knows about itself, for what a service leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceDefaults {
    /// The pod's address; without one every service must give its own.
    pub address: Option<IpAddr>,
    /// The host's name, which instance ids are made of.
    pub host_name: String,
    /// The failure domain.
    pub zone: Option<String>,
    /// The machine.
    pub node: Option<String>,
    /// Where the registry lies, so that nothing else is written there.
    pub registry_root: Option<ZnodePath>,
}

/// Decides every setting of `services`, which stand at `path` in the file (`services`).
///
/// # Errors
///
/// Every mistake in them, with paths such as `services[0].checks[1].interval`.
pub fn resolve_services(
    services: &[OwnService],
    path: &str,
    defaults: &ServiceDefaults,
) -> Result<Vec<Registration>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut seen = BTreeMap::new();
    let mut registrations = Vec::with_capacity(services.len());
    for (index, settings) in services.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(registration) = settings.resolve(&path, defaults, &mut mistakes) else { continue };
        let name = (registration.service.clone(), registration.id.clone());
        if let Some(first) = seen.get(&name) {
            mistakes.push(Mistake::new(
                format!("{path}.id"),
                format!("{} has the id {} twice, first in {first}", name.0, name.1),
                "give each instance of a service an id of its own",
            ));
        } else {
            seen.insert(name, path);
        }
        registrations.push((index, registration));
    }
    refuse_shared_places(path, &registrations, &mut mistakes);
    let registrations = registrations.into_iter().map(|(_, registration)| registration).collect();
    if mistakes.is_empty() { Ok(registrations) } else { Err(mistakes) }
}

impl OwnService {
    fn resolve(
        &self,
        path: &str,
        defaults: &ServiceDefaults,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Registration> {
        let before = mistakes.len();
        let service = self.resolve_key(path, mistakes);
        let addresses = self.resolve_addresses(path, defaults, mistakes);
        let ports = self.resolve_ports(path, mistakes);
        let id = self.resolve_id(path, defaults, ports.first(), mistakes);
        let (weight, degraded_weight, load_weight_min) = self.resolve_weights(path, mistakes);
        let tags = self.resolve_tags(path, mistakes);
        for (key, text) in [("zone", &self.zone), ("node", &self.node)] {
            if text.as_deref() == Some("") {
                mistakes.push(Mistake::new(
                    format!("{path}.{key}"),
                    format!("the {key} is empty"),
                    format!("name it, or leave {key} out"),
                ));
            }
        }
        let first_tcp = ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
        let checks =
            self.resolve_checks(path, addresses.first().copied(), first_tcp, !ports.is_empty(), mistakes);
        let formats = resolve_formats(
            &self.formats,
            &format!("{path}.formats"),
            &self.name,
            &ports,
            defaults.registry_root.as_ref(),
            mistakes,
        );
        if mistakes.len() > before {
            return None;
        }
        let registration = Registration {
            service: service?,
            id: id?,
            addresses,
            ports,
            weight,
            degraded_weight,
            load_weight_min,
            priority: self.priority.unwrap_or(0),
            zone: self.zone.clone().or_else(|| defaults.zone.clone()),
            node: self.node.clone().or_else(|| defaults.node.clone()),
            tags,
            meta: self.meta.clone(),
            checks,
            formats,
        };
        if registration.record_bytes_max() > Record::BYTES_MAX {
            mistakes.push(Mistake::new(
                path,
                format!(
                    "its record would have {} bytes, more than the {} a record may have",
                    registration.record_bytes_max(),
                    Record::BYTES_MAX
                ),
                "shorten meta or tags",
            ));
            return None;
        }
        let record = Record {
            effective_priority: Some(HELD_PRIORITY),
            ..registration.record(Status::Up, "", "", i64::MAX)
        };
        refuse_long(path, &registration.id, &record, &registration.formats, mistakes);
        Some(registration)
    }

    fn resolve_key(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<ServiceKey> {
        let name = resolve_label(&format!("{path}.name"), &self.name, mistakes);
        let namespace = self.namespace.as_deref().unwrap_or(ServiceKey::NAMESPACE_DEFAULT);
        let namespace = resolve_label(&format!("{path}.namespace"), namespace, mistakes);
        for (key, label) in [("name", &name), ("namespace", &namespace)] {
            mistakes.extend(label.as_ref().and_then(|label| reserved(&format!("{path}.{key}"), label)));
        }
        Some(ServiceKey { namespace: namespace?, name: name? })
    }

    fn resolve_addresses(
        &self,
        path: &str,
        defaults: &ServiceDefaults,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<IpAddr> {
        if self.address.is_some() && !self.addresses.is_empty() {
            mistakes.push(Mistake::new(
                format!("{path}.address"),
                "both address and addresses are given",
                "keep one of them",
            ));
        }
        let one = self.address.iter().map(|text| (format!("{path}.address"), text));
        let many = self.addresses.iter().enumerate();
        let many = many.map(|(index, text)| (format!("{path}.addresses[{index}]"), text));
        let given: Vec<_> = one.chain(many).collect();
        if given.is_empty() {
            if defaults.address.is_none() {
                mistakes.push(Mistake::new(
                    path,
                    "the service has no address, and the sidecar does not know its own",
                    "set address to where other pods reach it",
                ));
            }
            return defaults.address.into_iter().collect();
        }
        let mut addresses = Vec::new();
        for (path, text) in given {
            match text.0.parse::<IpAddr>().map(|address| (address, host_address(address))) {
                Ok((address, None)) => {
                    mistakes.push(Mistake::new(
                        path,
                        format!("nobody can connect to {address}"),
                        "give the address of one host",
                    ));
                }
                Ok((_, Some(address))) if addresses.contains(&address) => {
                    mistakes.push(Mistake::new(path, format!("{address} is given twice"), "keep one"));
                }
                Ok((_, Some(address))) => addresses.push(address),
                Err(_) => mistakes.push(Mistake::new(
                    path,
                    format!("{:?} is not an IP address", text.0),
                    "write an IPv4 or IPv6 address; host names are not resolved",
                )),
            }
        }
        addresses
    }

    fn resolve_ports(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Vec<Port> {
        if self.port.is_some() && !self.ports.is_empty() {
            mistakes.push(Mistake::new(
                format!("{path}.port"),
                "both port and ports are given",
                "keep one of them",
            ));
        }
        if self.port.is_none() && self.ports.is_empty() {
            mistakes.push(Mistake::new(path, "the service has no port", "set port to what it listens on"));
        }
        let mut ports = Vec::new();
        if let Some(port) = self.port {
            refuse_port_0(&format!("{path}.port"), port, mistakes);
            let name = Label::parse("default").expect("a label");
            ports.push(Port { name, port, protocol: Protocol::Tcp });
        }
        let mut names = BTreeSet::new();
        for (index, settings) in self.ports.iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            refuse_port_0(&format!("{path}.port"), settings.port, mistakes);
            let name = resolve_label(&format!("{path}.name"), &settings.name, mistakes);
            let Some(name) = name else { continue };
            if !names.insert((name.clone(), settings.protocol)) {
                mistakes.push(Mistake::new(
                    format!("{path}.name"),
                    format!("the name {name} is given to two ports"),
                    "give each port a name of its own",
                ));
            }
            ports.push(Port { name, port: settings.port, protocol: settings.protocol });
        }
        ports
    }

    fn resolve_id(
        &self,
        path: &str,
        defaults: &ServiceDefaults,
        default_port: Option<&Port>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Label> {
        let Some(id) = &self.id else {
            return default_port.map(|port| default_id(&defaults.host_name, port.port));
        };
        let path = format!("{path}.id");
        let id = resolve_label(&path, id, mistakes)?;
        // Its own DNS name would mean some of the service's instances, or none.
        mistakes.extend(reserved(&path, &id));
        Some(id)
    }

    fn resolve_weights(&self, path: &str, mistakes: &mut Vec<Mistake>) -> (u16, u16, u16) {
        let weight = self.weight.unwrap_or(1);
        let degraded = self.degraded_weight.unwrap_or(weight.min(1));
        let load_min = self.load_weight_min.unwrap_or((weight / 10).max(weight.min(1)));
        for (key, what, lower) in [
            ("degraded_weight", "the degraded weight", degraded),
            ("load_weight_min", "the least weight under load", load_min),
        ] {
            if lower > weight {
                mistakes.push(Mistake::new(
                    format!("{path}.{key}"),
                    format!("{what}, {lower}, is more than the weight, {weight}"),
                    "make it at most the weight",
                ));
            }
        }
        (weight, degraded, load_min)
    }

    fn resolve_tags(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Vec<Label> {
        let mut tags = Vec::new();
        for (index, text) in self.tags.iter().enumerate() {
            let path = format!("{path}.tags[{index}]");
            let Some(tag) = resolve_label(&path, text, mistakes) else { continue };
            if tags.contains(&tag) {
                mistakes.push(Mistake::new(path, format!("the tag {tag} is given twice"), "keep one"));
            } else {
                tags.push(tag);
            }
        }
        tags
    }

    fn resolve_checks(
        &self,
        path: &str,
        address: Option<IpAddr>,
        first_tcp: Option<u16>,
        has_port: bool,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Check> {
        let Some(checks) = &self.checks else {
            if has_port && first_tcp.is_none() {
                mistakes.push(Mistake::new(
                    path,
                    "the service has UDP ports only, which cannot be checked by default",
                    "add a check of a TCP port, or set checks: [] to offer it unchecked",
                ));
            }
            let default = [CheckSettings::new(CheckKind::Tcp)];
            return resolve_checks(&default, path, address, first_tcp.or(Some(0)), mistakes);
        };
        // Without any port at all that is the mistake, and it is reported once.
        let port = if has_port { first_tcp } else { Some(0) };
        resolve_checks(checks, &format!("{path}.checks"), address, port, mistakes)
    }
}

/// The id of an instance that has none in the settings: what the host's name has of a label, and the port.
fn default_id(host_name: &str, port: u16) -> Label {
    let port = port.to_string();
    let first = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_inner = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let host: String =
        first.chars().map(|character| if is_inner(character) { character } else { '-' }).collect();
    let room = Label::BYTES_MAX - port.len() - 1;
    let host = host.trim_matches('-');
    let host = host[..host.len().min(room)].trim_end_matches('-');
    let id = if host.is_empty() { port } else { format!("{host}-{port}") };
    Label::parse(&id).expect("made of letters, digits and inner hyphens, with room for all")
}

/// The mistake, at `path`, of calling a namespace, service or instance by a name that has a meaning of its own.
pub fn reserved(path: &str, label: &Label) -> Option<Mistake> {
    ServiceKey::RESERVED.contains(&label.as_str()).then(|| {
        Mistake::new(
            path,
            format!("{label} has a meaning of its own in DNS names"),
            format!("use a name other than {}", ServiceKey::RESERVED.join(", ")),
        )
    })
}

fn resolve_label(path: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Option<Label> {
    let label = Label::parse(text);
    if label.is_err() {
        mistakes.push(Mistake::new(
            path,
            format!("{text:?} is not a DNS label"),
            "use 1 to 63 of a-z, 0-9 and inner hyphens",
        ));
    }
    label.ok()
}

fn refuse_port_0(path: &str, port: u16, mistakes: &mut Vec<Mistake>) {
    if port == 0 {
        mistakes.push(Mistake::new(path, "0 is not a port", "give the port the application listens on"));
    }
}

#[cfg(test)]
mod tests;

//! `rollcall service`: the settings in services' znodes, which every reader obeys.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arguments::{ServiceArguments, ServiceChange, ServiceCommand};
use super::failure::Failure;
use super::output::{Format, note, print, printable, table};
use super::session;
use crate::client::{Client, ClientError};
use crate::config::{duration, nearest_word};
use crate::registry::{
    DamagedSettings, FailbackMode, Label, Layout, ServiceKey, ServiceSettings, stored_settings,
};
use crate::znode::OpError;

/// The settings by the names that they are stored under.
const SETTINGS: [&str; 6] =
    ["min_healthy", "failback", "failback_after_s", "dns_ttl_s", "brake", "prefer_zone"];
/// Times that a change is made anew because somebody else changed the settings between reading and writing.
const ROUNDS_MAX: u32 = 5;

/// Carries out one command in a session of its own.
pub(super) async fn run(arguments: ServiceArguments) -> Result<(), Failure> {
    let layout = Layout::new(&arguments.root).map_err(|error| {
        Failure::usage(format!("{error}; write a znode path such as {} with --root", Layout::ROOT))
    })?;
    if let ServiceCommand::Set { name, .. } = &arguments.command
        && name.0.is_reserved()
    {
        let text = format!("{} has a word with a meaning of its own in DNS names; use another", name.0);
        return Err(Failure::usage(text));
    }
    let client = session::open(&arguments.ensemble.server)?;
    let registry = Registry { client: &client, layout: &layout, servers: &arguments.ensemble.server };
    let done = match &arguments.command {
        ServiceCommand::Get { name, output } => registry.get(&name.0, output.output).await,
        ServiceCommand::Set { name, create, change } => registry.set(&name.0, *create, change).await,
        ServiceCommand::Prune { names } => {
            let names: Vec<_> = names.iter().map(|name| name.0.clone()).collect();
            registry.prune(&names).await
        }
    };
    session::close(client, done).await
}

struct Registry<'a> {
    client: &'a Client,
    layout: &'a Layout,
    servers: &'a str,
}

impl Registry<'_> {
    async fn get(&self, service: &ServiceKey, format: Format) -> Result<(), Failure> {
        let Some((stored, _)) = self.read(service).await? else {
            return Err(self
                .not_there(service, "`rollcall services` lists those that a sidecar knows")
                .await?);
        };
        self.show(service, &stored, format)
    }

    async fn set(&self, service: &ServiceKey, create: bool, change: &ServiceChange) -> Result<(), Failure> {
        for _round in 0..ROUNDS_MAX {
            let found = self.read(service).await?;
            let version = found.as_ref().map(|(_, version)| *version);
            let mut settings = found.map_or_else(Map::new, |(settings, _)| settings);
            apply(change, &mut settings)?;
            if version.is_none() && !create {
                let advice = "--create makes it, for settings that wait for its first instance";
                return Err(self.not_there(service, advice).await?);
            }
            let text =
                if settings.is_empty() { String::new() } else { Value::from(settings.clone()).to_string() };
            let path = self.layout.service(service);
            let written = match version {
                Some(version) => self.client.set(path.as_str(), text, Some(version)).await.map(drop),
                // Its settings follow in the next round.
                None => self.client.create_all(&path).await,
            };
            match written.map_err(|error| (error.op_error(), error)) {
                Ok(()) if version.is_some() => return self.show(service, &settings, Format::Table),
                Ok(()) | Err((Some(OpError::BadVersion | OpError::NoNode | OpError::NodeExists), _)) => {}
                Err((_, error)) => return Err(self.failure(&error)),
            }
        }
        Err(Failure::failed(format!("the settings of {service} are changed all the time; try again")))
    }

    /// Deletes services that have no instances: those that are named, or all that have no settings either.
    async fn prune(&self, names: &[ServiceKey]) -> Result<(), Failure> {
        let services = if names.is_empty() { self.without_settings().await? } else { names.to_vec() };
        let mut pruned = 0_u32;
        for service in services {
            match self.client.delete(self.layout.service(&service), None).await {
                Ok(()) => {
                    print(&format!("pruned {service}"))?;
                    pruned += 1;
                }
                Err(error) => match error.op_error() {
                    Some(OpError::NotEmpty) if names.is_empty() => {}
                    Some(OpError::NotEmpty) => {
                        return Err(Failure::failed(format!("{service} has instances; it is not pruned")));
                    }
                    Some(OpError::NoNode) if names.is_empty() => {}
                    Some(OpError::NoNode) => {
                        return Err(Failure::failed(format!(
                            "no service {service} is below {}",
                            self.layout.root()
                        )));
                    }
                    _ => return Err(self.failure(&error)),
                },
            }
        }
        if pruned == 0 { print("nothing to prune") } else { Ok(()) }
    }

    /// Says that there is no such service, and which may be meant, or else `advice`.
    async fn not_there(&self, service: &ServiceKey, advice: &str) -> Result<Failure, Failure> {
        let there = self.labels(self.layout.namespace(&service.namespace)).await?;
        let advice = match nearest_word(service.name.as_str(), there.iter().map(Label::as_str)) {
            Some(nearest) => format!("did you mean {nearest}.{}? (otherwise: {advice})", service.namespace),
            None => advice.to_owned(),
        };
        let text = format!("no service {service} is below {} (at {})", self.layout.root(), self.servers);
        Ok(Failure::failed(format!("{text}; {advice}")))
    }

    async fn without_settings(&self) -> Result<Vec<ServiceKey>, Failure> {
        let mut found = Vec::new();
        for namespace in self.labels(self.layout.root().to_owned()).await? {
            for name in self.labels(self.layout.namespace(&namespace)).await? {
                let service = ServiceKey { namespace: namespace.clone(), name };
                let path = self.layout.service(&service);
                let data = match self.client.get(path.as_str()).await {
                    Ok((data, _)) => data.unwrap_or_default(),
                    Err(error) if error.op_error() == Some(OpError::NoNode) => continue,
                    Err(error) => return Err(self.failure(&error)),
                };
                match stored_settings(&data) {
                    Ok(settings) if settings.is_empty() => found.push(service),
                    Ok(_) => {}
                    Err(damage) => note(&format!("{path}: {damage}; it is not pruned")),
                }
            }
        }
        Ok(found)
    }

    async fn labels(&self, path: String) -> Result<Vec<Label>, Failure> {
        match self.client.children(path).await {
            Ok((mut names, _)) => {
                names.sort();
                Ok(names.iter().filter_map(|name| Label::parse(name).ok()).collect())
            }
            Err(error) if error.op_error() == Some(OpError::NoNode) => Ok(Vec::new()),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// A service's settings as they are stored, with the version of its znode.
    async fn read(&self, service: &ServiceKey) -> Result<Option<(Map<String, Value>, i32)>, Failure> {
        let (data, stat) = match self.client.get(self.layout.service(service)).await {
            Ok(found) => found,
            Err(error) if error.op_error() == Some(OpError::NoNode) => return Ok(None),
            Err(error) => return Err(self.failure(&error)),
        };
        let stored = stored_settings(&data.unwrap_or_default());
        Ok(Some((stored.map_err(|damage| self.damage(service, &damage))?, stat.version)))
    }

    fn damage(&self, service: &ServiceKey, damage: &DamagedSettings) -> Failure {
        let path = self.layout.service(service);
        Failure::failed(format!("{path}: {damage}; {}", damage.remedy(service, self.layout)))
    }

    fn show(&self, service: &ServiceKey, stored: &Map<String, Value>, format: Format) -> Result<(), Failure> {
        let settings =
            ServiceSettings::of_stored(stored.clone()).map_err(|damage| self.damage(service, &damage))?;
        if format == Format::Json {
            let effective =
                serde_json::to_value(&settings).map_err(|error| Failure::failed(error.to_string()))?;
            let body = json!({"namespace": service.namespace, "name": service.name, "stored": stored, "effective": effective});
            return print(&format!("{body:#}"));
        }
        let row = |key: &str, value: String| {
            let origin = if stored.contains_key(key) { "set" } else { "default" };
            vec![key.to_owned(), value, origin.to_owned()]
        };
        let mode = match settings.failback {
            FailbackMode::Auto => "auto",
            FailbackMode::Manual => "manual",
            FailbackMode::Off => "off",
        };
        let ttl = settings.dns_ttl_s.map_or_else(|| "the sidecar's".to_owned(), |ttl| ttl.to_string());
        let mut rows = vec![
            row("min_healthy", settings.min_healthy.to_string()),
            row("failback", mode.to_owned()),
            row("failback_after_s", settings.failback_after_s.to_string()),
            row("dns_ttl_s", ttl),
            row("brake", on_or_off(settings.brake)),
            row("prefer_zone", on_or_off(settings.prefer_zone)),
        ];
        let known: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
        let unknown = stored.iter().filter(|(key, _)| !known.contains(key));
        rows.extend(unknown.map(|(key, value)| {
            vec![printable(key), printable(&value.to_string()), "set, not understood".to_owned()]
        }));
        print(&format!("{}\n{service}", table(&["SETTING", "VALUE", "FROM"], rows)))
    }

    fn failure(&self, error: &ClientError) -> Failure {
        session::failure(error, self.servers)
    }
}

/// Changes what is asked for, and nothing else.
fn apply(change: &ServiceChange, settings: &mut Map<String, Value>) -> Result<(), Failure> {
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            settings.insert(key.to_owned(), value);
        }
    };
    set("min_healthy", change.min_healthy.map(Value::from));
    set("failback", change.failback.map(|mode| json!(mode)));
    set("failback_after_s", change.failback_after.map(seconds).transpose()?);
    set("dns_ttl_s", change.dns_ttl.map(seconds).transpose()?);
    set("brake", change.brake.map(Value::from));
    set("prefer_zone", change.prefer_zone.map(Value::from));
    for key in &change.unset {
        if settings.remove(key).is_none() && !SETTINGS.contains(&key.as_str()) {
            let known = SETTINGS.into_iter().chain(settings.keys().map(String::as_str));
            let advice = match nearest_word(key, known) {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => format!("it must be one that is stored, or {}", SETTINGS.join(", ")),
            };
            return Err(Failure::usage(format!("there is no setting {key:?}; {advice}")));
        }
    }
    Ok(())
}

fn on_or_off(value: bool) -> String {
    if value { "on" } else { "off" }.to_owned()
}

fn seconds(time: Duration) -> Result<Value, Failure> {
    let seconds = u32::try_from(time.as_secs()).ok().filter(|_| time.subsec_nanos() == 0);
    seconds.map(Value::from).ok_or_else(|| {
        Failure::usage(format!("{} is not a number of seconds; write one such as 30s", duration::text(time)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_touches_what_it_names_and_nothing_else() {
        let stored = json!({"min_healthy": 3, "dns_ttl_s": 5, "later": {"a": 1}});
        let Value::Object(mut settings) = stored else { panic!("an object") };
        let change = ServiceChange {
            failback: Some(FailbackMode::Manual),
            failback_after: Some(Duration::from_secs(60)),
            brake: Some(false),
            prefer_zone: Some(false),
            unset: vec!["dns_ttl_s".to_owned()],
            ..nothing()
        };
        apply(&change, &mut settings).unwrap();
        let expected = json!({"min_healthy": 3, "failback": "manual", "failback_after_s": 60, "brake": false, "prefer_zone": false, "later": {"a": 1}});
        assert_eq!(Value::Object(settings), expected);
    }

    #[test]
    fn what_is_no_setting_cannot_be_unset() {
        let unset = |keys: &[&str]| {
            let mut settings = Map::from_iter([("later".to_owned(), json!(1))]);
            let unset = keys.iter().map(|key| (*key).to_owned()).collect();
            apply(&ServiceChange { unset, ..nothing() }, &mut settings).map(|()| settings.len())
        };
        assert_eq!(unset(&SETTINGS).unwrap(), 1, "which is the default already");
        assert_eq!(unset(&["later"]).unwrap(), 0, "a later version's");
        for (key, advice) in [
            ("min-healthy", "did you mean min_healthy?"),
            ("latre", "did you mean later?"),
            ("bogus", "or min_healthy, failback,"),
        ] {
            let failure = unset(&["brake", key]).unwrap_err();
            assert!(matches!(&failure, Failure::Usage(text) if text.contains(advice)), "{failure}");
        }
    }

    #[test]
    fn all_that_can_be_set_has_its_name() {
        let (mut settings, time) = (Map::new(), Some(Duration::from_secs(1)));
        let change = ServiceChange {
            min_healthy: Some(1),
            failback: Some(FailbackMode::Off),
            failback_after: time,
            dns_ttl: time,
            brake: Some(true),
            prefer_zone: Some(true),
            unset: Vec::new(),
        };
        apply(&change, &mut settings).unwrap();
        let mut names = SETTINGS;
        names.sort_unstable();
        assert!(settings.keys().eq(names));
    }

    #[test]
    fn times_are_whole_seconds() {
        assert!(seconds(Duration::from_millis(1_500)).is_err());
        assert!(seconds(Duration::from_secs(1 << 40)).is_err());
        assert_eq!(seconds(Duration::from_secs(90)).unwrap(), json!(90));
    }

    const fn nothing() -> ServiceChange {
        ServiceChange {
            min_healthy: None,
            failback: None,
            failback_after: None,
            dns_ttl: None,
            brake: None,
            prefer_zone: None,
            unset: Vec::new(),
        }
    }
}

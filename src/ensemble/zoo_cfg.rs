//! Apache ZooKeeper's own settings file, as it is.
//!
//! Keys that mean something here are taken over; those that change nothing here, and those that nobody knows, are listed in one
//! warning; those that would make a difference one could lose data or safety by are refused, with the remedy.
//!
//! Source: `QuorumPeerConfig.java` of Apache ZooKeeper and its administrator's guide.

mod meaning;
mod properties;
mod server_line;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use meaning::Meaning;
use properties::Property;
use server_line::parse_server;

use super::my_id::MyId;
use super::{
    EnsembleConfig, EnsemblePlan, FourLetterWord, HostPort, MemberAddress, MemberKeys, MemberRole,
    MemberSettings, Members, PeersSettings,
};
use crate::config::{ConfigError, LocatedMistake, Mistake, Position, read};
use crate::id::ServerId;
use crate::replica::LocalSessionMode;
use crate::telemetry::LogSettings;
use crate::tls::{ClientAuth, TlsFiles};
use crate::znode::SessionTimeouts;

/// What the file makes of a member, and what to say about it.
#[derive(Debug)]
pub struct ZooCfg {
    /// Everything decided.
    pub plan: EnsemblePlan,
    /// Who has said where status is served.
    pub status_place: StatusPlace,
    /// What has no effect, and what to know.
    pub warnings: Vec<String>,
}

/// Who has said where status is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPlace {
    /// The file: it must be there.
    Given,
    /// Nobody: a member goes on without, as Apache's does without its administrator's port.
    Default,
}

/// Reads `file`, the dynamic configuration that it names, and the member's id beside its data.
///
/// # Errors
///
/// When a file cannot be read, or with every mistake in them.
pub fn load_zoo_cfg(file: &Path) -> Result<ZooCfg, ConfigError> {
    let mut reading = Reading::default();
    let mut properties = properties::parse(&read(file)?);
    if let Some(dynamic) = properties.iter().find(|property| property.key == "dynamicConfigFile") {
        let (file, line) = (dynamic.value.clone(), dynamic.line);
        let is_of_members = |property: &&Property| {
            ["server.", "group", "weight"].iter().any(|start| property.key.starts_with(start))
        };
        for property in properties.iter().filter(is_of_members) {
            let message = format!("members stand in {file}, which dynamicConfigFile names");
            reading.mistake(property, message, "keep them in one of the two files");
        }
        let included = properties::parse(&read(Path::new(&file))?).into_iter();
        properties.extend(included.filter(|property| property.key != "version").map(|property| {
            let included_from = Some(format!("{file}:{}", property.line));
            Property { line, included_from, ..property }
        }));
    }
    properties.iter().for_each(|property| reading.take(property));
    let warnings = reading.warnings();
    let status_place = match reading.given_status_port() {
        Some(_) => StatusPlace::Given,
        None => StatusPlace::Default,
    };
    match reading.plan() {
        Ok(plan) => Ok(ZooCfg { plan, status_place, warnings }),
        Err(mut mistakes) => {
            mistakes.sort();
            Err(ConfigError::Mistakes { file: file.display().to_string(), mistakes })
        }
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    member: MemberSettings,
    data_dir: Option<PathBuf>,
    client_host: Option<String>,
    client_port: Option<u16>,
    address_connections_max: Option<usize>,
    session_min: Option<Duration>,
    session_max: Option<Duration>,
    servers: BTreeMap<ServerId, MemberAddress>,
    init_limit: Option<u32>,
    sync_limit: Option<u32>,
    connect_timeout: Option<Duration>,
    commit_log_count: Option<usize>,
    listens_on_all: bool,
    is_prometheus: bool,
    metrics_host: Option<String>,
    metrics_port: Option<u16>,
    is_standalone_disabled: bool,
    has_local_sessions: bool,
    upgrades_local_sessions: bool,
    has_purge_interval: bool,
    tls: QuorumTls,
    without_effect: Vec<String>,
    unknown: Vec<String>,
    notes: Vec<String>,
    mistakes: Vec<LocatedMistake>,
}

/// What `maxClientCnxns` is when it is not given, as in Apache's `NIOServerCnxnFactory`; 0 stands for no bound.
const ADDRESS_CONNECTIONS_MAX: usize = 60;
/// What to do about a store that Java wrote.
const TO_PEM: &str = "convert the store to PEM, and write PEM as its type";

/// TLS between members, as far as it was read.
#[derive(Debug, Default)]
struct QuorumTls {
    is_on: bool,
    key_store: Option<PathBuf>,
    trust_store: Option<PathBuf>,
    client_auth: ClientAuth,
    skips_hostname: bool,
}

impl Reading {
    fn take(&mut self, property: &Property) {
        let Property { key, value, .. } = property;
        // In this file `zookeeper.` goes without saying, but some write it.
        let key = key.strip_prefix("zookeeper.").unwrap_or(key);
        self.has_purge_interval |= key == "autopurge.purgeInterval";
        match key {
            "dataDir" => self.data_dir = Some(PathBuf::from(value)),
            "dataLogDir" => self.member.log_dir = Some(PathBuf::from(value)).filter(|_| !value.is_empty()),
            "clientPort" => self.client_port = self.number(property, 1..=65_535),
            "clientPortAddress" => self.client_host = Some(value.clone()),
            "tickTime" => {
                if let Some(tick) = self.milliseconds(property, MemberKeys::TICK) {
                    self.member.tick = tick;
                }
            }
            "initLimit" => self.init_limit = self.number(property, 1..=1_000_000),
            "syncLimit" => self.sync_limit = self.number(property, 1..=1_000_000),
            "minSessionTimeout" => self.session_min = self.session_timeout(property),
            "maxSessionTimeout" => self.session_max = self.session_timeout(property),
            "cnxTimeout" => {
                let range = (Duration::from_millis(100), Duration::from_secs(60));
                self.connect_timeout = self.milliseconds(property, range);
            }
            "maxCnxns" => {
                if let Some(max) = self.number(property, 0..=10_000_000).filter(|max| *max > 0) {
                    self.member.connections_max = max;
                }
            }
            "maxClientCnxns" => {
                if let Some(max) = self.number(property, 0..=10_000_000) {
                    self.address_connections_max = Some(max);
                }
            }
            "commitLogCount" => self.commit_log_count = self.number(property, 1..=1_000_000),
            "snapCount" => {
                if let Some(count) = self.number(property, 2..=1_000_000_000) {
                    self.member.snapshot_txns = count;
                }
            }
            // Apache takes no limit from it then; what is read into memory at a start keeps one here.
            "snapSizeLimitInKb" if value == "0" || value.starts_with('-') => {}
            "snapSizeLimitInKb" => {
                if let Some(kib) = self.number::<u64>(property, 1..=1 << 32) {
                    // What lies in the log beyond a snapshot is read into memory at a start.
                    self.member.snapshot_bytes = (kib << 10).min(self.member.snapshot_bytes);
                }
            }
            "autopurge.snapRetainCount" => {
                if let Some(count) = self.number(property, 1..=1_000_000) {
                    self.member.snapshots_kept = count;
                }
            }
            "jute.maxbuffer" => {
                if let Some(bytes) = self.number(property, 1 << 10..=64 << 20) {
                    self.member.frame_bytes_max = bytes;
                }
            }
            "readonlymode.enabled" => self.member.read_only_mode = self.is_true(property),
            "quorumListenOnAllIPs" => self.listens_on_all = self.is_true(property),
            "sslQuorum" => self.tls.is_on = self.is_true(property),
            "ssl.quorum.keyStore.location" => self.tls.key_store = self.store(property),
            "ssl.quorum.trustStore.location" => self.tls.trust_store = self.store(property),
            "ssl.quorum.keyStore.type" | "ssl.quorum.trustStore.type" => {
                if !value.eq_ignore_ascii_case("PEM") {
                    self.mistake(property, format!("{value:?} is not read here"), TO_PEM);
                }
            }
            "ssl.quorum.keyStore.password" | "ssl.quorum.keyStore.passwordPath" if !value.is_empty() => {
                self.mistake(property, "a key with a password is not read here", "decrypt it, guard the file, and remove the key");
            }
            "ssl.quorum.hostnameVerification" => self.tls.skips_hostname = !self.is_true(property),
            "ssl.quorum.clientAuth" => match value.as_str() {
                "need" | "NEED" => self.tls.client_auth = ClientAuth::Need,
                "want" | "WANT" => self.tls.client_auth = ClientAuth::Want,
                "none" | "NONE" => self.tls.client_auth = ClientAuth::None,
                _ => self.mistake(property, format!("{value:?} is none of them"), "write need, want or none"),
            },
            "standaloneEnabled" => self.is_standalone_disabled = !self.is_true(property),
            "4lw.commands.whitelist" => self.take_words(value),
            "DigestAuthenticationProvider.superDigest" => self.notes.push(
                "DigestAuthenticationProvider.superDigest takes effect once authentication is offered".to_owned(),
            ),
            "localSessionsEnabled" => self.has_local_sessions = self.is_true(property),
            "localSessionsUpgradingEnabled" => self.upgrades_local_sessions = self.is_true(property),
            "autopurge.purgeInterval" if value == "0" => self.notes.push(format!(
                "autopurge.purgeInterval=0 does not keep everything here: after each new snapshot those beyond {} are removed, \
                 with their logs; say how many to keep with autopurge.snapRetainCount",
                MemberSettings::default().snapshots_kept
            )),
            "metricsProvider.className" => self.is_prometheus = value.contains("Prometheus"),
            "metricsProvider.httpHost" => self.metrics_host = Some(value.clone()),
            "metricsProvider.httpPort" => self.metrics_port = self.number(property, 1..=65_535),
            _ => self.take_server_or_note(property, key),
        }
    }

    /// Keys with a number in them, and those that mean nothing here.
    fn take_server_or_note(&mut self, property: &Property, key: &str) {
        if key.starts_with("server.") {
            return self.take_server(property, key);
        }
        match Meaning::of(key, &property.value) {
            Meaning::Refused(message, remedy) => self.mistake(property, message, remedy),
            Meaning::WithoutEffect => self.without_effect.push(key.to_owned()),
            Meaning::AsHere => {}
            Meaning::Unknown => self.unknown.push(key.to_owned()),
        }
    }

    fn take_server(&mut self, property: &Property, key: &str) {
        let id = key.strip_prefix("server.").and_then(|id| id.parse().ok()).and_then(ServerId::new);
        let Some(id) = id else {
            return self.mistake(property, "no server id", "write server.N with N from 1 to 254");
        };
        if property.value.contains('|') {
            self.notes.push(format!("{key}: of several addresses only the first is used"));
        }
        match parse_server(&property.value) {
            Some(member) => {
                self.servers.insert(id, member);
            }
            None => {
                let message = format!("{:?} is no member's address", property.value);
                let remedy =
                    "write host:quorumPort:electionPort, and :observer or ;clientPort behind it if need be";
                self.mistake(property, message, remedy);
            }
        }
    }

    /// A store by its file, whose name says to Apache what it is.
    fn store(&mut self, property: &Property) -> Option<PathBuf> {
        let file = PathBuf::from(&property.value);
        let is_other = file.extension().is_some_and(|extension| {
            ["jks", "p12", "pfx", "bcfks"].iter().any(|other| extension.eq_ignore_ascii_case(other))
        });
        if is_other {
            self.mistake(property, format!("{:?} is not read here", property.value), TO_PEM);
        }
        Some(file)
    }

    fn take_words(&mut self, value: &str) {
        let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
        let mut not_answered = Vec::new();
        self.member.four_letter_words.clear();
        for word in words {
            match FourLetterWord::parse(word) {
                Some(word) => self.member.four_letter_words.push(word),
                None if word == "*" => self.member.four_letter_words.extend(FourLetterWord::ALL),
                None => not_answered.push(word.to_owned()),
            }
        }
        if !not_answered.is_empty() {
            self.notes.push(format!("four-letter words that are not answered: {}", not_answered.join(", ")));
        }
    }

    /// A switch that is misspelt must not be off for that.
    fn is_true(&mut self, property: &Property) -> bool {
        let is_true = property.value.eq_ignore_ascii_case("true");
        if !is_true && !property.value.eq_ignore_ascii_case("false") {
            self.mistake(property, format!("{:?} is neither", property.value), "write true or false");
        }
        is_true
    }

    fn number<T: TryFrom<u64>>(
        &mut self,
        property: &Property,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<T> {
        let number = property.value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!("{:?} is not a number that makes sense here", property.value);
            self.mistake(property, message, format!("write {} to {}", range.start(), range.end()));
        }
        number.and_then(|number| T::try_from(number).ok())
    }

    fn milliseconds(&mut self, property: &Property, (min, max): (Duration, Duration)) -> Option<Duration> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.number(property, ms(min)..=ms(max)).map(Duration::from_millis)
    }

    /// -1 stands for the default.
    fn session_timeout(&mut self, property: &Property) -> Option<Duration> {
        if property.value == "-1" {
            return None;
        }
        self.milliseconds(property, (Duration::from_millis(1), Duration::from_secs(86_400)))
    }

    fn mistake(&mut self, property: &Property, message: impl Into<String>, remedy: impl Into<String>) {
        let key = match &property.included_from {
            Some(place) => format!("{place}: {}", property.key),
            None => property.key.clone(),
        };
        let mistake = Mistake::new(key, message, remedy);
        self.mistakes.push(LocatedMistake { position: Position { line: property.line, column: 1 }, mistake });
    }

    /// A mistake of the file as a whole.
    fn lack(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let mistake = Mistake::new(key, message, remedy);
        self.mistakes.push(LocatedMistake { position: Position { line: 1, column: 1 }, mistake });
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        let mut lists = Vec::new();
        if !self.without_effect.is_empty() {
            lists.push(format!("without effect here: {}", self.without_effect.join(", ")));
        }
        if !self.unknown.is_empty() {
            lists.push(format!("not known: {}", self.unknown.join(", ")));
        }
        if !self.has_purge_interval {
            lists.push(format!(
                "not set, though snapshots beyond {} are removed here all the same, with their logs: autopurge.purgeInterval",
                self.member.snapshots_kept
            ));
        }
        if !lists.is_empty() {
            warnings.push(format!("keys {}", lists.join("; ")));
        }
        warnings
    }

    fn plan(mut self) -> Result<EnsemblePlan, Vec<LocatedMistake>> {
        match self.data_dir.take() {
            Some(data_dir) if !data_dir.as_os_str().is_empty() => self.member.data_dir = data_dir,
            Some(_) | None => self.lack("dataDir", "there is no folder for the data", "name one"),
        }
        self.plan_members();
        self.member.local_sessions = match (self.has_local_sessions, self.upgrades_local_sessions) {
            (false, _) => LocalSessionMode::Off,
            (true, false) => LocalSessionMode::On,
            (true, true) => LocalSessionMode::Upgraded,
        };
        let of_address = self.address_connections_max.unwrap_or(ADDRESS_CONNECTIONS_MAX);
        self.member.address_connections_max = (of_address > 0).then_some(of_address);
        let timeouts = SessionTimeouts::from_tick(self.member.tick);
        let (min, max) = (self.session_min.unwrap_or(timeouts.min), self.session_max.unwrap_or(timeouts.max));
        if min > max {
            let message = format!("minSessionTimeout {min:?} is above maxSessionTimeout {max:?}");
            self.lack("minSessionTimeout", message, "swap them");
        }
        self.member.session_timeouts = Some(SessionTimeouts { min, max });
        let client_addr = self.client_addr();
        let status_addr = self.status_addr();
        match (client_addr, status_addr) {
            (Some(client_addr), Some(status_addr)) if self.mistakes.is_empty() => {
                let log = LogSettings::default();
                Ok(EnsemblePlan { member: self.member, client_addr, status_addr, log })
            }
            _ => Err(self.mistakes),
        }
    }

    /// One voter without observers runs alone, as in Apache, unless that is switched off.
    fn plan_members(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        let votes = |member: &MemberAddress| member.role == MemberRole::Voter;
        let is_alone = servers.is_empty()
            || servers.len() == 1 && servers.values().all(votes) && !self.is_standalone_disabled;
        if is_alone {
            if let Some(only) = servers.keys().next() {
                self.member.server_id = *only;
            }
            return;
        }
        let data_dir = &self.member.data_dir;
        match MyId::read(data_dir) {
            MyId::Is(id) if servers.contains_key(&id) => self.member.server_id = id,
            MyId::Is(id) => {
                let message = format!("{} says {id}, which no server.N has", MyId::file(data_dir).display());
                self.lack("server", message, "correct the file, or add the server");
            }
            MyId::Missing(file) => {
                let message = format!("{} does not exist", file.display());
                self.lack("dataDir", message, MyId::remedy(data_dir));
            }
            MyId::Wrong(message) => self.lack("dataDir", message, MyId::remedy(data_dir)),
        }
        for (key, limit) in [("initLimit", self.init_limit), ("syncLimit", self.sync_limit)] {
            if limit.is_none() && !self.mistakes.iter().any(|known| known.mistake.path == key) {
                self.lack(key, "it is missing", "write it: initLimit=10 and syncLimit=5 are usual");
            }
        }
        if let Some(client) = servers.get(&self.member.server_id).and_then(|own| own.client.clone()) {
            self.take_client(client);
        }
        match Members::new(servers) {
            Ok(members) => {
                let mut peers = PeersSettings::of(members);
                peers.init_limit = self.init_limit.unwrap_or(peers.init_limit);
                peers.sync_limit = self.sync_limit.unwrap_or(peers.sync_limit);
                peers.connect_timeout = self.connect_timeout.unwrap_or(peers.connect_timeout);
                peers.commit_log_count = self.commit_log_count.unwrap_or(peers.commit_log_count);
                peers.tls = self.plan_tls();
                peers.listen_host = self.listens_on_all.then(|| "0.0.0.0".to_owned());
                self.member.peers = Some(peers);
            }
            Err(error) => self.lack("server", error.to_string(), error.remedy()),
        }
    }

    /// A member's clients connect where its own line says, if it does; the file must not say two things.
    fn take_client(&mut self, client: HostPort) {
        let is_other_port = self.client_port.is_some_and(|port| port != client.port);
        let is_other_host =
            self.client_host.as_ref().is_some_and(|host| *host != "0.0.0.0" && *host != client.host);
        if is_other_port || is_other_host {
            let message = format!(
                "the line of this server says {client}, clientPort and clientPortAddress another place"
            );
            return self.lack("clientPort", message, "remove one of the two");
        }
        (self.client_host, self.client_port) = (Some(client.host), Some(client.port));
    }

    fn plan_tls(&mut self) -> Option<TlsFiles> {
        let tls = std::mem::take(&mut self.tls);
        if !tls.is_on {
            return None;
        }
        let (Some(key_store), Some(trust_store)) = (tls.key_store, tls.trust_store) else {
            let message = "there are no stores to take keys and certificates from";
            let remedy =
                "write ssl.quorum.keyStore.location and ssl.quorum.trustStore.location, PEM files both";
            self.lack("sslQuorum", message, remedy);
            return None;
        };
        Some(TlsFiles {
            cert: key_store.clone(),
            key: key_store,
            ca: trust_store,
            client_auth: tls.client_auth,
            verify_hostname: !tls.skips_hostname,
        })
    }

    /// Where Apache would serve metrics to Prometheus.
    fn given_status_port(&self) -> Option<u16> {
        self.metrics_port.filter(|_| self.is_prometheus)
    }

    /// Where Apache would serve metrics to Prometheus, they are served here.
    fn status_addr(&mut self) -> Option<SocketAddr> {
        let Some(port) = self.given_status_port() else {
            return EnsembleConfig::STATUS_ADDR.parse().ok();
        };
        let host = self.metrics_host.as_deref().unwrap_or("0.0.0.0");
        let address = resolved(host).map(|ip| SocketAddr::new(ip, port));
        if address.is_none() {
            let message = format!("{host:?} is no address, nor a name that has one");
            let remedy = "write an address of this machine, such as 0.0.0.0, or let the name resolve";
            self.lack("metricsProvider.httpHost", message, remedy);
        }
        address
    }

    fn client_addr(&mut self) -> Option<SocketAddr> {
        let Some(port) = self.client_port else {
            if !self.mistakes.iter().any(|known| known.mistake.path == "clientPort") {
                self.lack("clientPort", "there is no port for clients", "write clientPort=2181");
            }
            return None;
        };
        let host = self.client_host.as_deref().unwrap_or("0.0.0.0");
        let address = resolved(host).map(|ip| SocketAddr::new(ip, port));
        if address.is_none() {
            let message = format!("{host:?} is no address, nor a name that has one");
            let remedy = "write an address of this machine, such as 0.0.0.0, or let the name resolve";
            self.lack("clientPortAddress", message, remedy);
        }
        address
    }
}

/// The address of this machine that `host` stands for now; of several an IPv4 one, as Java has it.
fn resolved(host: &str) -> Option<IpAddr> {
    let host = host.trim_matches(['[', ']']);
    let addrs = || (host, 0).to_socket_addrs().ok()?.map(|addr| addr.ip()).min_by_key(IpAddr::is_ipv6);
    host.parse().ok().or_else(addrs)
}

#[cfg(test)]
mod tests;

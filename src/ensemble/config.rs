//! The settings file of `rollcall ensemble`, and the plan that it makes.
//!
//! [`EnsembleConfig`] is what the file says; [`EnsembleConfig::plan`] checks all of it in one pass and decides every default.
//! `config/ensemble.yaml` shows every key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::members_config::{MemberEntry, QuorumKeys, plan_peers};
use super::my_id::MyId;
use super::{FourLetterWord, MemberSettings};
#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar, duration, socket_addr};
use crate::id::ServerId;
use crate::replica::LocalSessionMode;
use crate::telemetry::LogSettings;
use crate::znode::SessionTimeouts;

/// Settings of `rollcall ensemble`, one member of the ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(extend("required" = ["data_dir"])))]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleConfig {
    /// Who this member is, 1 to 254. Default: what `myid` in `data_dir` says; 1 for a member alone.
    #[cfg_attr(test, schemars(range(min = 1, max = 254)))]
    pub server_id: Option<u8>,
    /// Where its data lie. No default: they must outlive the process.
    #[cfg_attr(test, schemars(with = "PathBuf", length(min = 1)))]
    pub data_dir: Option<PathBuf>,
    /// Where its log lies. Default: with the rest of the data.
    #[cfg_attr(test, schemars(length(min = 1)))]
    pub log_dir: Option<PathBuf>,
    /// Where ZooKeeper clients connect, and how many.
    pub client: ClientPort,
    /// Where `/livez`, `/readyz` and `/metrics` are served. Default `127.0.0.1:8501`.
    #[cfg_attr(test, schemars(with = "Option<schema::SocketAddress>"))]
    pub status_address: Option<String>,
    /// Every member of the ensemble, this one too. Default: this one alone.
    pub members: Vec<MemberEntry>,
    /// What this member is told about the others, and for how long it waits for them.
    pub quorum: QuorumKeys,
    /// Sessions and snapshots.
    #[serde(rename = "member")]
    pub keys: MemberKeys,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// Where and how clients are served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ClientPort {
    /// Where to listen. Default `127.0.0.1:2181`.
    #[cfg_attr(test, schemars(with = "Option<schema::SocketAddress>"))]
    pub address: Option<String>,
    /// Connections at a time. Default 10000.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub connections_max: Option<usize>,
    /// Connections from one address at a time. Default: as many as in all. Danger: many clients may share one address.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub address_connections_max: Option<usize>,
    /// How long a connection may take to open its session, `100ms` to `10m`. Default `10s`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub handshake_timeout: Option<Scalar>,
    /// The longest request in bytes, 1024 to 67108864. Default 1048575. Danger: must be the same on every member.
    #[cfg_attr(test, schemars(range(min = Self::FRAME_BYTES.0, max = Self::FRAME_BYTES.1)))]
    pub frame_bytes_max: Option<usize>,
    /// Which questions in plain text are answered on this port: any of `conf`, `cons`, `dump`,
    /// `envi`, `hash`, `isro`, `mntr`, `ruok`, `srvr`, `stat`, `wchc`, `wchp` and `wchs`. Default: `[srvr]`.
    #[cfg_attr(test, schemars(with = "Option<Vec<FourLetterWord>>"))]
    pub four_letter_words: Option<Vec<String>>,
}

/// What a member is told about sessions and snapshots, here and in `rollcall dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MemberKeys {
    /// The unit of session timeouts, `100ms` to `10s`. Default `2s`: sessions last 4 to 40 s.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub tick: Option<Scalar>,
    /// The shortest session timeout. Default: 2 ticks.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub session_timeout_min: Option<Scalar>,
    /// The longest session timeout. Default: 20 ticks.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub session_timeout_max: Option<Scalar>,
    /// Txns between two snapshots. Default 100000.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub snapshot_txns: Option<u64>,
    /// Snapshots that are kept. Default 3.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub snapshots_kept: Option<usize>,
    /// Whether clients that are content with it may read while there is no leader. Default false.
    pub read_only_mode: Option<bool>,
    /// Whether sessions are known only to the member that opened them. Default false.
    pub local_sessions: Option<bool>,
    /// Whether such a session becomes known to all when it creates an ephemeral znode. Default false.
    pub local_sessions_upgrading: Option<bool>,
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct EnsemblePlan {
    /// The member.
    pub member: MemberSettings,
    /// Where clients connect.
    pub client_addr: SocketAddr,
    /// Where its state is told.
    pub status_addr: SocketAddr,
    /// Logs.
    pub log: LogSettings,
}

impl EnsembleConfig {
    /// Where clients connect by default.
    pub const CLIENT_ADDR: &'static str = "127.0.0.1:2181";
    /// Where the state is told by default.
    pub const STATUS_ADDR: &'static str = "127.0.0.1:8501";

    /// Checks everything and decides every default.
    ///
    /// # Errors
    ///
    /// Every mistake, with its path.
    pub fn plan(self) -> Result<EnsemblePlan, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let client_addr =
            socket_addr("client.address", self.client.address.as_deref(), Self::CLIENT_ADDR, &mut mistakes);
        let status_addr =
            socket_addr("status_address", self.status_address.as_deref(), Self::STATUS_ADDR, &mut mistakes);
        let mut member = MemberSettings::default();
        self.keys.apply("member", &mut member, &mut mistakes);
        self.client.apply(&mut member, &mut mistakes);
        let own = self.plan_server_id(&mut mistakes);
        member.server_id = own.unwrap_or(member.server_id);
        member.peers = plan_peers(own, &self.members, &self.quorum, &mut mistakes);
        match self.data_dir {
            Some(data_dir) if !data_dir.as_os_str().is_empty() => member.data_dir = data_dir,
            Some(_) | None => mistakes.push(Mistake::new(
                "data_dir",
                "there is no folder for the data",
                "name one that outlives the process, such as /var/lib/rollcall",
            )),
        }
        match self.log_dir {
            Some(log_dir) if log_dir.as_os_str().is_empty() => {
                let remedy = "name one that outlives the process, or remove the key";
                mistakes.push(Mistake::new("log_dir", "there is no folder for the log", remedy));
            }
            log_dir => member.log_dir = log_dir,
        }
        if let Err(error) = self.log.check_filter() {
            mistakes.push(Mistake::new("log.filter", error.to_string(), ""));
        }
        match (client_addr, status_addr) {
            (Some(client_addr), Some(status_addr)) if mistakes.is_empty() => {
                Ok(EnsemblePlan { member, client_addr, status_addr, log: self.log })
            }
            _ => Err(mistakes),
        }
    }

    /// Which member this is; `None` when that is among the mistakes.
    fn plan_server_id(&self, mistakes: &mut Vec<Mistake>) -> Option<ServerId> {
        let given = self.server_id.map(|id| {
            let server_id = ServerId::new(id);
            if server_id.is_none() {
                mistakes.push(Mistake::new("server_id", "0 and 255 are no server ids", "use 1 to 254"));
            }
            server_id
        });
        // Without a folder there is a mistake already.
        let data_dir = self.data_dir.as_deref().unwrap_or_else(|| Path::new(""));
        let found = if data_dir.as_os_str().is_empty() { None } else { Some(MyId::read(data_dir)) };
        match (given, found) {
            (Some(Some(given)), Some(MyId::Is(found))) if given != found => {
                let message = format!("it is {given}, but {} says {found}", MyId::file(data_dir).display());
                let remedy = "point data_dir at this member's own folder, or remove what is wrong of the two";
                mistakes.push(Mistake::new("server_id", message, remedy));
                None
            }
            (Some(given), _) => given,
            (None, Some(MyId::Is(found))) => Some(found),
            (None, Some(MyId::Wrong(message))) => {
                mistakes.push(Mistake::new("server_id", message, MyId::remedy(data_dir)));
                None
            }
            // Alone it does not matter; among others two members with one id would be a disaster.
            (None, _) if self.members.is_empty() => Some(ServerId::STANDALONE),
            (None, Some(MyId::Missing(file))) => {
                let message =
                    format!("nothing says which of the members this is: {} does not exist", file.display());
                let remedy = format!("{}, or give server_id", MyId::remedy(data_dir));
                mistakes.push(Mistake::new("server_id", message, remedy));
                None
            }
            (None, None) => None,
        }
    }
}

impl ClientPort {
    /// Connections and bytes that make sense.
    const FRAME_BYTES: (usize, usize) = (1 << 10, 64 << 20);
    const HANDSHAKE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

    fn apply(&self, member: &mut MemberSettings, mistakes: &mut Vec<Mistake>) {
        member.connections_max = self.connections_max.unwrap_or(member.connections_max);
        member.address_connections_max = self.address_connections_max.or(member.address_connections_max);
        for (path, max) in [
            ("client.connections_max", self.connections_max),
            ("client.address_connections_max", self.address_connections_max),
        ] {
            if max == Some(0) {
                mistakes.push(Mistake::new(path, "0 connections serve nobody", "use 1 or more"));
            }
        }
        if let Some(bytes) = self.frame_bytes_max {
            member.frame_bytes_max = bytes;
            let (min, max) = Self::FRAME_BYTES;
            if !(min..=max).contains(&bytes) {
                mistakes.push(Mistake::new(
                    "client.frame_bytes_max",
                    format!("{bytes} is out of range"),
                    format!("use {min} to {max}, the same on every member"),
                ));
            }
        }
        if let Some(timeout) = &self.handshake_timeout {
            let range = Self::HANDSHAKE_TIMEOUT;
            if let Some(timeout) = timeout.to_duration_within("client.handshake_timeout", range, mistakes) {
                member.handshake_timeout = timeout;
            }
        }
        if let Some(words) = &self.four_letter_words {
            member.four_letter_words = words
                .iter()
                .enumerate()
                .filter_map(|(index, word)| {
                    let known = FourLetterWord::parse(word);
                    if known.is_none() {
                        mistakes.push(Mistake::new(
                            format!("client.four_letter_words[{index}]"),
                            format!("{word:?} is not answered"),
                            format!(
                                "choose from {}",
                                FourLetterWord::ALL.map(FourLetterWord::as_str).join(", ")
                            ),
                        ));
                    }
                    known
                })
                .collect();
        }
    }
}

impl MemberKeys {
    /// Ticks that make sense: a shorter one takes a busy machine for a dead one, a longer one is of no use.
    pub const TICK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
    const SESSION_TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(86_400));

    /// Puts what is given into `member`, and every mistake, with its path below `at`, into `mistakes`.
    pub fn apply(&self, at: &str, member: &mut MemberSettings, mistakes: &mut Vec<Mistake>) {
        if let Some(tick) = &self.tick
            && let Some(tick) = tick.to_duration_within(&format!("{at}.tick"), Self::TICK, mistakes)
        {
            member.tick = tick;
        }
        self.apply_session_timeouts(at, member, mistakes);
        if self.snapshot_txns == Some(0) {
            mistakes.push(Mistake::new(format!("{at}.snapshot_txns"), "0 is no distance", "use 1 or more"));
        }
        if self.snapshots_kept == Some(0) {
            let message = "without a snapshot the member could not start again";
            mistakes.push(Mistake::new(format!("{at}.snapshots_kept"), message, "keep 1 or more"));
        }
        member.snapshot_txns = self.snapshot_txns.unwrap_or(member.snapshot_txns);
        member.read_only_mode = self.read_only_mode.unwrap_or(member.read_only_mode);
        member.local_sessions = match (self.local_sessions, self.local_sessions_upgrading) {
            (Some(true), Some(true)) => LocalSessionMode::Upgraded,
            (Some(true), _) => LocalSessionMode::On,
            (_, Some(true)) => {
                let message = "there are no local sessions to upgrade";
                let path = format!("{at}.local_sessions_upgrading");
                mistakes.push(Mistake::new(path, message, "set local_sessions too, or remove it"));
                LocalSessionMode::Off
            }
            (Some(false), _) => LocalSessionMode::Off,
            (None, _) => member.local_sessions,
        };
        member.snapshots_kept = self.snapshots_kept.unwrap_or(member.snapshots_kept);
    }

    fn apply_session_timeouts(&self, at: &str, member: &mut MemberSettings, mistakes: &mut Vec<Mistake>) {
        let mut given = |key: &str, timeout: &Option<Scalar>| {
            timeout.as_ref()?.to_duration_within(&format!("{at}.{key}"), Self::SESSION_TIMEOUT, mistakes)
        };
        let min = given("session_timeout_min", &self.session_timeout_min);
        let max = given("session_timeout_max", &self.session_timeout_max);
        if min.is_none() && max.is_none() {
            return;
        }
        let of_tick = SessionTimeouts::from_tick(member.tick);
        let timeouts = SessionTimeouts { min: min.unwrap_or(of_tick.min), max: max.unwrap_or(of_tick.max) };
        if timeouts.min > timeouts.max {
            let (min, max) = (duration::text(timeouts.min), duration::text(timeouts.max));
            mistakes.push(Mistake::new(
                format!("{at}.session_timeout_min"),
                format!("{min} is above the longest, {max}"),
                "give both, the shorter one here",
            ));
        }
        member.session_timeouts = Some(timeouts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::tls::ClientAuth;

    fn plan(text: &str) -> Result<EnsemblePlan, Vec<String>> {
        parse(text, &Environment::empty(), EnsembleConfig::plan)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_data_folder_is_all_that_must_be_given() {
        let plan = plan("data_dir: /tmp/x").unwrap();
        let expected = MemberSettings { data_dir: "/tmp/x".into(), ..MemberSettings::default() };
        assert_eq!(plan.member, expected);
        assert_eq!(
            (plan.client_addr.to_string(), plan.status_addr.to_string()),
            (EnsembleConfig::CLIENT_ADDR.to_owned(), EnsembleConfig::STATUS_ADDR.to_owned())
        );
    }

    /// What `config/ensemble.yaml` shows.
    const SHOWN: &str = include_str!("../../config/ensemble.yaml");

    #[test]
    fn the_file_that_shows_every_key_shows_its_default() {
        let plan = plan(SHOWN).unwrap();
        let expected = MemberSettings { data_dir: "/var/lib/rollcall".into(), ..MemberSettings::default() };
        assert_eq!(plan.member, expected);
    }

    #[test]
    fn three_members_share_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |more: &str| {
            let data_dir = folder.path().display();
            format!(
                "data_dir: {data_dir}\nmembers:\n- {{id: 1, host: one, client_port: 2181}}\n- {{id: 2, host: '::1'}}\n\
                 - {{id: 3, host: one, quorum_port: 2889, election_port: 3889, role: observer}}\n\
                 quorum: {{init_limit: 7, connect_timeout: 2s, listen_host: 0.0.0.0, \
                 tls: {{cert: c, key: k, ca: a, client_auth: want}}}}\n{more}"
            )
        };
        let my_id = folder.path().join("myid");
        let nobody = plan(&file("")).unwrap_err().join("\n");
        assert!(nobody.contains(" server_id: nothing says which of the members this is"), "{nobody}");
        assert!(nobody.contains("write this member's id into") && nobody.lines().count() == 1, "{nobody}");

        fs_err::write(&my_id, "2\n").unwrap();
        let of_file = plan(&file("")).unwrap().member;
        assert_eq!(
            (of_file.server_id.get(), of_file.clone()),
            (2, plan(&file("server_id: 2")).unwrap().member)
        );
        let peers = of_file.peers.unwrap();
        assert_eq!((peers.init_limit, peers.sync_limit), (7, 5));
        assert_eq!(
            (peers.connect_timeout, peers.listen_host.as_deref()),
            (Duration::from_secs(2), Some("0.0.0.0"))
        );
        let tls = peers.tls.unwrap();
        assert_eq!((tls.client_auth, tls.verify_hostname), (ClientAuth::Want, true));
        assert_eq!(
            peers.members.to_config_text(),
            "server.1=one:2888:3888:participant;one:2181\nserver.2=[::1]:2888:3888:participant\n\
             server.3=one:2889:3889:observer\nversion=0"
        );

        let two = plan(&file("server_id: 3")).unwrap_err().join("\n");
        assert!(two.contains("server_id: it is 3, but") && two.contains("myid says 2"), "{two}");
        fs_err::write(&my_id, "0").unwrap();
        let none = plan(&file("")).unwrap_err().join("\n");
        assert!(none.contains("holds \"0\", which is no server id; write this"), "{none}");
        fs_err::write(&my_id, "9").unwrap();
        let stranger = plan(&file("")).unwrap_err().join("\n");
        assert!(stranger.contains("members: this member, server_id 9, is not among them"), "{stranger}");
    }

    #[test]
    fn what_is_said_about_members_is_checked_also_where_there_are_none() {
        let mistakes =
            plan("data_dir: /nowhere\nquorum: {init_limit: 0, connect_timeout: soon}\n").unwrap_err();
        let paths = ["quorum.init_limit", "quorum.connect_timeout"];
        assert!(
            paths.iter().all(|path| mistakes.iter().any(|mistake| mistake.contains(path))),
            "{mistakes:#?}"
        );
        assert_eq!(mistakes.len(), paths.len());
    }

    #[test]
    fn every_mistake_about_members_is_told_at_once() {
        let text = "data_dir: /nowhere\nserver_id: 3\n\
                    members:\n- {id: 0, host: a}\n- {id: 1, host: '', quorum_port: 0}\n- {id: 1, host: b, election_port: 2888}\n\
                    quorum: {init_limit: 0, connect_timeout: 1ms, finalize_wait: 1h, link_bytes_max: 1, snapshot_bytes_max: 0}\n";
        let mistakes = plan(text).unwrap_err();
        let paths = [
            "quorum.init_limit",
            "quorum.connect_timeout",
            "quorum.finalize_wait",
            "quorum.link_bytes_max",
            "quorum.snapshot_bytes_max",
            "members[0].id",
            "members[1].host",
            "members[1].quorum_port",
            "members[2].id",
        ];
        for path in paths {
            let found = mistakes.iter().filter(|mistake| mistake.contains(&format!(" {path}: "))).count();
            assert_eq!(found, 1, "{path} in {mistakes:#?}");
        }
        let of_all: Vec<_> = mistakes.iter().filter(|mistake| mistake.contains(" members: ")).collect();
        assert!(of_all[1].contains("server_id 3, is not among them"), "{of_all:#?}");
        assert!(of_all[0].contains("member 1 listens on b:2888 for learners and for votes"), "{of_all:#?}");
        assert_eq!(mistakes.len(), paths.len() + of_all.len());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let text = "server_id: 255\nclient: {address: here, connections_max: 0, address_connections_max: 0, frame_bytes_max: 1, \
                    handshake_timeout: 1ms, four_letter_words: [ruok, srst]}\nmember: {tick: 1h, snapshots_kept: 0, local_sessions_upgrading: true, session_timeout_min: 1m, session_timeout_max: 5s}\n\
                    log: {filter: a=b=c}\n";
        let mistakes = plan(text).unwrap_err();
        let paths = [
            "client.address",
            "member.tick",
            "member.snapshots_kept",
            "member.local_sessions_upgrading",
            "member.session_timeout_min",
            "client.connections_max",
            "client.address_connections_max",
            "client.frame_bytes_max",
            "client.handshake_timeout",
            "client.four_letter_words[1]",
            "server_id",
            "data_dir",
            "log.filter",
        ];
        for path in paths {
            let found = mistakes.iter().filter(|mistake| mistake.contains(&format!(" {path}: "))).count();
            assert_eq!(found, 1, "{path} in {mistakes:#?}");
        }
        assert_eq!(mistakes.len(), paths.len());
    }
}

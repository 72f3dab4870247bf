//! What can be set about a client.

use std::time::Duration;

use serde::Deserialize;

use super::backoff::Backoff;
use crate::wire::FRAME_BYTES_MAX;

/// Where the ensemble is, and how long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSettings {
    /// Members of the ensemble, each `host:port`; tried in an order of our own, names resolved at each dial.
    /// Default: `127.0.0.1:2181`.
    pub servers: Vec<String>,
    /// How long the ensemble keeps the session without a word from us. Default 10 s. Shorter finds dead machines
    /// sooner and mistakes slow ones for dead sooner; the server holds it between 2 and 20 of its ticks.
    #[serde(with = "duration_ms", rename = "session_timeout_ms")]
    pub session_timeout: Duration,
    /// How long resolving a name and connecting may take, and again the answer to the first frame.
    /// Default 2 s. Keep it well below the session timeout, or one silent server costs the session.
    #[serde(with = "duration_ms", rename = "connect_timeout_ms")]
    pub connect_timeout: Duration,
    /// How long a request waits for a connection before it fails. Default 5 s.
    #[serde(with = "duration_ms", rename = "request_timeout_ms")]
    pub request_timeout: Duration,
    /// How long closing the session may take before the socket is just dropped. Default 2 s.
    #[serde(with = "duration_ms", rename = "close_timeout_ms")]
    pub close_timeout: Duration,
    /// The longest pause before the first dial after a loss; doubled with each dial that fails. Default 100 ms.
    #[serde(with = "duration_ms", rename = "backoff_base_ms")]
    pub backoff_base: Duration,
    /// Where the doubling ends. Default 3 s. Keep it well below the session timeout.
    #[serde(with = "duration_ms", rename = "backoff_cap_ms")]
    pub backoff_cap: Duration,
    /// The longest frame taken from a server, in bytes. Default 4 MiB: servers bound what they receive (1 MiB), not
    /// the lists of children that they send.
    pub frame_bytes_max: usize,
    /// How many notices a watcher may be behind before it loses them and is told to resync. Default 4096.
    pub watch_queue_max: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            servers: vec!["127.0.0.1:2181".to_owned()],
            session_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            backoff_base: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(3),
            frame_bytes_max: 4 << 20,
            watch_queue_max: 4096,
        }
    }
}

impl ClientSettings {
    /// The defaults, for the ensemble at `servers`.
    pub fn for_servers<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self { servers: servers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Everything about the settings that cannot work, each with its remedy; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.servers.is_empty() {
            problems.push("servers is empty; name at least one as host:port".to_owned());
        }
        for server in &self.servers {
            let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                problems.push(format!("servers: {server:?} is not host:port; write it as zk1.example:2181"));
            }
        }
        let session = self.session_timeout;
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout),
            ("backoff_base_ms", self.backoff_base),
            ("backoff_cap_ms", self.backoff_cap),
        ] {
            if value.is_zero() || value * 2 > session {
                problems.push(format!(
                    "{key} is {} but must be above 0 and at most half of session_timeout_ms, {}, or one dial that \
                     fails costs the session",
                    value.as_millis(),
                    session.as_millis()
                ));
            }
        }
        if self.frame_bytes_max < FRAME_BYTES_MAX {
            problems.push(format!(
                "frame_bytes_max is {} but servers store up to {FRAME_BYTES_MAX} bytes; set at least that",
                self.frame_bytes_max
            ));
        }
        if self.watch_queue_max == 0 {
            problems.push("watch_queue_max is 0; set at least 1".to_owned());
        }
        problems
    }

    pub(super) const fn backoff(&self) -> Backoff {
        Backoff { base: self.backoff_base, cap: self.backoff_cap }
    }
}

/// Durations as whole ms, as settings files have them.
mod duration_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_ms_and_unknown_ones_refused() {
        let settings: ClientSettings =
            serde_json::from_str(r#"{"servers": ["zk:2181"], "session_timeout_ms": 4000}"#).unwrap();
        assert_eq!(settings.session_timeout, Duration::from_secs(4));
        assert_eq!(settings.connect_timeout, ClientSettings::default().connect_timeout);
        assert!(serde_json::from_str::<ClientSettings>(r#"{"sesion_timeout_ms": 1}"#).is_err());
    }

    #[test]
    fn the_defaults_work_and_impossible_settings_are_all_named() {
        assert_eq!(ClientSettings::default().problems(), [""; 0]);
        let settings = ClientSettings {
            connect_timeout: Duration::from_secs(8),
            watch_queue_max: 0,
            ..ClientSettings::for_servers(["zk1", "[::1]:2181", ":2181", "zk2:0"])
        };
        let problems = settings.problems();
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(problems[3].starts_with("connect_timeout_ms is 8000"), "{problems:?}");
    }
}

//! What can be set about a client.

use std::time::Duration;

use super::backoff::Backoff;
use super::dial::{Dialer, HostNames};

/// Where the ensemble is, and how long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Members of the ensemble, each `host:port`; tried in an order of our own, names resolved at each dial.
    /// Default: `127.0.0.1:2181`.
    pub servers: Vec<String>,
    /// How long the ensemble keeps the session without a word from us. Default 10 s. Shorter finds dead machines
    /// sooner and mistakes slow ones for dead sooner; the server holds it between 2 and 20 of its ticks.
    pub session_timeout: Duration,
    /// How long resolving a name and connecting may take, and again the answer to the first frame.
    /// Default 2 s. Keep it well below the session timeout, or one silent server costs the session.
    pub connect_timeout: Duration,
    /// How long a request waits for a connection before it fails. Default 5 s.
    pub request_timeout: Duration,
    /// How long closing the session may take before the socket is just dropped. Default 2 s.
    pub close_timeout: Duration,
    /// The longest pause before the first dial after a loss; doubled with each dial that fails. Default 100 ms.
    pub backoff_base: Duration,
    /// Where the doubling ends. Default 3 s. Keep it well below the session timeout.
    pub backoff_cap: Duration,
    /// The longest frame taken from a server, in bytes. Default 4 MiB: servers bound what they receive (1 MiB), not
    /// the lists of children that they send.
    pub frame_bytes_max: usize,
    /// How many notices a watcher may be behind before it loses them and is told to resync. Default 4096.
    pub watch_queue_max: usize,
    /// Who looks up the names of servers before the system is asked. Default: nobody.
    pub host_names: Option<HostNames>,
    /// How servers are reached, if not by TCP; names are the dialer's to look up then. Default: by TCP.
    pub dialer: Option<Dialer>,
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
            host_names: None,
            dialer: None,
        }
    }
}

impl ClientSettings {
    /// The defaults, for the ensemble at `servers`.
    pub fn for_servers<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self { servers: servers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Sets the session timeout, and keeps connecting and pauses at most half of it, so that one dial that fails does not
    /// cost the session.
    #[must_use]
    pub fn with_session_timeout(mut self, session_timeout: Duration) -> Self {
        self.session_timeout = session_timeout;
        self.connect_timeout = self.connect_timeout.min(session_timeout / 2);
        self.backoff_cap = self.backoff_cap.min(session_timeout / 2);
        self
    }

    pub(super) const fn backoff(&self) -> Backoff {
        Backoff { base: self.backoff_base, cap: self.backoff_cap }
    }
}

/// Whether a text is `host:port`, with an IPv6 address in brackets.
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_name),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_session_timeout_shortens_the_pauses() {
        let (two, four, forty) = (Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(40));
        let short = ClientSettings::default().with_session_timeout(four);
        assert_eq!((short.session_timeout, short.connect_timeout, short.backoff_cap), (four, two, two));
        let (long, default) =
            (ClientSettings::default().with_session_timeout(forty), ClientSettings::default());
        assert_eq!((long.connect_timeout, long.backoff_cap), (default.connect_timeout, default.backoff_cap));
    }

    #[test]
    fn servers_are_host_and_port() {
        for good in ["a:1", "zk-0.zk.svc:2181", "10.0.0.1:2181", "[::1]:2181"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in ["", "a", ":1", "a:0", "a:x", "::1:2181", "a b:1", "[a]:1", "a:70000"] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}

//! The settings of the sidecar's HTTP listener.

use serde::Deserialize;

use crate::config::Mistake;
#[cfg(test)]
use crate::config::schema;
use crate::http::ListenerSettings;

/// The HTTP listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Where to listen. Default `127.0.0.1:8500`. Danger: there is no authentication; keep it on loopback.
    #[cfg_attr(test, schemars(with = "Option<schema::SocketAddress>"))]
    pub address: Option<String>,
    /// Connections at a time, 16 to 16384. Default 1024. Long polls take three quarters of them at most; who connects beyond that waits
    /// until another leaves. Danger: each takes a file descriptor.
    #[cfg_attr(test, schemars(range(min = 16, max = 16_384)))]
    pub connections_max: Option<usize>,
}

impl HttpSettings {
    /// Checks everything but the address, and decides every default.
    pub(super) fn plan(&self, mistakes: &mut Vec<Mistake>) -> ListenerSettings {
        let default = ListenerSettings::default();
        let connections_max = self.connections_max.unwrap_or(default.connections_max);
        if !(CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&connections_max) {
            let remedy = format!("write a number from {CONNECTIONS_MIN} to {CONNECTIONS_MAX}");
            let message = format!("{connections_max} is out of range");
            mistakes.push(Mistake::new("http.connections_max", message, remedy));
        }
        ListenerSettings { connections_max, ..default }
    }
}

/// With fewer, probes of the pod and a few long polls would shut one another out.
const CONNECTIONS_MIN: usize = 16;
const CONNECTIONS_MAX: usize = 16_384;

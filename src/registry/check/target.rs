//! One check, with every setting decided.

use std::net::SocketAddr;
use std::time::Duration;

use super::exec::ExecTarget;
use super::grpc::GrpcTarget;
use super::http::HttpTarget;
use super::settings::CheckKind;
use super::tls::TlsTarget;
use crate::registry::name::Label;

/// One check, with every setting decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is called, unique within its instance.
    pub name: Label,
    /// Whether the instance is not offered while it fails; else its weight is lowered.
    pub is_critical: bool,
    /// Where its results come from.
    pub source: CheckSource,
    /// From the start of the runner to the first check, or to when silence begins to count.
    pub start_delay: Duration,
    /// Passes in a row before the instance is offered, at least 1.
    pub rise: u32,
    /// Failures in a row before it is not, at least 1.
    pub fall: u32,
}

/// Where the results of a check come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckSource {
    /// We ask, again and again.
    Asked(Asking),
    /// The application reports, and must within this time.
    Reported {
        /// The longest silence.
        ttl: Duration,
    },
}

/// What is asked, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// What is asked.
    pub target: CheckTarget,
    /// From start to start.
    pub interval: Duration,
    /// When it has failed without an answer; at most `interval`.
    pub timeout: Duration,
    /// How much shorter an interval may be by chance; at most `interval` - `timeout`.
    pub jitter: Duration,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget {
    /// Send an HTTP request.
    Http(Box<HttpTarget>),
    /// Ask the gRPC health service.
    Grpc(GrpcTarget),
    /// Start a program.
    Exec(ExecTarget),
    /// Connect, and read what an agent says of the application.
    Agent {
        /// Where to connect.
        server: SocketAddr,
    },
    /// Connect.
    Tcp {
        /// Where to connect.
        server: SocketAddr,
    },
}

impl CheckTarget {
    /// How the server proves who it is, where TLS is spoken.
    pub const fn tls(&self) -> Option<&TlsTarget> {
        match self {
            Self::Http(target) => target.tls.as_ref(),
            Self::Grpc(target) => target.tls.as_ref(),
            Self::Exec(_) | Self::Agent { .. } | Self::Tcp { .. } => None,
        }
    }
}

impl Check {
    /// The kind that the settings called it.
    pub const fn kind(&self) -> CheckKind {
        match &self.source {
            CheckSource::Reported { .. } => CheckKind::Ttl,
            CheckSource::Asked(asking) => match &asking.target {
                CheckTarget::Http(target) if target.tls.is_some() => CheckKind::Https,
                CheckTarget::Http(_) => CheckKind::Http,
                CheckTarget::Grpc(_) => CheckKind::Grpc,
                CheckTarget::Exec(_) => CheckKind::Exec,
                CheckTarget::Tcp { .. } => CheckKind::Tcp,
                CheckTarget::Agent { .. } => CheckKind::Agent,
            },
        }
    }

    /// The interval by default.
    pub const INTERVAL: Duration = Duration::from_secs(2);
    /// The shortest interval, and the shortest ttl: more often is load on the application, not knowledge.
    pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
    /// The timeout by default.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// The longest delay of the first check: an instance that takes longer to start is a matter for its health.
    pub const START_DELAY_MAX: Duration = Duration::from_secs(3_600);
    /// The longest ttl: who reports less than daily does not report.
    pub const TTL_MAX: Duration = Duration::from_secs(86_400);
    /// The rise by default; 1 for reports, which the application makes as it sees fit.
    pub const RISE: u32 = 2;
    /// The fall by default; 1 for reports.
    pub const FALL: u32 = 3;
}

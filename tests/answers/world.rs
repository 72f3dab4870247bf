//! A member, and the pods of one service around it.

use std::time::Duration;

use rollcall::registry::{Label, ServiceKey};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::line::Line;
use crate::member::{ClientEvent, Member};
use crate::record::Lookups;
use crate::sidecar::Sidecar;

/// What the sidecars ask for.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a primary waits that was away.
pub(crate) const FAILBACK_AFTER: Duration = Duration::from_secs(30);
/// From a verdict to the last answer that goes by it.
pub(crate) const REACTION: Duration = Duration::from_millis(100);
/// Long enough for all sidecars to start, or to come to rest.
pub(crate) const SETTLING: Duration = Duration::from_secs(10);

/// One pod of the service, or one that only reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) id: &'static str,
    /// Its address is 127.1.0.`number`, where nobody listens.
    pub(crate) number: u8,
    /// Its tier, if it has an instance.
    pub(crate) priority: Option<u16>,
}

pub(crate) const PRIMARIES: [Pod; 3] = [
    Pod { id: "a", number: 1, priority: Some(0) },
    Pod { id: "b", number: 2, priority: Some(0) },
    Pod { id: "c", number: 3, priority: Some(0) },
];
pub(crate) const STANDBY: Pod = Pod { id: "s", number: 9, priority: Some(10) };
pub(crate) const READER: Pod = Pod { id: "reader", number: 99, priority: None };

/// The member, and where pods keep what outlives their processes.
#[derive(Debug)]
pub(crate) struct World {
    member: Member,
    state_dirs: TempDir,
    seed: u64,
}

/// A primary, its standby, and a pod that only reads.
#[derive(Debug)]
pub(crate) struct Trio {
    pub(crate) a: Sidecar,
    pub(crate) s: Sidecar,
    pub(crate) reader: Sidecar,
}

impl Trio {
    pub(crate) fn all(&self) -> [&Sidecar; 3] {
        [&self.a, &self.s, &self.reader]
    }
}

impl World {
    /// What the test and the sidecars draw comes from one seed, which is printed; `ROLLCALL_SEED` sets it.
    pub(crate) fn start() -> Self {
        let seed = std::env::var("ROLLCALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
        eprintln!("ROLLCALL_SEED={seed}");
        fastrand::seed(seed);
        let state_dirs = tempfile::tempdir().expect("a folder");
        Self { member: Member::start(), state_dirs, seed }
    }

    /// A source of chance of the test's own.
    pub(crate) fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    /// A way to the member.
    pub(crate) fn line(&self) -> Line {
        Line::to(&self.member)
    }

    /// Starts a pod, which keeps nothing beyond its process.
    pub(crate) fn pod(&self, pod: &Pod, lookups: Lookups) -> Sidecar {
        Sidecar::start(pod, &self.member, None, lookups, self.seed)
    }

    /// Starts a pod with a state directory, which it finds again when it is started again.
    pub(crate) fn pod_with_state(&self, pod: &Pod, lookups: Lookups) -> Sidecar {
        let folder = self.state_dirs.path().join(pod.id);
        std::fs::create_dir_all(&folder).expect("a folder");
        Sidecar::start(pod, &self.member, Some(folder), lookups, self.seed)
    }

    /// A primary, its standby and a reader, at rest, which obey these settings of the service.
    pub(crate) async fn trio(&self, settings: &str, lookups: Lookups) -> Trio {
        let trio = Trio {
            a: self.pod_with_state(&PRIMARIES[0], lookups),
            s: self.pod(&STANDBY, lookups),
            reader: self.pod(&READER, lookups),
        };
        sleep(SETTLING).await;
        self.set(&trio.reader, settings).await;
        for sidecar in trio.all() {
            assert_eq!(sidecar.record.latest(), "a");
        }
        trio
    }

    /// What `rollcall service set` does.
    pub(crate) async fn set(&self, sidecar: &Sidecar, settings: &str) {
        let path = "/rollcall/services/default/web";
        sidecar.client.set(path, settings.to_owned(), None).await.expect("it is written");
        sleep(REACTION).await;
    }

    /// The sessions of these end at once, and they are told so when they come again.
    pub(crate) fn expire(&self, sidecars: &[&Sidecar]) {
        let sessions = sidecars.iter().map(|sidecar| sidecar.session()).collect();
        self.member.tell(ClientEvent::Expire(sessions));
    }
}

/// Settings with which primaries take their tier again by themselves.
pub(crate) fn automatic() -> String {
    format!(r#"{{"failback_after_s":{}}}"#, FAILBACK_AFTER.as_secs())
}

pub(crate) fn web_key() -> ServiceKey {
    ServiceKey { namespace: label("default"), name: label("web") }
}

pub(crate) fn label(text: &str) -> Label {
    Label::parse(text).expect("a label")
}

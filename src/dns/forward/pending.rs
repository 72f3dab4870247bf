//! A query on its way, and what its client is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;
use tokio::sync::watch;

use super::cache::{TTL_MAX, aged};
use super::explanation::Explanations;
use super::places::Place;
use super::question::Question;
use super::reply::Found;
use super::trouble::{Failed, Trouble};
use crate::dns::answer::{Answer, ExtendedError};
use crate::telemetry::{ForwardOutcome, Metrics};

/// What has become of a flight, once anything has.
pub(super) type Landing = Option<Result<Arc<Found>, Failed>>;
/// Waits for it.
pub(super) type Watcher = watch::Receiver<Landing>;

/// A query as its client made it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The question, in the client's letters.
    pub question: Question,
    /// Whether upstreams may be asked (RD).
    pub is_recursion_desired: bool,
    /// Whether it wants to know if the answer was validated (AD, or DO).
    pub wants_authentic: bool,
    /// Who asks.
    pub client: IpAddr,
}

/// A query that waits for upstreams.
#[derive(Debug)]
pub struct Pending {
    asked: Asked,
    landing: Watcher,
    /// What is given if nothing better comes in time.
    stale: Option<Arc<Found>>,
    metrics: Arc<Metrics>,
    _place: Place,
}

/// How old an answer is that is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given {
    /// Within its time.
    Fresh { age: Duration },
    /// Beyond it.
    Stale,
}

impl Pending {
    /// `asked`, which waits for the flight, in its place, and has an old answer to fall back on or not.
    pub(super) fn new(
        asked: Asked,
        landing: Watcher,
        stale: Option<Arc<Found>>,
        place: Place,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.forward.waiting.inc();
        Self { asked, landing, stale, metrics, _place: place }
    }

    /// Waits for the answer: that of an upstream, an old one if there is one, or why there is none.
    pub async fn answer(mut self) -> Answer {
        let landed = self.landing.wait_for(Option::is_some);
        let landed = match self.stale {
            Some(_) => tokio::time::timeout(STALE_PATIENCE, landed).await.ok(),
            // The flight keeps to its time.
            None => Some(landed.await),
        };
        // A flight that is lost, as at shutdown, says nothing.
        let result = landed.and_then(Result::ok).and_then(|landing| landing.clone());
        let (outcome, answer) = match (result, &self.stale) {
            (Some(Ok(found)), _) => {
                let given = Given::Fresh { age: Duration::ZERO };
                (ForwardOutcome::Upstream, self.asked.answer(&found, given))
            }
            (_, Some(found)) => (ForwardOutcome::Stale, self.asked.answer(found, Given::Stale)),
            (Some(Err(failed)), None) => (ForwardOutcome::Failed, failed.answer()),
            (None, None) => (ForwardOutcome::Failed, Failed::from(Trouble::Unreachable).answer()),
        };
        self.metrics.forward.count_query(outcome);
        answer
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.metrics.forward.waiting.dec();
    }
}

impl Asked {
    /// What was found as this client is told it.
    pub(super) fn answer(&self, found: &Found, given: Given) -> Answer {
        let records = |records: &[Record]| {
            let mut records = match given {
                Given::Fresh { age } => aged(records, age, TTL_MAX),
                Given::Stale => with_ttl(records, STALE_TTL),
            };
            for record in records.iter_mut().filter(|record| record.name == self.question.name) {
                record.name.clone_from(&self.question.name);
            }
            records
        };
        let (extended, passed_on) = match (given, found.rcode) {
            (Given::Fresh { .. }, _) => (None, found.explanations.clone()),
            (Given::Stale, ResponseCode::NXDomain) => {
                (Some(ExtendedError::StaleNxDomain), Explanations::default())
            }
            (Given::Stale, _) => (Some(ExtendedError::StaleAnswer), Explanations::default()),
        };
        // Signatures may be over, too, by now.
        let is_authentic = found.is_authentic && matches!(given, Given::Fresh { .. });
        Answer {
            rcode: found.rcode,
            answers: records(&found.answers),
            authority: records(&found.authority),
            is_recursive: true,
            is_authentic: is_authentic && self.wants_authentic,
            extended,
            passed_on,
            ..Answer::default()
        }
    }
}

/// The records with one TTL. That of an SOA counts for negative answers, and its minimum, too.
fn with_ttl(records: &[Record], ttl: Duration) -> Vec<Record> {
    let mut records = records.to_vec();
    let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    records.iter_mut().for_each(|record| record.ttl = ttl);
    records
}

/// How long a client with a stale answer to fall back on waits for a better one (RFC 8767 section 5).
const STALE_PATIENCE: Duration = Duration::from_millis(1_800);
/// The TTL of stale answers (RFC 8767 section 4).
const STALE_TTL: Duration = Duration::from_secs(30);

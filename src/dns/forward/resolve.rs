//! One question to the upstreams of a group, one after the other, until one answers.
//!
//! ```text
//! first upstream ──── timeout ──── next upstream, while the first may still answer ──── … ──── all is over
//!        └─ cannot be reached, or does not want: the next at once
//! ```
//!
//! An upstream that is late is not given up: a resolver that has to ask around the world is slow the first time, and asking it
//! again and again from the start would never get its answer.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::exchange::{Failure, Manner, ask};
use super::explanation::Explanations;
use super::question::Question;
use super::reply::{Found, Mismatch};
use super::routes::Group;
use super::trouble::{Failed, Trouble};
use super::upstream::Upstream;
use crate::clock;
use crate::telemetry::{Metrics, UpstreamFailure};

/// Asks until there is an answer, for [`TIME_MAX`] at most.
///
/// # Errors
///
/// When there is none; the failure that says most.
pub(super) async fn resolve(
    group: &Group,
    question: &Question,
    is_case_random: bool,
    metrics: &Metrics,
) -> Result<Found, Failed> {
    let mut explanations = Explanations::default();
    let failed = |met: Option<Trouble>, explanations| {
        Err(Failed { trouble: met.unwrap_or(Trouble::Unreachable), explanations })
    };
    let manner = Manner { is_case_random, is_over_tcp: group.manners.is_over_tcp, metrics };
    let order = group.in_order();
    if order.is_empty() {
        return Err(Trouble::NoUpstream.into());
    }
    let rounds = usize::try_from(group.manners.attempts).unwrap_or(1);
    let tries = (order.len() * rounds).min(TRIES_MAX);
    let mut left: VecDeque<Arc<Upstream>> = order.iter().cycle().take(tries).cloned().collect();
    // All of them have their turn within the time.
    let patience = group.manners.timeout.min(TIME_MAX / u32::try_from(tries).unwrap_or(1));
    let mut running = FuturesUnordered::new();
    let mut late: Option<Arc<Upstream>> = None;
    let mut met: Option<Trouble> = None;
    let mut end = pin!(sleep(TIME_MAX));
    loop {
        // 1. The next of them, when it is time.
        if let Some(upstream) = left.pop_front() {
            late = Some(upstream.clone());
            running.push(timed(upstream, question, manner));
        } else if running.is_empty() {
            return failed(met, explanations);
        }
        // 2. What becomes of those that are asked.
        let mut next = pin!(sleep(patience));
        loop {
            tokio::select! {
                biased;
                Some((upstream, took, result)) = running.next() => match result {
                    Ok(found) => {
                        upstream.health().succeed();
                        metrics.forward.observe_answer(took);
                        return Ok(found);
                    }
                    Err(failure) => {
                        note(&upstream, &failure, question, metrics);
                        met = Some(worse(met, &failure));
                        if matches!(failure, Failure::Refused(..) | Failure::Garbled(Mismatch::Content)) {
                            // It will not say anything else the next time.
                            left.retain(|other| !Arc::ptr_eq(other, &upstream));
                        }
                        if let Failure::Refused(_, said) = failure {
                            explanations = if explanations.is_empty() { said } else { explanations };
                        }
                        late = late.filter(|late| !Arc::ptr_eq(late, &upstream));
                        break;
                    }
                },
                () = &mut next, if late.is_some() => {
                    if let Some(late) = late.take() {
                        note_silence(&late, clock::now(), metrics);
                    }
                    let says_more = |met: &Trouble| matches!(met, Trouble::Refused | Trouble::Unreadable);
                    met = Some(met.filter(says_more).unwrap_or(Trouble::Unreachable));
                    if !left.is_empty() {
                        break;
                    }
                }
                () = &mut end => return failed(met, explanations),
            }
        }
    }
}

/// Asks an upstream that was set back whether it is back, and notes what comes of it.
pub(super) async fn probe(upstream: Arc<Upstream>, question: &Question, manner: Manner<'_>) {
    match tokio::time::timeout(PROBE_TIMEOUT, ask(&upstream, question, manner)).await {
        Ok(Ok(_)) => {
            upstream.health().succeed();
            info!(upstream = %upstream.address, "an upstream resolver is back");
        }
        Ok(Err(failure)) => note(&upstream, &failure, question, manner.metrics),
        Err(_) => note_silence(&upstream, clock::now(), manner.metrics),
    }
}

async fn timed<'a>(
    upstream: Arc<Upstream>,
    question: &'a Question,
    manner: Manner<'a>,
) -> (Arc<Upstream>, Duration, Result<Found, Failure>) {
    let begin = clock::now();
    let result = ask(&upstream, question, manner).await;
    (upstream, clock::now().saturating_duration_since(begin), result)
}

fn note(upstream: &Upstream, failure: &Failure, question: &Question, metrics: &Metrics) {
    metrics.forward.count_failure(failure.reason());
    debug!(upstream = %upstream.address, %failure, "an upstream resolver does not answer");
    if failure.is_of_the_question(question.kind) {
        // It lives, and says what it knows.
        upstream.health().succeed();
    } else {
        set_back(upstream, clock::now(), failure);
    }
}

fn note_silence(upstream: &Upstream, now: Instant, metrics: &Metrics) {
    metrics.forward.count_failure(UpstreamFailure::Silence);
    set_back(upstream, now, &"it does not answer in time");
}

fn set_back(upstream: &Upstream, now: Instant, reason: &dyn std::fmt::Display) {
    let is_new = upstream.health().fail(now);
    if is_new {
        warn!(upstream = %upstream.address, %reason, "an upstream resolver is asked last until it answers again");
    }
}

/// What says more: an upstream that refuses has been reached, one that is silent may have been.
fn worse(met: Option<Trouble>, failure: &Failure) -> Trouble {
    match (met, failure) {
        (_, Failure::Refused(..)) | (Some(Trouble::Refused), _) => Trouble::Refused,
        (_, Failure::Garbled(Mismatch::Content)) | (Some(Trouble::Unreadable), _) => Trouble::Unreadable,
        (Some(Trouble::Unreachable), _) | (_, Failure::Garbled(_) | Failure::Question(_)) => {
            Trouble::Unreachable
        }
        (_, Failure::Network(_) | Failure::Tls(_)) => Trouble::Network,
    }
}

/// How long a question is asked in all: the C library's clients give up after 5 s.
pub(super) const TIME_MAX: Duration = Duration::from_millis(4_500);
/// Times that upstreams are asked for one question.
pub(super) const TRIES_MAX: usize = 8;
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

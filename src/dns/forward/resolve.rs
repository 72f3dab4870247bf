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
use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::exchange::{Failure, Manner, ask};
use super::explanation::Explanations;
use super::health::{Lapse, News};
use super::question::Question;
use super::reply::{Found, Mismatch};
use super::routes::{Group, Manners};
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
    let mut late: Option<(Arc<Upstream>, Instant)> = None;
    let mut met: Option<Trouble> = None;
    let mut end = pin!(sleep(TIME_MAX));
    loop {
        // 1. The next of them, when it is time.
        if let Some(upstream) = left.pop_front() {
            late = Some((upstream.clone(), clock::now()));
            running.push(timed(upstream, question, manner));
        } else if running.is_empty() {
            return failed(met, explanations);
        }
        // 2. What becomes of those that are asked.
        let mut next = pin!(sleep(patience));
        loop {
            tokio::select! {
                biased;
                Some((upstream, sent, result)) = running.next() => match result {
                    Ok(found) => {
                        let now = clock::now();
                        let news = upstream.health().succeed(now);
                        tell(&upstream, news, &"it answers");
                        metrics.forward.observe_answer(now.saturating_duration_since(sent));
                        return Ok(found);
                    }
                    Err(failure) => {
                        note((&upstream, sent), &failure, question, metrics);
                        met = Some(worse(met, &failure));
                        if matches!(failure, Failure::Refused(..) | Failure::Garbled(Mismatch::Content)) {
                            // It will not say anything else the next time.
                            left.retain(|other| !Arc::ptr_eq(other, &upstream));
                        }
                        if let Failure::Refused(_, said) = failure {
                            explanations = if explanations.is_empty() { said } else { explanations };
                        }
                        late = late.filter(|(late, _)| !Arc::ptr_eq(late, &upstream));
                        break;
                    }
                },
                () = &mut next, if late.is_some() => {
                    if let Some((late, sent)) = late.take() {
                        metrics.forward.count_failure(UpstreamFailure::Silence);
                        let news = late.health().fail(Lapse::Silence(sent), clock::now());
                        tell(&late, news, &SILENT);
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

/// Asks an upstream our own question for as long as one is waited for, and notes what comes of it.
pub(super) async fn probe(upstream: Arc<Upstream>, manners: Manners, metrics: &Metrics) {
    // Letters are learnt about from names that have any.
    let manner = Manner { is_case_random: false, is_over_tcp: manners.is_over_tcp, metrics };
    let question = Question::of_our_own();
    let asking = ask(&upstream, &question, manner);
    let result = timeout(manners.timeout.min(TIME_MAX), asking).await;
    let news = upstream.health().end_probe(clock::now());
    match result {
        Ok(Ok(_)) => tell(&upstream, news, &"it answers"),
        Ok(Err(failure)) => {
            metrics.forward.count_failure(failure.reason());
            tell(&upstream, news, &failure);
        }
        Err(_) => {
            metrics.forward.count_failure(UpstreamFailure::Silence);
            tell(&upstream, news, &SILENT);
        }
    }
}

/// Which of them, when it was asked, and what it says.
async fn timed<'a>(
    upstream: Arc<Upstream>,
    question: &'a Question,
    manner: Manner<'a>,
) -> (Arc<Upstream>, Instant, Result<Found, Failure>) {
    let sent = clock::now();
    let result = ask(&upstream, question, manner).await;
    (upstream, sent, result)
}

fn note((upstream, sent): (&Upstream, Instant), failure: &Failure, question: &Question, metrics: &Metrics) {
    metrics.forward.count_failure(failure.reason());
    debug!(upstream = %upstream.address, %failure, "an upstream resolver does not answer");
    let lapse = match failure {
        // It lives, and says what it knows.
        _ if failure.is_of_the_question(question.kind) => None,
        Failure::Refused(..) => Some(Lapse::Refusal),
        Failure::Network(_) | Failure::Tls(_) | Failure::Garbled(_) | Failure::Question(_) => {
            Some(Lapse::Network(sent))
        }
    };
    let now = clock::now();
    let news = match lapse {
        None => upstream.health().succeed(now),
        Some(lapse) => upstream.health().fail(lapse, now),
    };
    tell(upstream, news, failure);
}

fn tell(upstream: &Upstream, news: News, reason: &dyn Display) {
    let upstream = &upstream.address;
    match news {
        News::Nothing => {}
        News::SetBack { times } => {
            warn!(%upstream, %reason, times, "an upstream resolver is asked last until it answers again");
        }
        News::SetBackAgain { times } => {
            debug!(%upstream, %reason, times, "an upstream resolver is asked last until it answers again");
        }
        News::Back => info!(%upstream, "an upstream resolver is back"),
        News::BackAgain => debug!(%upstream, "an upstream resolver is back"),
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
const SILENT: &str = "it does not answer in time";

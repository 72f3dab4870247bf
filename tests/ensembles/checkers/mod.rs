//! The promises of an ensemble, judged on what its clients saw.
//!
//! ```text
//! History ──► Model (sessions, and every change of every path) ──► one checker a promise ──► violations
//! ```
//!
//! A checker says only what is certain: where a request was never answered, both outcomes are allowed, and one that
//! shows in a later read is taken as carried out from then on. Each is shown below, in its own tests, to find the
//! mistakes it is there for.

mod acknowledged;
mod converged;
mod ephemeral;
mod leader;
pub(crate) mod linear;
pub(crate) mod model;
mod monotone;
#[cfg(test)]
pub(crate) mod sample;
mod timeline;
mod watch;
mod watch_below;

use std::fmt;

use crate::history::History;
use model::Model;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// Which promise, as `C-ACK lost`.
    pub(crate) rule: &'static str,
    /// With what, where.
    pub(crate) text: String,
    /// The epoch that the wrong answer is from, where that says whose fault it is.
    pub(crate) epoch: Option<i64>,
}

/// Runs every checker.
pub(crate) fn check(history: &History) -> Vec<Violation> {
    let model = Model::new(history);
    [
        acknowledged::check(&model),
        linear::check(&model),
        monotone::check(&model),
        ephemeral::check(&model),
        watch::check(&model),
        watch_below::check(&model),
        converged::check(&model),
        leader::check(&model),
    ]
    .concat()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Makes a violation of `rule`.
fn violation(rule: &'static str, text: String) -> Violation {
    Violation { rule, text, epoch: None }
}

//! What a request names: a service in its path, and parameters behind the `?`; strict, so that what cannot be obeyed is never passed
//! over.
//!
//! Values are percent-encoded (RFC 3986 section 2.1) UTF-8, and `+` is a blank, as forms write it.

use std::time::Duration;

use hyper::StatusCode;

use super::listener::HttpResponse;
use super::respond::error;
use crate::clock;
use crate::config::{duration, timestamp};
use crate::registry::rehearse::{Loss, LossError};
use crate::registry::{Label, Reason, ServiceKey};

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// `wait`: how long the answer may be held back.
    pub(super) wait: Option<Duration>,
    /// `reason`: why something is done.
    pub(super) reason: Option<Reason>,
    /// `at`: a time that is past, ms since 1970.
    pub(super) at_ms: Option<i64>,
    /// `lose`: what is lost, any number of times.
    pub(super) losses: Vec<Loss>,
}

/// A parameter that cannot be obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParameterProblem {
    error: String,
    hint: String,
}

impl Parameters {
    /// Reads a query, of which these are `allowed`, each once, but for `lose`.
    pub(super) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, ParameterProblem> {
        let mut parameters = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !allowed.contains(&key) {
                let hint = match allowed {
                    [] => "this path takes no parameters".to_owned(),
                    names => format!("this path takes {}", names.join(", ")),
                };
                return Err(ParameterProblem { error: format!("there is no parameter {key:?}"), hint });
            }
            let value = decode(value).ok_or_else(|| ParameterProblem {
                error: format!("the value of {key} is not percent-encoded UTF-8"),
                hint: "write %20 for a blank and %25 for a percent sign".to_owned(),
            })?;
            let is_second = match key {
                "wait" => parameters.wait.replace(parse_wait(&value)?).is_some(),
                "reason" => parameters.reason.replace(parse_reason(&value)?).is_some(),
                "at" => parameters.at_ms.replace(parse_at(&value)?).is_some(),
                "lose" => {
                    parameters.add_loss(&value)?;
                    false
                }
                other => unreachable!("{other} is allowed nowhere"),
            };
            if is_second {
                let hint = "give it once".to_owned();
                return Err(ParameterProblem { error: format!("{key} stands twice"), hint });
            }
        }
        Ok(parameters)
    }

    fn add_loss(&mut self, value: &str) -> Result<(), ParameterProblem> {
        let loss = value.parse().map_err(|error: LossError| ParameterProblem {
            error: error.to_string(),
            hint: "such as lose=zone%3Da or lose=web/2".to_owned(),
        })?;
        if self.losses.len() == LOSSES_MAX {
            let error = format!("more than {LOSSES_MAX} losses at once");
            return Err(ParameterProblem { error, hint: "lose less".to_owned() });
        }
        self.losses.push(loss);
        Ok(())
    }
}

impl ParameterProblem {
    pub(super) fn into_response(self) -> HttpResponse {
        error(StatusCode::BAD_REQUEST, &self.error, &self.hint)
    }
}

/// `None` when no service can be called so.
pub(super) fn parse_key(namespace: &str, name: &str) -> Option<ServiceKey> {
    Some(ServiceKey { namespace: Label::parse(namespace).ok()?, name: Label::parse(name).ok()? })
}

fn parse_wait(value: &str) -> Result<Duration, ParameterProblem> {
    match duration::parse(value) {
        Ok(wait) if wait <= WAIT_MAX => Ok(wait),
        Ok(_) => Err(ParameterProblem {
            error: format!("wait={value} is longer than 10m"),
            hint: "wait at most 10m and ask again".to_owned(),
        }),
        Err(_) => Err(ParameterProblem {
            error: format!("wait={value} is not a duration"),
            hint: "write a whole number and a unit (ms, s or m), such as wait=30s".to_owned(),
        }),
    }
}

fn parse_at(value: &str) -> Result<i64, ParameterProblem> {
    timestamp::parse(value, clock::unix_ms()).map_err(|error| ParameterProblem {
        error: error.to_string(),
        hint: "such as at=2026-01-31T12:00:00Z or at=90s".to_owned(),
    })
}

fn parse_reason(value: &str) -> Result<Reason, ParameterProblem> {
    Reason::parse(value)
        .map_err(|error| ParameterProblem { error: error.to_string(), hint: "give a short line".to_owned() })
}

/// `None` when it is not what it should be.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Losses of one rehearsal.
const LOSSES_MAX: usize = 64;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_checked() {
        let parse = |query| Parameters::parse(Some(query), &["wait", "reason", "at", "lose"]);
        let good = parse("reason=new+disk%20%E2%86%92%20sdb%2B&wait=1m30s").unwrap();
        assert_eq!(good.reason.unwrap().as_str(), "new disk \u{2192} sdb+");
        assert_eq!(good.wait, Some(Duration::from_secs(90)));
        assert_eq!(parse("").unwrap(), Parameters::default());
        assert_eq!(parse("reason=").unwrap().reason, Some(Reason::default()));
        for (query, told) in [
            ("reason=%", "percent-encoded"),
            ("reason=%2", "percent-encoded"),
            ("reason=%zz", "percent-encoded"),
            ("reason=%ff", "percent-encoded"),
            ("reason=a%0Ab", "control characters"),
            ("wait=1s&wait=2s", "stands twice"),
            ("wait=11m", "longer than 10m"),
            ("Wait=1s", "no parameter"),
            ("at=yesterday", "is not a time"),
            ("lose=rack%3D1", "cannot be lost"),
        ] {
            let problem = parse(query).unwrap_err();
            assert!(problem.error.contains(told), "{query}: {problem:?}");
        }
        let long = format!("reason={}", "x".repeat(Reason::BYTES_MAX + 1));
        assert!(parse(&long).unwrap_err().error.contains("longer than"));
    }
}

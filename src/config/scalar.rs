//! Values that are checked after parsing, so that all mistakes are told at once.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::{Mistake, duration};

/// A text or number of the settings file, kept as text until it is checked.
///
/// A mistake in it is then found by the pass that finds all others, not by the parser that stops at the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar(pub String);

impl Scalar {
    /// The duration that it stands for, or a [`Mistake`] at `path`.
    pub fn to_duration(&self, path: &str, mistakes: &mut Vec<Mistake>) -> Option<Duration> {
        match duration::parse(&self.0) {
            Ok(duration) => Some(duration),
            Err(_) => {
                mistakes.push(Mistake::new(
                    path,
                    format!("{:?} is not a duration", self.0),
                    "write a whole number and a unit (ms, s, m, h or d), such as 500ms or 2s",
                ));
                None
            }
        }
    }
}

impl Scalar {
    /// As [`Scalar::to_duration`], from `min` to `max`.
    pub fn to_duration_within(
        &self,
        path: &str,
        (min, max): (Duration, Duration),
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Duration> {
        let given = self.to_duration(path, mistakes)?;
        if (min..=max).contains(&given) {
            return Some(given);
        }
        mistakes.push(Mistake::new(
            path,
            format!("{} is out of range", duration::text(given)),
            format!("write a duration from {} to {}", duration::text(min), duration::text(max)),
        ));
        None
    }
}

/// The address that `text` stands for, `default` when it is absent, or a [`Mistake`] at `path`.
pub fn socket_addr(
    path: &str,
    text: Option<&str>,
    default: &str,
    mistakes: &mut Vec<Mistake>,
) -> Option<SocketAddr> {
    let text = text.unwrap_or(default);
    let address = text.parse().ok();
    if address.is_none() {
        mistakes.push(Mistake::new(
            path,
            format!("{text:?} is not an IP address with a port"),
            format!("write one such as {default}"),
        ));
    }
    address
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }
}

//! Durations as people write them in settings: `500ms`, `2s`, `5m`, `1h`, `1d`, and sums such as `1m30s`.
//!
//! [`parse`] and [`text`] are each other's inverse for whole ms. Settings hold the text in a [`Scalar`](super::Scalar), so
//! that its mistakes are reported together with all others.

use std::time::Duration;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration: write a whole number and a unit (ms, s, m, h or d), such as 500ms or 2s"
)]
pub struct DurationError {
    text: String,
}

/// Units and their length in ms, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration.
///
/// # Errors
///
/// When the text is none, or longer than 2^64 ms.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total_ms = 0_u64;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters =
            after.len() - after.trim_start_matches(|character: char| character.is_ascii_lowercase()).len();
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| error())?;
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        total_ms = number.checked_mul(*unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(error)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(total_ms));
        }
        rest = after;
    }
}

/// Writes a duration in the longest unit that divides it; parts of a ms are dropped.
pub fn text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match UNITS.iter().find(|(_, unit_ms)| ms != 0 && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations() {
        for (good, ms) in [("500ms", 500), ("2s", 2_000), ("1m30s", 90_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse(good), Ok(Duration::from_millis(ms)), "{good}");
        }
        for bad in
            ["", "2", "s", "2 s", "-1s", "2S", "1.5s", "2s!", "99999999999999999999s", "9999999999999999d"]
        {
            assert!(parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for ms in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse(&text(duration)), Ok(duration));
        }
        assert_eq!(text(Duration::from_millis(2_000)), "2s");
    }
}

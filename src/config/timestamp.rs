//! Times as people write and read them: RFC 3339, or how long ago.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::duration;

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a time: write one such as 2026-01-31T12:00:00Z, or how long ago it was, such as 90s"
)]
pub struct TimestampError {
    text: String,
}

/// Always with ms and in UTC, so that times of a column stand below one another.
const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// `2026-01-31T12:00:00.000Z` of ms since 1970; a number of a time that no calendar has is written as it is.
pub fn text(unix_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    time.and_then(|time| time.format(FORMAT).ok()).unwrap_or_else(|| format!("{unix_ms} ms"))
}

/// Reads a time of RFC 3339, or a duration before `now_ms`, to ms since 1970.
///
/// # Errors
///
/// When it is neither.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, TimestampError> {
    let error = || TimestampError { text: text.to_owned() };
    if let Ok(ago) = duration::parse(text) {
        let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| error())?;
        return Ok(now_ms.saturating_sub(ago_ms));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| error())?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar_both_ways() {
        for (unix_ms, written) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(text(unix_ms), written);
            assert_eq!(parse(written, 0), Ok(unix_ms));
        }
        assert_eq!(parse("2000-02-29T01:00:00+01:00", 0), Ok(951_782_400_000));
        assert_eq!(text(i64::MAX), format!("{} ms", i64::MAX));
    }

    #[test]
    fn a_duration_is_that_long_ago() {
        assert_eq!(parse("1m30s", 100_000), Ok(10_000));
        for bad in ["", "yesterday", "12:00", "2026-01-31", "2026-13-01T00:00:00Z", "-90s"] {
            assert!(parse(bad, 0).is_err(), "{bad}");
        }
    }
}

//! What the body of a response must contain: a regular expression. Pure.
//!
//! One without operators is a text that is found wherever it stands, as soon as it is there. What has operators is asked of the whole body, or
//! of as much as is read of it, since an expression may say where it begins and ends.

use std::fmt;

use bytes::{Bytes, BytesMut};
use regex_lite::{Regex, RegexBuilder};

/// What is looked for, within the first [`BODY_BYTES_MAX`] bytes.
#[derive(Clone, Debug)]
pub struct BodyPattern {
    text: String,
    /// `None` where the text stands for itself.
    regex: Option<Regex>,
}

/// A text that is no regular expression.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(regex_lite::Error);

impl BodyPattern {
    /// Reads a regular expression of the syntax of `regex_lite`, in which `\d`, `\w`, `\s` and letter case are those of ASCII.
    ///
    /// # Errors
    ///
    /// When it is none, or takes too much memory.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let is_literal = !text.contains(OPERATORS);
        let compile = || RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        let regex = if is_literal { None } else { Some(compile().map_err(PatternError)?) };
        Ok(Self { text: text.to_owned(), regex })
    }

    /// It as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for BodyPattern {}

impl fmt::Display for BodyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A body as it comes in, of which no more is kept than is looked at.
#[derive(Debug)]
pub(super) struct Search<'a> {
    pattern: &'a BodyPattern,
    read: BytesMut,
}

impl<'a> Search<'a> {
    pub(super) fn new(pattern: &'a BodyPattern) -> Self {
        Self { pattern, read: BytesMut::new() }
    }

    /// Takes more of the body; returns whether it is clear by now that it has what it must have.
    pub(super) fn push(&mut self, data: &Bytes) -> bool {
        let text = &self.pattern.text;
        // Where a text may begin that ends in the new bytes.
        let from = self.read.len().saturating_sub(text.len());
        let room = BODY_BYTES_MAX - self.read.len();
        self.read.extend_from_slice(&data[..data.len().min(room)]);
        self.pattern.regex.is_none() && contains(&self.read[from..], text.as_bytes())
    }

    /// Whether no more of the body is looked at.
    pub(super) fn is_full(&self) -> bool {
        self.read.len() == BODY_BYTES_MAX
    }

    /// How much of it was.
    pub(super) fn bytes(&self) -> usize {
        self.read.len()
    }

    /// Whether the body has what it must have, now that nothing more comes.
    pub(super) fn finish(&self) -> bool {
        match &self.pattern.regex {
            Some(regex) => regex.is_match(&String::from_utf8_lossy(&self.read)),
            None => contains(&self.read, self.pattern.text.as_bytes()),
        }
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// What makes an expression more than a text.
const OPERATORS: [char; 14] = ['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'];
/// Bytes of a body that are looked at: a health page is shorter, and a body without end must not fill the memory.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Memory of a compiled expression: an expression is tried in all its states at each character of the body, and other tasks wait for that.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_asked_of_the_whole_body() {
        for (pattern, body, is_found) in [
            (r"ready", "not ready", true),
            (r"all-good & well", "all-good & well", true),
            (r"^ready$", "ready", true),
            (r"^ready$", "not ready", false),
            (r#""status"\s*:\s*"(up|warn)""#, "{\"status\" : \"up\"}", true),
            (r#""status"\s*:\s*"(up|warn)""#, "{\"status\" : \"down\"}", false),
            (r"(?i)OK", "ok", true),
            (r"queue: \d{1,3}\b", "queue: 1000", false),
            (r"a\+b", "a+b", true),
        ] {
            let pattern = BodyPattern::parse(pattern).unwrap();
            // In pieces, the first of which has it already.
            let mut search = Search::new(&pattern);
            let is_found_early = search.push(&Bytes::copy_from_slice(body.as_bytes()));
            assert_eq!(is_found_early, is_found && pattern.regex.is_none(), "{pattern}");
            assert_eq!(search.finish(), is_found, "{pattern}");
        }
        let pattern = BodyPattern::parse("^ready$").unwrap();
        let mut search = Search::new(&pattern);
        assert!(
            !search.push(&Bytes::from_static(b"ready")) && !search.push(&Bytes::from_static(b", almost"))
        );
        assert!(!search.finish());
    }

    #[test]
    fn bytes_that_are_no_text_are_passed_over() {
        let pattern = BodyPattern::parse("ready|up").unwrap();
        let mut search = Search::new(&pattern);
        search.push(&Bytes::from_static(b"\xff\xfe up \xff"));
        assert!(search.finish());
    }

    #[test]
    fn what_is_no_expression_or_too_large_a_one_is_refused() {
        for bad in ["(", "[a", "*", "{\"a\":1}", "(a{100}){100}{100}"] {
            assert!(BodyPattern::parse(bad).is_err(), "{bad}");
        }
    }
}

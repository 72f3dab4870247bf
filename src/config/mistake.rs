//! One mistake in a settings file, and how it is told.

use std::fmt;

/// What is wrong at a path, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The key at fault, such as `services[0].checks[1].interval`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do; empty when the message says it.
    pub remedy: String,
}

impl Mistake {
    /// A mistake at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), remedy: remedy.into() }
    }

    /// Whether it is a key at the top of the file that the reader does not know, as in another role's file.
    pub fn is_unknown_key_at_top(&self) -> bool {
        self.message == Self::UNKNOWN_KEY && !self.path.contains(['.', '['])
    }

    pub(super) const UNKNOWN_KEY: &str = "unknown key";
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&shortened(&self.message))?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A mistake and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocatedMistake {
    /// Where the key or value at fault begins.
    pub position: Position,
    /// What is wrong there.
    pub mistake: Mistake,
}

impl LocatedMistake {
    /// One that concerns the file as a whole.
    pub fn of_file(message: impl Into<String>) -> Self {
        Self { position: Position { line: 1, column: 1 }, mistake: Mistake::new("", message, "") }
    }
}

impl fmt::Display for LocatedMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, mistake } = self;
        write!(f, "{}:{}: {mistake}", position.line, position.column)
    }
}

/// Characters of the longest message; what a file says is repeated no further than that.
const MESSAGE_CHARS_MAX: usize = 300;

fn shortened(message: &str) -> String {
    // Line breaks and control characters of the file must not reach a terminal as such.
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    let mut characters = message.chars().map(printable);
    let start: String = characters.by_ref().take(MESSAGE_CHARS_MAX).collect();
    if characters.next().is_some() { start + "…" } else { start }
}

/// One line a mistake, as compilers print them.
pub(super) fn render(file: &str, mistakes: &[LocatedMistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(|mistake| format!("{file}:{mistake}")).collect();
    lines.join("\n")
}

/// The one of `known` that `word` may have been meant to be, a typo or two away.
pub fn nearest_word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let with_distance = known.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    let (distance, nearest) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= (nearest.len() / 3).clamp(1, 3)).then_some(nearest)
}

/// What to do about a word that is none of `known`.
pub(super) fn remedy_for_unknown(word: &str, known: &[String]) -> String {
    let advice = nearest_word(word, known.iter().map(String::as_str))
        .map_or_else(|| "remove it".to_owned(), |nearest| format!("did you mean {nearest:?}?"));
    if known.is_empty() { advice } else { format!("{advice} (known: {})", known.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["interval", "timeout", "kind"].map(str::to_owned);
        assert!(remedy_for_unknown("intervall", &known).starts_with("did you mean \"interval\"?"));
        assert!(remedy_for_unknown("knid", &known).starts_with("did you mean \"kind\"?"));
        assert!(remedy_for_unknown("colour", &known).starts_with("remove it (known: interval"));
        assert_eq!(remedy_for_unknown("x", &[]), "remove it");
    }

    #[test]
    fn a_long_or_wild_value_does_not_flood_the_terminal() {
        let mistake = Mistake::new("", format!("\u{1b}[31m{}", "x".repeat(1_000)), "");
        let text = LocatedMistake { position: Position { line: 1, column: 1 }, mistake }.to_string();
        assert!(text.chars().count() < 320 && !text.contains('\u{1b}'));
    }
}

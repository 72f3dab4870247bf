//! What serde says about a value, in the words of who wrote the file.
//!
//! serde's errors are texts; those of its derives have a few fixed shapes, which are taken apart here. Any other text
//! (a type's own error) is passed on as it is.

use super::mistake::remedy_for_unknown;

/// What serde found wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// A key that the type does not have.
    UnknownKey { key: String, remedy: String },
    /// A key that the type needs.
    MissingKey { key: String },
    /// A word that is none of the type's, of which the first is given.
    UnknownWord { message: String, remedy: String, first_known: Option<String> },
    /// A value of the wrong kind or out of range.
    WrongValue { message: String, remedy: String },
}

impl Finding {
    /// Takes serde's text apart.
    pub(super) fn of(text: &str) -> Self {
        if let Some(rest) = text.strip_prefix("unknown field ") {
            let (key, known) = word_and_known(rest);
            return Self::UnknownKey { remedy: remedy_for_unknown(&key, &known), key };
        }
        if let Some(rest) = text.strip_prefix("missing field ") {
            return Self::MissingKey { key: rest.trim_matches('`').to_owned() };
        }
        if let Some(rest) = text.strip_prefix("unknown variant ") {
            let (word, known) = word_and_known(rest);
            return Self::UnknownWord {
                message: format!("unknown value {word:?}"),
                remedy: remedy_for_unknown(&word, &known).replace("remove it", "use a known one"),
                first_known: known.into_iter().next(),
            };
        }
        let type_or_value = text.strip_prefix("invalid type: ").map(|rest| (rest, true));
        let type_or_value =
            type_or_value.or_else(|| text.strip_prefix("invalid value: ").map(|rest| (rest, false)));
        if let Some((rest, is_type)) = type_or_value
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            let found = found_text(found);
            let (needed, remedy) = expected_text(expected);
            let remedy = if needed == "a text" && found.starts_with("the ") {
                "put it in quotes".to_owned()
            } else {
                remedy
            };
            // A negative number for an unsigned type is "invalid value" to some readers and "invalid type" to others.
            let is_range =
                expected_range(expected).is_some() && found.starts_with("the number") && !found.contains('.');
            let message = if is_type && !is_range {
                format!("{found} stands where {needed} is needed")
            } else {
                format!("{found} does not fit")
            };
            return Self::WrongValue { message, remedy };
        }
        Self::WrongValue { message: text.to_owned(), remedy: String::new() }
    }
}

/// Reads `` `word`, expected one of `a`, `b` ``.
fn word_and_known(text: &str) -> (String, Vec<String>) {
    let end = text.find("`, expected ").or_else(|| text.find("`, there are ")).unwrap_or(text.len());
    let (word, known) = text.split_at(end);
    let known = known.trim_start_matches('`');
    let known = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    (word.trim_start_matches('`').to_owned(), known)
}

fn found_text(found: &str) -> String {
    let quoted = |kind: &str| found.strip_prefix(kind).map(|rest| rest.trim_matches([' ', '`']).to_owned());
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    if let Some(number) = quoted("integer").or_else(|| quoted("floating point")) {
        return format!("the number {number}");
    }
    if let Some(boolean) = quoted("boolean") {
        return format!("the word {boolean}");
    }
    match found {
        "unit value" | "null" | "Option value" => "no value".to_owned(),
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

/// What is needed, and the remedy.
fn expected_text(expected: &str) -> (String, String) {
    if let Some(range) = expected_range(expected) {
        return ("a whole number".to_owned(), format!("write a whole number {range}"));
    }
    let (needed, remedy) = match expected {
        "a string" | "string" => ("a text", "write a text"),
        "a boolean" => ("true or false", "write true or false"),
        "a sequence" => ("a list", "write a list, each item after a hyphen"),
        "a map" => ("a mapping", "write keys with values"),
        "f64" | "f32" => ("a number", "write a number"),
        other if other.starts_with("struct ") => ("a mapping", "write keys with values"),
        other => return (other.to_owned(), format!("write {other}")),
    };
    (needed.to_owned(), remedy.to_owned())
}

fn expected_range(expected: &str) -> Option<String> {
    let range = match expected {
        "u8" => format!("from 0 to {}", u8::MAX),
        "u16" => format!("from 0 to {}", u16::MAX),
        "u32" => format!("from 0 to {}", u32::MAX),
        "u64" | "usize" => "from 0 on".to_owned(),
        "i8" => format!("from {} to {}", i8::MIN, i8::MAX),
        "i16" => format!("from {} to {}", i16::MIN, i16::MAX),
        "i32" => format!("from {} to {}", i32::MIN, i32::MAX),
        "i64" | "isize" => "of at most 64 bits".to_owned(),
        _ => return None,
    };
    Some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_shapes_are_taken_apart() {
        assert_eq!(Finding::of("missing field `kind`"), Finding::MissingKey { key: "kind".to_owned() });
        let finding = Finding::of("unknown field `prot`, expected one of `name`, `port`");
        let remedy = "did you mean \"port\"? (known: name, port)".to_owned();
        assert_eq!(finding, Finding::UnknownKey { key: "prot".to_owned(), remedy });
        let finding = Finding::of("unknown field `a`, there are no fields");
        assert_eq!(finding, Finding::UnknownKey { key: "a".to_owned(), remedy: "remove it".to_owned() });
        for (text, told) in [
            (
                "invalid type: string \"x\", expected u16",
                "the text \"x\" stands where a whole number is needed",
            ),
            ("invalid value: integer `70000`, expected u16", "the number 70000 does not fit"),
            ("invalid type: unit value, expected a string", "no value stands where a text is needed"),
            ("invalid type: map, expected a sequence", "a mapping stands where a list is needed"),
            ("its own words", "its own words"),
        ] {
            let Finding::WrongValue { message, .. } = Finding::of(text) else { panic!("{text}") };
            assert_eq!(message, told);
        }
    }

    #[test]
    fn names_of_types_are_not_told() {
        let finding = Finding::of("invalid type: string \"x\", expected struct CheckSettings");
        assert!(!format!("{finding:?}").contains("CheckSettings"));
    }
}

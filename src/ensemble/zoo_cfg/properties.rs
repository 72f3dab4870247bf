//! Java's properties: what `java.util.Properties.load` makes of a text.
//!
//! One `key = value` a line; `=`, `:` or blanks separate the two; `#` and `!` begin comments; a backslash at the end goes on in
//! the next line, elsewhere it escapes the character after it. Of a key that comes twice the last value counts.
//!
//! Unlike Java, blanks at the end of a value are dropped, as Apache ZooKeeper does with most of them, and a file is UTF-8.

/// One property, and the line in which it begins, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) line: usize,
    /// The place in another file that this line of the first one stands for.
    pub(super) included_from: Option<String>,
    pub(super) key: String,
    pub(super) value: String,
}

/// All properties, each key once, in the order of the lines.
pub(super) fn parse(text: &str) -> Vec<Property> {
    let mut properties: Vec<Property> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start();
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        properties.retain(|property| property.key != key);
        properties.push(Property { line: index + 1, included_from: None, key, value });
    }
    properties
}

/// An odd number of backslashes at the end.
fn ends_in_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split(line: &str) -> (String, String) {
    let mut key = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.peek().copied() {
        if matches!(character, '=' | ':') || character.is_whitespace() {
            break;
        }
        characters.next();
        key.push(if character == '\\' { unescape(&mut characters) } else { character });
    }
    let mut is_separated = false;
    while let Some(character) = characters.peek().copied() {
        let is_separator = matches!(character, '=' | ':') && !is_separated;
        if !is_separator && !character.is_whitespace() {
            break;
        }
        is_separated |= is_separator;
        characters.next();
    }
    let mut value = String::new();
    while let Some(character) = characters.next() {
        value.push(if character == '\\' { unescape(&mut characters) } else { character });
    }
    (key, value.trim_end().to_owned())
}

/// The character that a backslash and what follows stand for.
fn unescape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> char {
    match characters.next() {
        Some('t') => '\t',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('f') => '\u{c}',
        Some('u') => {
            let digits: String = characters.by_ref().take(4).collect();
            u32::from_str_radix(&digits, 16)
                .ok()
                .and_then(char::from_u32)
                .unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        Some(other) => other,
        None => '\\',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text).into_iter().map(|property| (property.line, property.key, property.value)).collect()
    }

    fn pair(line: usize, key: &str, value: &str) -> (usize, String, String) {
        (line, key.to_owned(), value.to_owned())
    }

    #[test]
    fn keys_and_values_are_separated_as_java_does() {
        let text = "# a comment\n! another\n\ntickTime=2000\n initLimit : 10\nsyncLimit 5  \nempty\nserver.1=a:1:2\n";
        let expected = [
            pair(4, "tickTime", "2000"),
            pair(5, "initLimit", "10"),
            pair(6, "syncLimit", "5"),
            pair(7, "empty", ""),
            pair(8, "server.1", "a:1:2"),
        ];
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn lines_go_on_escapes_stand_for_characters_and_the_last_value_counts() {
        let text = "a=1\\\n   2\nb\\=c=\\u0041\\t\\\\\na=3\nlast=\\";
        let expected = [pair(3, "b=c", "A\t\\"), pair(4, "a", "3"), pair(5, "last", "")];
        assert_eq!(pairs(text), expected);
    }
}

//! `${NAME}` in a settings file.

use std::collections::BTreeMap;

/// The environment variables that a settings file may take.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// No variables.
    pub const fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// Those of this process; one that is no text is left out.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// These variables.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().collect())
    }

    /// Puts the values of variables for their `${NAME}`; `$${` stands for `${`, and any other `$` for itself. `None` when the
    /// text names no variable.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and the remedy.
    pub(super) fn expand(&self, text: &str) -> Result<Option<String>, (String, String)> {
        if !text.contains("${") {
            return Ok(None);
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            rest = &from[2..];
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                continue;
            }
            expanded.push_str(before);
            let Some((name, after)) = rest.split_once('}').filter(|(name, _)| is_name(name)) else {
                let remedy = "write ${NAME} for an environment variable, or $${ for the characters";
                return Err(("${ begins no name of a variable".to_owned(), remedy.to_owned()));
            };
            let Some(value) = self.0.get(name) else {
                let message = format!("the environment variable {name} is not set");
                return Err((message, "set it, or write the value".to_owned()));
            };
            expanded.push_str(value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(Some(expanded))
    }
}

fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_inner) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let environment =
            Environment::of([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "${A}".to_owned())]);
        for (text, expanded) in
            [("${A}", "1"), ("x${A}y${A}", "x1y1"), ("${B}", "${A}"), ("$${A}", "${A}"), ("$$${A}", "$${A}")]
        {
            assert_eq!(environment.expand(text), Ok(Some(expanded.to_owned())), "{text}");
        }
        for text in ["", "plain", "$A", "100$"] {
            assert_eq!(environment.expand(text), Ok(None), "{text}");
        }
        for text in ["${C}", "${A", "${}", "${1}", "${A B}"] {
            assert!(environment.expand(text).is_err(), "{text}");
        }
    }
}

//! Absolute znode paths.

use std::fmt;
use std::sync::Arc;

/// An absolute path that follows ZooKeeper's rules, so that it needs no second look anywhere.
///
/// It starts with `/`, ends with none (but for the root itself), has no empty, `.` or `..` component
/// and no character that ZooKeeper excludes. Cloning is cheap.
///
/// Source: `PathUtils.java` of Apache ZooKeeper.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZnodePath(Arc<str>);

/// Why a text is not a znode path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The text does not start with a slash.
    #[error("path {0:?} does not start with /")]
    NotAbsolute(String),
    /// The text ends with a slash.
    #[error("path {0:?} ends with /")]
    TrailingSlash(String),
    /// Two slashes in a row, or a `.` or `..` component.
    #[error("path {path:?} has the component {component:?}")]
    BadComponent {
        /// The whole text.
        path: String,
        /// The component at fault.
        component: String,
    },
    /// A control, surrogate, private-use or non-character code point.
    #[error("path {path:?} has the character U+{:04X}", *character as u32)]
    BadCharacter {
        /// The whole text.
        path: String,
        /// The character at fault.
        character: char,
    },
}

impl ZnodePath {
    /// Checks `text` against all the rules.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let Some(below_root) = text.strip_prefix('/') else {
            return Err(PathError::NotAbsolute(text.to_owned()));
        };
        if let Some(character) = text.chars().find(|character| is_excluded(*character)) {
            return Err(PathError::BadCharacter { path: text.to_owned(), character });
        }
        if below_root.is_empty() {
            return Ok(Self(Arc::from(text)));
        }
        if below_root.ends_with('/') {
            return Err(PathError::TrailingSlash(text.to_owned()));
        }
        match below_root.split('/').find(|component| matches!(*component, "" | "." | "..")) {
            Some(component) => {
                Err(PathError::BadComponent { path: text.to_owned(), component: component.to_owned() })
            }
            None => Ok(Self(Arc::from(text))),
        }
    }

    /// The root, `/`.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path one level up, `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        parent_of(&self.0).map(|parent| Self(Arc::from(parent)))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(_, name)| name)
    }

    /// The path of a child.
    ///
    /// # Errors
    ///
    /// When `name` is no valid component.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.is_empty() || name.contains('/') {
            return Err(PathError::BadComponent { path: self.to_string(), component: name.to_owned() });
        }
        let parent = if self.is_root() { "" } else { &self.0 };
        Self::parse(&format!("{parent}/{name}"))
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn is_at_or_below(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(&*ancestor.0)
                .is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

impl fmt::Display for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ZnodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for ZnodePath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ZnodePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The parent of an absolute path, `None` for the root and for texts without a slash.
pub(super) fn parent_of(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// ZooKeeper tests UTF-16 units, so surrogates exclude every supplementary character.
fn is_excluded(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{10000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rules_of_path_utils() {
        for good in ["/", "/a", "/a/b", "/zookeeper/quota", "/a.b/..c", "/ümlaut/日本", "/a /b"] {
            assert_eq!(ZnodePath::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/a/./b",
            "/\0",
            "/a\u{7f}",
            "/\u{e000}",
            "/😀",
        ] {
            assert!(ZnodePath::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn parent_and_name_take_a_path_apart() {
        let path = ZnodePath::parse("/a/b").unwrap();
        assert_eq!((path.parent().unwrap().as_str(), path.name()), ("/a", "b"));
        assert_eq!(path.parent().unwrap().parent().unwrap(), ZnodePath::root());
        assert_eq!(ZnodePath::root().parent(), None);
    }

    #[test]
    fn below_means_by_component() {
        let parse = |text| ZnodePath::parse(text).unwrap();
        assert!(parse("/a/b").is_at_or_below(&parse("/a")));
        assert!(parse("/a").is_at_or_below(&parse("/a")));
        assert!(parse("/a").is_at_or_below(&ZnodePath::root()));
        assert!(!parse("/ab").is_at_or_below(&parse("/a")));
    }

    proptest! {
        #[test]
        fn what_parses_joins_back_from_parent_and_name(text in "(/[a-z.\u{e9}]{1,4}){1,5}") {
            if let Ok(path) = ZnodePath::parse(&text) {
                prop_assert_eq!(path.parent().unwrap().join(path.name()).unwrap(), path);
            }
        }

        #[test]
        fn no_text_panics_and_none_that_parses_breaks_a_rule(text: String) {
            if let Ok(path) = ZnodePath::parse(&text) {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(path.is_root() || !path.as_str().ends_with('/'));
                prop_assert!(!path.as_str().contains("//"));
            }
        }
    }
}

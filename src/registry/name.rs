//! Names of namespaces, services and instances.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHasher;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

/// A DNS label in lower case (RFC 1123): letters, digits and inner hyphens, at most 63 octets.
///
/// Names in the registry are labels, so that each is one component of a DNS name and one of a znode path.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct Label(Arc<str>);

/// Why a text is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a DNS label: use 1 to 63 of a-z, 0-9 and inner hyphens")]
pub struct LabelError {
    text: String,
}

impl Label {
    /// Octets of the longest label (RFC 1035 section 2.3.4).
    pub const BYTES_MAX: usize = 63;

    /// Checks `text` against the rules of RFC 1123.
    ///
    /// # Errors
    ///
    /// When it breaks one; capital letters are refused, not folded.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = (1..=Self::BYTES_MAX).contains(&text.len())
            && text.bytes().all(is_inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_label { Ok(Self(shared(text))) } else { Err(LabelError { text: text.to_owned() }) }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text, of which there is one copy while it comes again and again: ports and tags are called the same in thousands of records.
fn shared(text: &str) -> Arc<str> {
    thread_local! {
        static RECENT: RefCell<[Option<Arc<str>>; RECENT_MAX]> = const { RefCell::new([const { None }; RECENT_MAX]) };
    }
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    // Its lower bits are its better ones.
    let at = usize::try_from(hasher.finish() % RECENT_MAX as u64).unwrap_or_default();
    RECENT.with_borrow_mut(|recent| match &mut recent[at] {
        Some(known) if **known == *text => known.clone(),
        slot => slot.insert(text.into()).clone(),
    })
}

/// Texts that are remembered by each thread, which with their places are some 20 KiB.
const RECENT_MAX: usize = 256;

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        // Often, of names that one thread has parsed: then neither is read, which a cache may not have.
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        Self::parse(&text)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;
        impl Visitor<'_> for LabelVisitor {
            type Value = Label;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a DNS label")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Label, E> {
                Label::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(LabelVisitor)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.as_str().to_owned()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A service within its namespace; written `payments.shop` in commands and DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: Label,
    /// The service's own name.
    pub name: Label,
}

impl ServiceKey {
    /// The namespace of what names none.
    pub const NAMESPACE_DEFAULT: &'static str = "default";
    /// Words with a meaning of their own in DNS names, which no service or namespace may be called, and no instance of ours.
    pub const RESERVED: [&'static str; 5] = ["primary", "standby", "all", "tag", "az"];

    /// Whether one of its names is one of [`Self::RESERVED`].
    pub fn is_reserved(&self) -> bool {
        [&self.name, &self.namespace].iter().any(|name| Self::RESERVED.contains(&name.as_str()))
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_kept_once_and_what_does_not_is_forgotten() {
        let is_shared = || Arc::ptr_eq(&Label::parse("http").unwrap().0, &Label::parse("http").unwrap().0);
        assert!(is_shared());
        let first = Label::parse("http").unwrap();
        for number in 0..100 * RECENT_MAX {
            let text = format!("web-{number}");
            assert_eq!(Label::parse(&text).unwrap().as_str(), text);
        }
        assert_eq!(Arc::strong_count(&first.0), 1, "others have come instead");
        assert!(is_shared());
        assert_eq!(first, Label::parse("http").unwrap());
    }

    #[test]
    fn labels_follow_rfc_1123() {
        for good in ["a", "web", "web-1", "0a", &"x".repeat(63)] {
            assert_eq!(Label::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ü", &"x".repeat(64)] {
            assert!(Label::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}

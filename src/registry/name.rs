//! Names of namespaces, services and instances.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A DNS label in lower case (RFC 1123): letters, digits and inner hyphens, at most 63 octets.
///
/// Names in the registry are labels, so that each is one component of a DNS name and one of a znode path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
        if is_label { Ok(Self(Arc::from(text))) } else { Err(LabelError { text: text.to_owned() }) }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        Self::parse(&text)
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
    fn labels_follow_rfc_1123() {
        for good in ["a", "web", "web-1", "0a", &"x".repeat(63)] {
            assert_eq!(Label::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ü", &"x".repeat(64)] {
            assert!(Label::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}

//! What else there is to say about an instance: a few texts by their keys.

use std::collections::BTreeMap;
use std::ops::Index;

use serde::{Deserialize, Serialize, Serializer};

/// A map of texts in the order of their keys. It takes no more than the texts: a tree's first node alone takes half a kilobyte, which
/// ten thousand instances feel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Meta(Box<[(Box<str>, Box<str>)]>);

impl Meta {
    /// All of it, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, text)| (&**key, &**text))
    }

    /// The text of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, String>> for Meta {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map.into_iter().map(|(key, text)| (key.into(), text.into())).collect())
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Index<&str> for Meta {
    type Output = str;

    fn index(&self, key: &str) -> &str {
        self.get(key).unwrap_or_else(|| panic!("no key {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_in_json_whose_last_word_on_a_key_counts() {
        let meta: Meta = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).unwrap();
        assert_eq!(serde_json::to_string(&meta).unwrap(), r#"{"a":"2","b":"3"}"#);
        assert_eq!((meta.get("b"), meta.get("c"), &meta["a"]), (Some("3"), None, "2"));
        assert!(Meta::default().is_empty() && serde_json::from_str::<Meta>("[]").is_err());
    }
}

//! A service's settings as its znode has them: a JSON object, or nothing. Pure.
//!
//! Anybody may write there, by hand as well. What is damaged is obeyed by no reader: each keeps what it read last, or the defaults.

use serde_json::{Map, Value};

use super::layout::Layout;
use super::name::ServiceKey;
use super::view::ServiceSettings;

/// Why what a service's znode holds are no settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamagedSettings {
    /// It is no JSON object.
    #[error("it holds no settings: {0}")]
    NoObject(String),
    /// It is one, with a setting that cannot be what it is.
    #[error("it holds a wrong setting: {key}: {reason}")]
    Value {
        /// Which.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DamagedSettings {
    /// What to do about it where it is `service` that is damaged.
    pub fn remedy(&self, service: &ServiceKey, layout: &Layout) -> String {
        let root =
            if layout.root() == Layout::ROOT { String::new() } else { format!(" --root {}", layout.root()) };
        match self {
            Self::NoObject(_) => format!(
                "overwrite it with `rollcall zk set {} ''`, and set what is not to have its default with `rollcall service set \
                 {service}{root}`",
                layout.service(service)
            ),
            Self::Value { key, .. } => {
                format!("`rollcall service set {service} --unset {key}{root}` gives it its default again")
            }
        }
    }
}

/// The settings that are stored, of later versions as well.
///
/// # Errors
///
/// When it is no JSON object.
pub fn stored_settings(data: &[u8]) -> Result<Map<String, Value>, DamagedSettings> {
    if data.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(data).map_err(|error| DamagedSettings::NoObject(shortened(&error)))
}

impl ServiceSettings {
    /// What readers obey by what is stored.
    ///
    /// # Errors
    ///
    /// When a setting has a value that it cannot have.
    pub fn of_stored(stored: Map<String, Value>) -> Result<Self, DamagedSettings> {
        serde_path_to_error::deserialize(Value::Object(stored)).map_err(|error| DamagedSettings::Value {
            key: error.path().to_string(),
            reason: shortened(error.inner()),
        })
    }

    /// What readers obey where a service's znode holds `data`.
    ///
    /// # Errors
    ///
    /// When that are no settings.
    pub fn read(data: &[u8]) -> Result<Self, DamagedSettings> {
        Self::of_stored(stored_settings(data)?)
    }
}

/// Errors of serde repeat what they found, which may be all of a znode.
fn shortened(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let start: String = text.chars().take(REASON_CHARS_MAX).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

/// More than any of serde's own words.
const REASON_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::name::Label;

    #[test]
    fn what_is_damaged_is_told_with_its_place_and_the_command_that_mends_it() {
        let service =
            ServiceKey { namespace: Label::parse("shop").unwrap(), name: Label::parse("web").unwrap() };
        let told = |data: &str, root: &str| {
            let damage = ServiceSettings::read(data.as_bytes()).unwrap_err();
            format!("{damage}; {}", damage.remedy(&service, &Layout::new(root).unwrap()))
        };
        assert_eq!(
            told("min_healthy: 2", Layout::ROOT),
            "it holds no settings: expected value at line 1 column 1; overwrite it with `rollcall zk set \
             /rollcall/services/shop/web ''`, and set what is not to have its default with `rollcall service set web.shop`"
        );
        for (data, reason) in
            [("{", "EOF while parsing"), ("[2]", "expected a map"), ("\"{}\"", "expected a map")]
        {
            let told = told(data, "/a");
            assert!(told.contains(reason) && told.contains("zk set /a/shop/web ''"), "{told}");
        }
        assert_eq!(
            told(r#"{"brake":true,"min_healthy":"two"}"#, Layout::ROOT),
            "it holds a wrong setting: min_healthy: invalid type: string \"two\", expected u32; `rollcall service set web.shop --unset \
             min_healthy` gives it its default again"
        );
        for (data, key) in [
            (r#"{"dns_ttl_s":-1}"#, "dns_ttl_s"),
            (r#"{"failback":5}"#, "failback"),
            (r#"{"prefer_zone":null}"#, "prefer_zone"),
        ] {
            let told = told(data, "/a");
            assert!(told.contains(&format!("web.shop --unset {key} --root /a`")), "{told}");
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let data = format!(r#"{{"brake":"{}"}}"#, "é".repeat(10_000));
        let told = ServiceSettings::read(data.as_bytes()).unwrap_err().to_string();
        assert!(told.chars().count() < 300 && told.ends_with('…'), "{told}");
    }

    #[test]
    fn nothing_is_the_defaults_and_what_later_versions_store_is_kept() {
        assert_eq!(ServiceSettings::read(b""), Ok(ServiceSettings::default()));
        let data = br#"{"later":{"a":1},"min_healthy":3,"failback":"later"}"#;
        let read = ServiceSettings::read(data).unwrap();
        assert_eq!(read, ServiceSettings { min_healthy: 3, ..ServiceSettings::default() });
        assert_eq!(stored_settings(data).unwrap().len(), 3);
    }
}

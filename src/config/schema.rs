//! JSON Schemas of the settings files, made from the types that read them; for tests alone, which compare them with the files in
//! `config/schema` that the program prints.
//!
//! A schema accepts whatever the parser and the role's own checks accept; what depends on other keys it leaves to them. Types,
//! words, missing keys and descriptions come from the structs (`schemars`), what texts look like from the types below, and [`of`]
//! adds what holds for every settings file:
//!
//! - Any value may be `${NAME}`, unless it is a mapping that cannot be empty: what the variable holds is not known to an editor.
//! - A list or a mapping that is left empty (null) has nothing in it.
//! - The default of a key is what its description says.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::Scalar;

/// How a text looks, whatever type holds it until it is checked.
pub(crate) trait Look {
    /// A regular expression, of those that ECMA-262 and Rust read alike.
    const PATTERN: &'static str;
    /// Numbers that are written without quotes, if there are such.
    const NUMBERS: Option<(u32, u32)> = None;
}

/// A text of this look.
pub(crate) struct Text<L>(PhantomData<L>);

impl<L: Look> JsonSchema for Text<L> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        L::PATTERN.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = L::PATTERN;
        match L::NUMBERS {
            Some((minimum, maximum)) => json_schema!({
                "type": ["string", "integer"], "pattern": pattern, "minimum": minimum, "maximum": maximum,
            }),
            None => json_schema!({"type": "string", "pattern": pattern}),
        }
    }
}

/// As [`super::duration`] reads it.
pub(crate) type Duration = Text<DurationLook>;
/// A DNS label.
pub(crate) type Label = Text<LabelLook>;
/// An IPv4 or IPv6 address.
pub(crate) type IpAddress = Text<IpAddressLook>;
/// An IP address and a port.
pub(crate) type SocketAddress = Text<SocketAddressLook>;
/// A host, by name or address, and a port.
pub(crate) type HostAndPort = Text<HostAndPortLook>;
/// A whole number of percent.
pub(crate) type Percent = Text<PercentLook>;
/// A status code of HTTP, or a range of them.
pub(crate) type Status = Text<StatusLook>;
/// A method of HTTP.
pub(crate) type Method = Text<MethodLook>;
/// The path and query of a URL.
pub(crate) type UrlPath = Text<UrlPathLook>;

pub(crate) enum DurationLook {}
impl Look for DurationLook {
    const PATTERN: &'static str = r"^\s*([0-9]+(ms|[smhd]))+\s*$";
}

pub(crate) enum LabelLook {}
impl Look for LabelLook {
    const PATTERN: &'static str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
}

pub(crate) enum IpAddressLook {}
impl Look for IpAddressLook {
    const PATTERN: &'static str = "^[0-9A-Fa-f:.]+$";
}

pub(crate) enum SocketAddressLook {}
impl Look for SocketAddressLook {
    const PATTERN: &'static str = r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]+$";
}

pub(crate) enum HostAndPortLook {}
impl Look for HostAndPortLook {
    const PATTERN: &'static str = r"^([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]):\+?[0-9]+$";
}

pub(crate) enum PercentLook {}
impl Look for PercentLook {
    const PATTERN: &'static str = r"^\+?0*[1-9][0-9]?%$";
}

pub(crate) enum StatusLook {}
impl Look for StatusLook {
    const PATTERN: &'static str = r"^\s*\+?[0-9]+\s*(-\s*\+?[0-9]+\s*)?$";
    const NUMBERS: Option<(u32, u32)> = Some((100, 599));
}

pub(crate) enum MethodLook {}
impl Look for MethodLook {
    const PATTERN: &'static str = "^[A-Z]{1,32}$";
}

pub(crate) enum UrlPathLook {}
impl Look for UrlPathLook {
    const PATTERN: &'static str = "^/";
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"]})
    }
}

/// `${NAME}` somewhere in a text.
const VARIABLE: &str = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}";

/// The schema of `T`'s settings file.
pub(crate) fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    finish(&mut schema);
    schema["title"] = json!(title);
    schema
}

/// Adds what holds for every settings file, here and in every schema below.
fn finish(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    // Names of Rust's types, which no validator knows.
    schema.remove("format");
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = in_one_line(description);
        if let Some(default) = default_in(description) {
            schema.insert("default".to_owned(), default);
        }
    }
    for key in ["properties", "$defs"] {
        let below = schema.get_mut(key).and_then(Value::as_object_mut);
        below.into_iter().flat_map(Map::values_mut).for_each(finish);
    }
    for key in ["items", "additionalProperties"] {
        schema.get_mut(key).into_iter().for_each(finish);
    }
    // A word of several, each with a description of its own, or what may be null.
    let choice = if schema.contains_key("type") { None } else { schema.remove("anyOf") };
    if let Some(choice) = choice.or_else(|| schema.remove("oneOf")) {
        let mut choice = choice.as_array().cloned().unwrap_or_default();
        choice.iter_mut().for_each(finish_choice);
        choice.push(json!({"type": "string", "pattern": VARIABLE}));
        schema.insert("anyOf".to_owned(), json!(choice));
    }
    accept_nothing_and_variables(schema);
}

fn finish_choice(choice: &mut Value) {
    if let Some(Value::String(description)) = choice.get_mut("description") {
        *description = in_one_line(description);
    }
}

fn accept_nothing_and_variables(schema: &mut Map<String, Value>) {
    let mut types: Vec<String> = match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => return,
    };
    let is = |types: &[String], name: &str| types.iter().any(|one| one == name);
    if is(&types, "object") && schema.contains_key("required") {
        return;
    }
    if (is(&types, "object") || is(&types, "array")) && !is(&types, "null") {
        types.push("null".to_owned());
    }
    let pattern =
        schema.get("pattern").and_then(Value::as_str).map(|pattern| format!("{pattern}|{VARIABLE}"));
    if is(&types, "string") {
        if let Some(pattern) = pattern {
            schema.insert("pattern".to_owned(), json!(pattern));
        } else if let Some(words) = schema.remove("enum") {
            schema.remove("type");
            let words = json!([{"enum": words}, {"type": "string", "pattern": VARIABLE}]);
            schema.insert("anyOf".to_owned(), words);
            return;
        }
    } else {
        types.push("string".to_owned());
        schema.insert("pattern".to_owned(), json!(VARIABLE));
    }
    schema.insert("type".to_owned(), if types.len() == 1 { json!(types[0]) } else { json!(types) });
}

/// Without line breaks, and without the brackets of references that only rustdoc follows.
fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace("[`", "`").replace("`]", "`")
}

/// What stands in a description as "Default: `2s`." or "Default 10000.": one value, and no more about it.
fn default_in(description: &str) -> Option<Value> {
    let (_, rest) = description.split_once("Default")?;
    let rest = rest.trim_start_matches(':').trim_start();
    let (value, after) = match rest.strip_prefix('`') {
        Some(quoted) => quoted.split_once('`')?,
        None => rest.split_at(rest.find(['.', ':', ',', ';', ' ']).unwrap_or(rest.len())),
    };
    let is_all = after.is_empty() || after.starts_with(['.', ':']);
    let value = serde_yaml::from_str::<Value>(value).ok().filter(|value| is_all && !value.is_null())?;
    // A word without quotes is the beginning of a sentence.
    (rest.starts_with('`') || !value.is_string()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_a_value_about_which_no_more_is_said() {
        for (description, default) in [
            ("How long. Default: `2s`.", json!("2s")),
            ("Default `info`", json!("info")),
            ("Default 10000. More.", json!(10_000)),
            ("Default true. Danger: it is not.", json!(true)),
            ("Default: `[srvr]`.", json!(["srvr"])),
        ] {
            assert_eq!(default_in(description), Some(default), "{description}");
        }
        for description in [
            "No default.",
            "Default: none.",
            "Default: 2; 1 for `ttl`.",
            "Default: `1s`, or the interval if that is less.",
            "Default: `host` without its port.",
            "Default: a tenth of it.",
        ] {
            assert_eq!(default_in(description), None, "{description}");
        }
    }
}

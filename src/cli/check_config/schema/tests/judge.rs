//! A schema as editors use it.

use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value};

use super::super::text;
use crate::cli::arguments::SchemaRole;

/// The pointer to a definition; the root has the empty name.
fn pointer(of: &str) -> String {
    if of.is_empty() { String::new() } else { format!("/$defs/{of}") }
}

/// Where the schema is for the validator, which asks nobody there.
const URL: &str = "https://schema.invalid/settings.json";

/// A schema as a validator that is not ours reads it.
pub(super) struct Judge {
    schema: Value,
    compiler: Compiler,
    schemas: Schemas,
    index: SchemaIndex,
}

impl Judge {
    pub(super) fn of(role: SchemaRole) -> Self {
        let schema: Value = serde_json::from_str(text(role)).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource(URL, schema.clone()).unwrap();
        let index = compiler.compile(URL, &mut schemas).unwrap();
        Self { schema, compiler, schemas, index }
    }

    pub(super) fn accepts(&self, instance: &Value) -> bool {
        self.schemas.validate(instance, self.index).is_ok()
    }

    pub(super) fn refusal(&self, instance: &Value) -> Option<String> {
        self.schemas.validate(instance, self.index).err().map(|error| format!("{error:#}"))
    }

    /// What one key's own schema says about a value.
    pub(super) fn refusal_at(&mut self, of: &str, key: &str, value: &Value) -> Option<String> {
        let place = format!("{URL}#{}/properties/{key}", pointer(of));
        let index = self.compiler.compile(&place, &mut self.schemas).unwrap();
        self.schemas.validate(value, index).err().map(|error| format!("{error:#}"))
    }

    /// Every key with the definition that it is in.
    pub(super) fn properties(&self) -> Vec<(String, String, Value)> {
        let definitions = self.schema["$defs"].as_object().into_iter().flatten();
        let all = definitions.map(|(of, definition)| (of.as_str(), definition)).chain([("", &self.schema)]);
        let of_one = |(of, definition): (&str, &'_ Value)| {
            let properties = definition["properties"].as_object().into_iter().flatten();
            properties.map(|(key, _)| (of.to_owned(), key.clone())).collect::<Vec<_>>()
        };
        let keys: Vec<_> = all.flat_map(of_one).collect();
        let property = |(of, key): (String, String)| {
            let property =
                self.schema.pointer(&format!("{}/properties/{key}", pointer(&of))).unwrap().clone();
            (of, key, property)
        };
        keys.into_iter().map(property).collect()
    }

    pub(super) fn keys(&self) -> BTreeSet<String> {
        self.properties().into_iter().map(|(_, key, _)| key).collect()
    }

    /// Notes the values of all keys in an instance of the definition `of`.
    pub(super) fn walk(&self, of: &str, instance: &Value, seen: &mut Seen) {
        let definition = self.schema.pointer(&pointer(of)).unwrap();
        let none = Map::new();
        let properties = definition["properties"].as_object().unwrap_or(&none);
        for (key, value) in instance.as_object().into_iter().flatten() {
            let Some(property) = properties.get(key) else { continue };
            seen.entry((of.to_owned(), key.clone())).or_default().insert(value.to_string());
            let items = property.get("items").unwrap_or(property);
            let Some(reference) = items["$ref"].as_str() else { continue };
            let below = reference.trim_start_matches("#/$defs/");
            for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                self.walk(below, value, seen);
            }
        }
    }
}

/// The values that were seen of the keys of each definition.
pub(super) type Seen = BTreeMap<(String, String), BTreeSet<String>>;

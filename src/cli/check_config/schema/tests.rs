mod files;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fs_err as fs;
use serde_json::Value;

use self::files::{WHOLE, values};
use self::judge::Judge;
use super::*;
use crate::cli::dev::DevSettings;
use crate::config::{Environment, LocatedMistake, parse, schema};
use crate::ensemble::EnsembleConfig;
use crate::sidecar::SidecarSettings;

const ROLES: [SchemaRole; 3] = [SchemaRole::Sidecar, SchemaRole::Ensemble, SchemaRole::Dev];

#[test]
fn the_files_are_what_the_types_say() {
    for role in ROLES {
        let file = folder().join("schema").join(format!("{}.json", name(role)));
        let made = match role {
            SchemaRole::Sidecar => schema::of::<SidecarSettings>("Settings of rollcall sidecar"),
            SchemaRole::Ensemble => schema::of::<EnsembleConfig>("Settings of rollcall ensemble"),
            SchemaRole::Dev => schema::of::<DevSettings>("Settings of rollcall dev"),
        };
        let made = serde_json::to_string_pretty(&made).unwrap() + "\n";
        if std::env::var_os("ROLLCALL_WRITE_SCHEMAS").is_some() {
            fs::write(&file, &made).unwrap();
        }
        let is_same = fs::read_to_string(&file).unwrap() == made;
        let remedy = "write it anew with ROLLCALL_WRITE_SCHEMAS=1 cargo test --lib what_the_types_say";
        assert!(is_same, "{} is not what the settings are now; {remedy}", file.display());
    }
}

#[test]
fn the_examples_pass_as_they_are_and_with_every_key() {
    for role in ROLES {
        let judge = Judge::of(role);
        let shown = example(name(role));
        assert_eq!(judge.refusal(&raw(&shown)), None);
        let whole = uncommented(&shown, &judge.keys());
        assert!(whole != shown || matches!(role, SchemaRole::Ensemble), "nothing is commented out");
        assert_eq!(judge.refusal(&raw(&whole)), None, "{whole}");
        let mistakes = mistakes_of_types(role, &whole);
        assert!(mistakes.is_empty(), "{mistakes:#?}");
    }
    assert_eq!(Judge::of(SchemaRole::Ensemble).refusal(&raw(&example("three-members"))), None);
}

#[test]
fn every_key_has_a_description_and_stands_in_the_examples_with_its_default() {
    let (mut seen, mut defaults) = (BTreeMap::new(), BTreeMap::new());
    for role in ROLES {
        let mut judge = Judge::of(role);
        let text = example(name(role));
        // Definitions are shared by the roles, but for those of the files themselves.
        seen.retain(|(of, _): &(String, String), _| !of.is_empty());
        defaults.retain(|(of, _): &(String, String), _| !of.is_empty());
        judge.walk("", &raw(&text), &mut defaults);
        judge.walk("", &raw(&uncommented(&text, &judge.keys())), &mut seen);
        if matches!(role, SchemaRole::Ensemble) {
            judge.walk("", &raw(&example("three-members")), &mut seen);
        }
        for (of, key, property) in judge.properties() {
            let description = property["description"].as_str().unwrap_or_default();
            let is_sentence = description.ends_with('.') || description.ends_with('`');
            assert!(is_sentence && description.len() > 10, "{of}.{key}: {description:?}");
            let is_word = |line: &str| {
                line.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').any(|it| it == key)
            };
            let is_told = text.lines().any(|line| line.trim_start().starts_with('#') && is_word(line));
            let place = (of.clone(), key.clone());
            let is_seen = seen.contains_key(&place) || is_told;
            assert!(is_seen, "{of}.{key} does not stand in config/{}.yaml", name(role));
            let Some(default) = property.get("default").cloned() else { continue };
            assert_eq!(judge.refusal_at(&of, &key, &default), None, "{of}.{key}");
            // What is not commented out shows its default; lists have an example in them.
            let Some(shown) = defaults.get(&place) else { continue };
            let is_shown = default.is_array() || shown.contains(&default.to_string());
            assert!(is_shown, "{of}.{key}: {default} is not among {shown:?}");
        }
    }
}

#[test]
fn what_the_parser_refuses_by_itself_the_schemas_refuse_too() {
    let broken = [
        (SchemaRole::Sidecar, "namspace: shop"),
        (SchemaRole::Sidecar, "dns: {adress: 127.0.0.1:53}"),
        (SchemaRole::Sidecar, "dns: [127.0.0.1:53]"),
        (SchemaRole::Sidecar, "dns: {ttl: 2}"),
        (SchemaRole::Sidecar, "dns: {ttl: 2 s}"),
        (SchemaRole::Sidecar, "dns: {address: localhost:53}"),
        (SchemaRole::Sidecar, "namespace: Shop"),
        (SchemaRole::Sidecar, "namespace: 5"),
        (SchemaRole::Sidecar, "prefer_zone: yes"),
        (SchemaRole::Sidecar, "brake: {share: 100%}"),
        (SchemaRole::Sidecar, "brake: {share: 0.3}"),
        (SchemaRole::Sidecar, "log: {format: xml}"),
        (SchemaRole::Sidecar, "log: {format: }"),
        (SchemaRole::Sidecar, "subscribe: {mode: some}"),
        (SchemaRole::Sidecar, "ensemble: {servers: [zk]}"),
        (SchemaRole::Sidecar, "ensemble: {servers: []}"),
        (SchemaRole::Sidecar, "adopt: [{root: /services}]"),
        (SchemaRole::Sidecar, "services: {name: web}"),
        (SchemaRole::Sidecar, "services: [{name: web}]"),
        (SchemaRole::Sidecar, "services: [{port: 80, address: 10.0.0.1}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 0, address: 10.0.0.1}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 65536, address: 10.0.0.1}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: '80', address: 10.0.0.1}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 80, address: web}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 80, address: 10.0.0.1, meta: {a: 1}}]"),
        (
            SchemaRole::Sidecar,
            "services: [{name: web, ports: [{name: a, port: 1, protocol: sctp}], address: 10.0.0.1}]",
        ),
        (SchemaRole::Sidecar, "services: [{name: web, port: 80, address: 10.0.0.1, checks: [tcp]}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 80, address: 10.0.0.1, checks: [{port: 80}]}]"),
        (SchemaRole::Sidecar, "services: [{name: web, port: 80, address: 10.0.0.1, checks: [{kind: htpp}]}]"),
        (
            SchemaRole::Sidecar,
            "services: [{name: web, port: 80, address: 10.0.0.1, checks: [{kind: http, status: 99}]}]",
        ),
        (
            SchemaRole::Sidecar,
            "services: [{name: web, port: 80, address: 10.0.0.1, checks: [{kind: http, rise: 0}]}]",
        ),
        (SchemaRole::Ensemble, "server_id: 1"),
        (SchemaRole::Ensemble, "data_dir: ''"),
        (SchemaRole::Ensemble, "data_dir: "),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, server_id: 255}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, client: {four_letter_words: [srst]}}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, client: {frame_bytes_max: 1}}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, quorum: {init_limit: 0}}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, quorum: {connect_timeout: soon}}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, quorum: {tls: {cert: a, key: b}}}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, members: [{id: 1}]}"),
        (SchemaRole::Ensemble, "{data_dir: /nowhere, members: [{id: 1, host: a, role: leader}]}"),
        (SchemaRole::Dev, "subscribe: {mode: all}"),
        (SchemaRole::Dev, "ensemble: {servers: [a:1]}"),
        (SchemaRole::Dev, "ensemble: {client_port: -1}"),
        (SchemaRole::Dev, "data_dir: ''"),
    ];
    let judges = ROLES.map(|role| (name(role), Judge::of(role)));
    for (role, text) in broken {
        assert!(!mistakes(role, text, &Environment::empty()).is_empty(), "{text}");
        let (_, judge) = judges.iter().find(|(of, _)| *of == name(role)).unwrap();
        assert_ne!(judge.refusal(&raw(text)), None, "{text}");
    }
}

/// What the parser and the role accept, the schema must accept: whatever stands wherever in a file with every key.
#[test]
fn what_is_accepted_passes_whatever_it_is() {
    let values = values();
    for (role, text) in WHOLE {
        let judge = Judge::of(role);
        let whole = raw(text);
        let found = mistakes(role, text, &Environment::empty());
        assert!(found.is_empty(), "{found:#?}");
        for path in paths(&whole) {
            let mut passed = 0;
            for value in &values {
                let mut changed = whole.clone();
                *changed.pointer_mut(&path).unwrap() = value.clone();
                passed += usize::from(passes(role, &judge, &changed));
            }
            assert!(passed < values.len(), "{path} may be anything");
            let (parent, key) = path.rsplit_once('/').unwrap_or_default();
            if let Some(Value::Object(entries)) = whole.pointer(parent) {
                let mut changed = whole.clone();
                let mut entries = entries.clone();
                let value = entries.remove(key);
                *changed.pointer_mut(parent).unwrap() = Value::Object(entries.clone());
                passes(role, &judge, &changed);
                if !FREE.iter().any(|free| parent.ends_with(free)) {
                    entries.insert(format!("{key}x"), value.unwrap_or_default());
                    *changed.pointer_mut(parent).unwrap() = Value::Object(entries);
                    assert!(!passes(role, &judge, &changed), "{path} may be misspelt");
                }
            }
        }
    }
}

/// Mappings whose keys are the user's.
const FREE: [&str; 4] = ["/meta", "/headers", "/env", "/domains"];

/// Whether the schema accepts it; what it refuses the role must refuse, whatever the variable holds that may stand in it.
fn passes(role: SchemaRole, judge: &Judge, instance: &Value) -> bool {
    if judge.accepts(instance) {
        return true;
    }
    // What stands in quotes is a text whatever the variable holds.
    let text = serde_yaml::to_string(instance).unwrap().replace("'${V}'", "${V}").replace("\"${V}\"", "${V}");
    assert_eq!(raw(&text), *instance);
    let held: &[&str] =
        if text.contains("${V}") { &["", "x", "80", "true", "2s", "10.0.0.1", "{}"] } else { &[""] };
    for held in held {
        let environment = Environment::of([("V".to_owned(), (*held).to_owned())]);
        let is_accepted = mistakes(role, &text, &environment).is_empty();
        assert!(!is_accepted, "V={held}: the role accepts {text}: {:?}", judge.refusal(instance));
    }
    false
}

/// What the parser and the role find.
fn mistakes(role: SchemaRole, text: &str, environment: &Environment) -> Vec<LocatedMistake> {
    let found = match role {
        SchemaRole::Sidecar => parse(text, environment, SidecarSettings::plan).err(),
        SchemaRole::Ensemble => parse(text, environment, EnsembleConfig::plan).err(),
        SchemaRole::Dev => parse(text, environment, DevSettings::plan).err(),
    };
    found.unwrap_or_default()
}

/// What the parser alone finds.
fn mistakes_of_types(role: SchemaRole, text: &str) -> Vec<LocatedMistake> {
    let variables = ["POD_IP", "TOPOLOGY_ZONE", "NODE_NAME"];
    let environment = Environment::of(variables.map(|name| (name.to_owned(), "10.0.0.7".to_owned())));
    let found = match role {
        SchemaRole::Sidecar => parse(text, &environment, Ok::<SidecarSettings, _>).err(),
        SchemaRole::Ensemble => parse(text, &environment, Ok::<EnsembleConfig, _>).err(),
        SchemaRole::Dev => parse(text, &environment, Ok::<DevSettings, _>).err(),
    };
    found.unwrap_or_default()
}

/// A file as an editor sees it, with nothing put in for variables.
fn raw(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// With the examples that stand in comments: `# key: value` of known keys, and lists of them behind an empty one.
fn uncommented(text: &str, keys: &BTreeSet<String>) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut whole = String::new();
    for (index, line) in lines.iter().enumerate() {
        let is_list = lines.get(index + 1).is_some_and(|next| next.trim_start().starts_with("#  - "));
        let line = if is_list { line.trim_end_matches(" []") } else { line };
        let example = line.trim_start().strip_prefix("# ").filter(|comment| {
            let (key, value) =
                comment.trim_start().trim_start_matches("- ").split_once(": ").unwrap_or_default();
            let value = value.split(" #").next().unwrap_or_default();
            // Sentences have blanks.
            keys.contains(key) && (!value.contains(' ') || value.starts_with(['[', '{', '\'']))
        });
        let indent = &line[..line.len() - line.trim_start().len()];
        match example {
            Some(example) => whole.push_str(&format!("{indent}{example}\n")),
            None => whole.push_str(&format!("{line}\n")),
        }
    }
    whole
}

/// The JSON pointers to everything below the root.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let below = |(key, value): (String, &Value)| {
        let deeper = paths(value).into_iter().map(|path| format!("/{key}{path}")).collect::<Vec<_>>();
        std::iter::once(format!("/{key}")).chain(deeper)
    };
    children.into_iter().flat_map(below).collect()
}

fn folder() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn example(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap()
}

const fn name(role: SchemaRole) -> &'static str {
    match role {
        SchemaRole::Sidecar => "sidecar",
        SchemaRole::Ensemble => "ensemble",
        SchemaRole::Dev => "dev",
    }
}

//! The import rules of the architecture, checked on the sources themselves.
//!
//! Every file below `src/` is parsed. What it names, in `use` items as well as in paths inside expressions, types,
//! attributes and macros, is resolved to a module of ours, to the standard library or to a dependency, and looked
//! up in the table below. Test modules may name what they like: they are not part of the layer.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// What a module may import: `(module, allowed)`. A longer module name is a rule of its own; a longer allowed name
/// lets in that submodule only. A module may always import from itself.
const TABLE: &[(&str, &[&str])] = &[
    // Words.
    ("id", &[]),
    ("codec", &[]),
    ("znode", &["id", "codec"]),
    // Process: one another, downwards.
    ("clock", &[]),
    ("telemetry", &["clock"]),
    ("shutdown", &["clock", "telemetry"]),
    ("tls", &["clock", "telemetry", "shutdown"]),
    ("config", &["clock", "telemetry", "shutdown", "tls"]),
    // Machines.
    ("wire", WORDS),
    ("tree", WORDS),
    ("zab", WORDS),
    // Member.
    ("replica", &["id", "codec", "znode", "wire", "tree", "zab"]),
    ("storage", &["id", "codec", "znode", "tree", "zab::history", "zab::mutation"]),
    // Domain.
    ("client", &["id", "codec", "znode", "clock", "telemetry", "shutdown", "tls", "config", "wire"]),
    ("registry", &["id", "codec", "znode", "clock", "telemetry", "shutdown", "tls", "config", "client"]),
    // Answers.
    ("http::listener", PROCESS),
    ("http", LOOKUPS_AND_REPORTS),
    ("dns", ANSWERS),
    // Roles: anything below, never one another.
    ("ensemble", BELOW_ROLES),
    ("sidecar", BELOW_ROLES),
    ("injector", BELOW_ROLES),
    ("sync", BELOW_ROLES),
    // The program: everything.
    ("cli", EVERYTHING),
    ("main", EVERYTHING),
    ("lib", EVERYTHING),
];

const WORDS: &[&str] = &["id", "codec", "znode"];
const PROCESS: &[&str] = &["clock", "telemetry", "shutdown", "tls", "config"];
const ANSWERS: &[&str] = &[
    "id",
    "codec",
    "znode",
    "clock",
    "telemetry",
    "shutdown",
    "tls",
    "config",
    "registry::name",
    "registry::record",
    "registry::meta",
    "registry::instance",
    "registry::view",
    "registry::cache",
    "registry::demand",
    "registry::select",
    "registry::brake",
];
/// Answers, why they are as they are, what applications say of themselves, and what operators do with own instances.
const LOOKUPS_AND_REPORTS: &[&str] = &[
    "id",
    "codec",
    "znode",
    "clock",
    "telemetry",
    "shutdown",
    "tls",
    "config",
    "registry::name",
    "registry::record",
    "registry::meta",
    "registry::instance",
    "registry::view",
    "registry::view_settings",
    "registry::cache",
    "registry::demand",
    "registry::select",
    "registry::explain",
    "registry::brake",
    "registry::history",
    "registry::rehearse",
    "registry::report",
    "registry::own",
    "registry::change",
    "registry::maintenance",
    "registry::unreadable",
];
const BELOW_ROLES: &[&str] = &[
    "id",
    "codec",
    "znode",
    "clock",
    "telemetry",
    "shutdown",
    "tls",
    "config",
    "wire",
    "tree",
    "zab",
    "replica",
    "storage",
    "client",
    "registry",
    "http",
    "dns",
];
const EVERYTHING: &[&str] = &["*"];

/// Modules that touch no socket, file, clock, thread or random source.
const PURE: &[&str] = &["id", "codec", "znode", "wire", "tree", "zab", "replica"];

/// The dependencies that pure modules may use: buffers, error enums, logs, arenas, hashers and checksums.
const PURE_CRATES: &[&str] =
    &["bytes", "thiserror", "tracing", "slab", "rustc_hash", "simd_adler32", "crc32fast"];

/// The parts of the standard library that a pure module may not name.
const IMPURE_STD: &[&str] = &[
    "fs",
    "net",
    "thread",
    "process",
    "env",
    "os",
    "time::Instant::now",
    "time::SystemTime::now",
    "io::stdin",
    "io::stdout",
    "io::stderr",
];

/// The exceptions from [`IMPURE_STD`]: values without a socket behind them.
const PURE_STD: &[&str] = &[
    "net::IpAddr",
    "net::Ipv4Addr",
    "net::Ipv6Addr",
    "net::SocketAddr",
    "net::SocketAddrV4",
    "net::SocketAddrV6",
];

#[test]
fn every_import_obeys_the_table() {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.files.len() > 20, "found only {} files below src/", sources.files.len());

    let violations = sources.check();

    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "imports that the table forbids:\n{}", report.join("\n"));
}

#[test]
fn the_table_names_no_module_twice_and_no_unknown_one() {
    let modules: Vec<&str> = TABLE.iter().map(|(module, _)| *module).collect();
    let unique: BTreeSet<&str> = modules.iter().copied().collect();
    assert_eq!(unique.len(), modules.len());
    for (module, allowed) in TABLE {
        for name in allowed.iter().filter(|name| **name != "*") {
            let top = name.split("::").next().expect("split gives at least one");
            assert!(modules.contains(&top), "{module} may import {name}, which is no module");
        }
    }
}

#[test]
fn a_plain_use_is_seen() {
    assert_eq!(planted("tree", "use crate::zab::Entry;"), ["tree imports zab::history"]);
    assert_eq!(planted("storage::log", "use crate::zab::Quorum;"), ["storage::log imports zab::quorum"]);
    assert_eq!(planted("storage::log", "use crate::zab::Entry;"), NOTHING);
    assert_eq!(planted("wire", "use crate::{id::Zxid, znode::Stat};"), NOTHING);
}

#[test]
fn nested_groups_renames_and_globs_are_seen() {
    assert_eq!(
        planted("zab", "use crate::{id::Zxid, znode::{Stat, Acl}, tree::{self, Txn as T}};"),
        ["zab imports tree", "zab imports tree::Txn"],
    );
    assert_eq!(planted("wire", "use crate::tree as words;"), ["wire imports tree"]);
    assert_eq!(planted("client", "use crate::registry::*;"), ["client imports registry::*"]);
    assert_eq!(planted("dns", "use crate::registry::*;"), ["dns imports registry::*"]);
    assert_eq!(planted("tree", "use crate::*;"), ["tree imports *"]);
    assert_eq!(planted("tree", "pub use crate::wire::Request;"), ["tree imports wire::Request"]);
    assert_eq!(planted("tree", "use ::rollcall::wire::Request;"), ["tree imports wire::Request"]);
}

#[test]
fn self_and_super_are_resolved() {
    assert_eq!(planted("tree", "use super::wire::Request;"), ["tree imports wire::Request"]);
    assert_eq!(
        planted("tree::apply", "use super::super::wire::Request;"),
        ["tree::apply imports wire::Request"]
    );
    assert_eq!(planted("tree::apply", "use super::Txn; use self::inner::Node;"), NOTHING);
    assert_eq!(planted("zab", "mod inner { use super::super::tree::Tree; }"), ["zab imports tree::Tree"]);
    assert_eq!(planted("zab", "mod inner { use super::history::Entry; }"), NOTHING);
}

#[test]
fn inline_paths_are_seen() {
    let in_type = "fn f(tree: &crate::tree::Tree) {}";
    let in_expression = "fn f() { let t = crate::tree::Tree::new(); }";
    let in_bound = "fn f<T: Into<crate::tree::Tree>>(t: T) {}";
    let in_pattern = "fn f(x: u8) { match x { super::tree::LIMIT => {} _ => {} } }";
    for source in [in_type, in_expression, in_bound, in_pattern] {
        let found = planted("wire", source);
        assert!(found.iter().all(|v| v.starts_with("wire imports tree::")), "{source}: {found:?}");
        assert_eq!(found.len(), 1, "{source}");
    }
}

#[test]
fn paths_in_macros_and_attributes_are_seen() {
    assert_eq!(
        planted("wire", r#"fn f() { tracing::info!(n = crate::tree::Tree::new().len(), "x"); }"#),
        ["wire imports tree::Tree"]
    );
    assert_eq!(
        planted("wire", "fn f() { assert_eq!(vec![(super::tree::LIMIT, 1)], []); }"),
        ["wire imports tree::LIMIT"]
    );
    assert_eq!(
        planted("wire", "macro_rules! m { () => { $crate::tree::Tree::new() } }"),
        ["wire imports tree::Tree"]
    );
    assert_eq!(planted("zab", "#[derive(serde::Serialize)] struct S;"), ["zab uses the crate serde"]);
    assert_eq!(planted("zab", "#[tokio::main] async fn f() {}"), ["zab uses the crate tokio"]);
}

#[test]
fn a_module_imported_under_a_name_does_not_hide_what_is_taken_from_it() {
    assert_eq!(
        planted("dns", "use crate::registry; fn f() { registry::Mirror::run(); }"),
        ["dns imports registry::mirror"]
    );
    assert_eq!(
        planted("dns", "use crate::registry as r; fn f(v: r::View) { r::Mirror::run(); }"),
        ["dns imports registry::mirror"]
    );
    assert_eq!(planted("dns", "use crate::registry::{Cache, View, Record};"), NOTHING);
}

#[test]
fn roles_never_import_one_another() {
    assert_eq!(planted("sidecar", "use crate::ensemble::Ensemble;"), ["sidecar imports ensemble::Ensemble"]);
    assert_eq!(planted("ensemble::driver", "use crate::cli::run;"), ["ensemble::driver imports cli::run"]);
    assert_eq!(planted("cli", "use crate::{ensemble::Ensemble, sidecar::Sidecar};"), NOTHING);
    assert_eq!(planted("main", "fn main() { rollcall::cli::run(); }"), NOTHING);
}

#[test]
fn a_longer_rule_goes_before_a_shorter_one() {
    assert_eq!(planted("http::lookup", "use crate::registry::View;"), NOTHING);
    assert_eq!(
        planted("http::listener", "use crate::registry::View;"),
        ["http::listener imports registry::view"]
    );
}

#[test]
fn pure_modules_name_nothing_that_does_io() {
    for (source, found) in [
        ("use tokio::net::TcpStream;", "tree uses the crate tokio"),
        ("fn f() { tokio::spawn(async {}); }", "tree uses the crate tokio"),
        ("extern crate hyper;", "tree uses the crate hyper"),
        ("use fastrand as dice;", "tree uses the crate fastrand"),
        ("use hickory_proto::rr::Name;", "tree uses the crate hickory_proto"),
        ("use std::fs;", "tree uses std::fs"),
        ("use std::{fmt, fs::File};", "tree uses std::fs::File"),
        ("fn f() { std::thread::spawn(|| ()); }", "tree uses std::thread::spawn"),
        ("use std::net::TcpStream;", "tree uses std::net::TcpStream"),
        ("use std::net::*;", "tree uses std::net::*"),
        ("use std::time::Instant; fn f() { Instant::now(); }", "tree uses std::time::Instant::now"),
        ("use std::time; fn f() { time::SystemTime::now(); }", "tree uses std::time::SystemTime::now"),
        ("use std::time::Instant as I; fn f() { g!(I::now()); }", "tree uses std::time::Instant::now"),
        ("use crate::clock;", "tree imports clock"),
    ] {
        assert_eq!(planted("tree", source), [found], "{source}");
    }
    let allowed = "use std::net::{IpAddr, Ipv4Addr}; use std::time::{Duration, Instant}; use bytes::Bytes;
                   use rustc_hash::FxHashMap; fn f(now: Instant) -> Instant { now + Duration::ZERO }";
    assert_eq!(planted("tree", allowed), NOTHING);
    assert_eq!(planted("client", "use tokio::net::TcpStream; use std::fs;"), NOTHING);
}

#[test]
fn unsafe_code_is_in_one_module() {
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    let mut with_unsafe = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            // The build's folders, and what is not ours.
            let is_left_out = path.ends_with("target")
                || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !is_left_out {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).expect("a source can be read");
                let tokens = source.parse::<TokenStream>().expect("a source is Rust");
                if has_word(tokens, "unsafe") {
                    with_unsafe
                        .insert(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below it").to_owned());
                }
            }
        }
    }
    assert_eq!(with_unsafe, [PathBuf::from("src/dns/mmsg.rs")].into());
}

fn has_word(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_word(group.stream(), word),
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[test]
fn test_modules_are_left_out() {
    assert_eq!(planted("tree", "#[cfg(test)] mod tests { use crate::wire::Request; }"), NOTHING);
    assert_eq!(planted("tree", "#[cfg(all(test, unix))] mod tests { use crate::wire::Request; }"), NOTHING);
    assert_eq!(planted("tree", "#[test] fn t() { crate::wire::f(); }"), NOTHING);
    assert_eq!(
        planted("tree", "#[cfg(not(test))] mod real { use crate::wire::Request; }"),
        ["tree imports wire::Request"]
    );
}

#[test]
fn test_modules_in_files_of_their_own_are_left_out() {
    let mut sources = Sources::default();
    sources.add("tree", "#[cfg(test)] mod tests; mod apply;");
    sources.add("tree::tests", "use crate::wire::Request;");
    sources.add("tree::tests::deep", "use crate::wire::Request;");
    sources.add("tree::apply", "use crate::wire::Request;");
    let found: Vec<String> = sources.check().iter().map(Violation::what).collect();
    assert_eq!(found, ["tree::apply imports wire::Request"]);
}

#[test]
fn a_module_that_the_table_lacks_is_a_violation() {
    assert_eq!(planted("helpers", "fn f() {}"), ["helpers is not in the table"]);
}

const NOTHING: [&str; 0] = [];

/// The violations in one planted file that stands beside a `zab` and a `registry` root.
fn planted(module: &str, source: &str) -> Vec<String> {
    let dependencies =
        ["tokio", "bytes", "hyper", "fastrand", "hickory_proto", "rustc_hash", "serde", "tracing"];
    let mut sources = Sources { dependencies: dependencies.map(String::from).into(), ..Sources::default() };
    sources.add("zab", "mod history; mod quorum; pub use history::Entry; pub use quorum::Quorum;");
    sources.add(
        "registry",
        "mod view; mod cache; mod mirror; mod record; pub use view::View; pub use self::cache::Cache;
         pub use mirror::{Mirror, MirrorError as Error}; pub use record::Record;",
    );
    sources.add(module, source);
    sources.check().iter().map(|violation| violation.what()).collect()
}

/// The parsed files and what is needed to resolve names in them.
#[derive(Default)]
struct Sources {
    files: Vec<(ModulePath, syn::File)>,
    /// `(module, exported name)` to the submodule that a module root takes it from.
    exports: BTreeMap<(String, String), String>,
    dependencies: BTreeSet<String>,
}

type ModulePath = Vec<String>;

/// One name that stands where it may not.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    module: String,
    kind: Kind,
    line: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Imports(String),
    UsesCrate(String),
    UsesStd(String),
    NotInTable,
}

impl Violation {
    fn what(&self) -> String {
        let module = &self.module;
        match &self.kind {
            Kind::Imports(path) => format!("{module} imports {path}"),
            Kind::UsesCrate(name) => format!("{module} uses the crate {name}"),
            Kind::UsesStd(path) => format!("{module} uses std::{path}"),
            Kind::NotInTable => format!("{module} is not in the table"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}.rs:{}: {}", self.module.replace("::", "/"), self.line, self.what())
    }
}

impl Sources {
    fn read(src: &Path) -> Self {
        let mut sources = Self { dependencies: dependencies(), ..Self::default() };
        let mut folders = vec![src.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let module = path.strip_prefix(src).expect("walked from src").with_extension("");
                    let module: Vec<&str> =
                        module.iter().map(|part| part.to_str().expect("names are ASCII")).collect();
                    let text = std::fs::read_to_string(&path).expect("a source file can be read");
                    sources.add(&module.join("::"), &text);
                }
            }
        }
        sources
    }

    fn add(&mut self, module: &str, source: &str) {
        let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{module}: {error}"));
        let path: ModulePath = module.split("::").map(String::from).collect();
        if let [top] = path.as_slice() {
            self.add_exports(top, &file);
        }
        self.files.push((path, file));
    }

    /// Notes where a module root takes the names from that it exports.
    fn add_exports(&mut self, top: &str, file: &syn::File) {
        let children: BTreeSet<String> = file
            .items
            .iter()
            .filter_map(
                |item| if let syn::Item::Mod(child) = item { Some(child.ident.to_string()) } else { None },
            )
            .collect();
        for item in &file.items {
            let syn::Item::Use(item) = item else { continue };
            for import in imports(&item.tree) {
                let segments = match import.path.first().map(String::as_str) {
                    Some("self") => &import.path[1..],
                    _ => &import.path[..],
                };
                if let [child, _, ..] = segments
                    && children.contains(child)
                {
                    self.exports.insert((top.to_owned(), import.name.clone()), child.clone());
                }
            }
        }
    }

    fn check(&self) -> Vec<Violation> {
        let mut found = BTreeSet::new();
        let test_modules = self.test_modules();
        for (path, file) in &self.files {
            if test_modules.iter().any(|test_module| path.starts_with(test_module)) {
                continue;
            }
            let module = path.join("::");
            let Some(allowed) = rule(path) else {
                found.insert(Violation { module, kind: Kind::NotInTable, line: 1 });
                continue;
            };
            let mut names = Names::new(path.clone());
            names.visit_file(file);
            let pure = PURE.contains(&path[0].as_str());
            for (name, line) in names.found {
                let Some(kind) = self.judge(path, allowed, pure, &name) else { continue };
                // One name in one file is one violation, however often it is written.
                if !found.iter().any(|v: &Violation| v.module == module && v.kind == kind) {
                    found.insert(Violation { module: module.clone(), kind, line });
                }
            }
        }
        found.into_iter().collect()
    }

    /// The modules in files of their own that are there only while testing.
    fn test_modules(&self) -> Vec<ModulePath> {
        let mut modules = Vec::new();
        for (path, file) in &self.files {
            for item in &file.items {
                if let syn::Item::Mod(child) = item
                    && child.content.is_none()
                    && is_test_only(&child.attrs)
                {
                    modules.push([path.as_slice(), &[child.ident.to_string()]].concat());
                }
            }
        }
        modules
    }

    /// What is wrong with naming `name` in `module`, if anything.
    fn judge(&self, module: &[String], allowed: &[&str], pure: bool, name: &Name) -> Option<Kind> {
        match name {
            Name::Ours(path) => {
                let top = path.first()?;
                if *top == module[0] || allowed.contains(&"*") || allowed.contains(&top.as_str()) {
                    return None;
                }
                // Only some submodules of it are let in: see through what its root exports.
                let second = path
                    .get(1)
                    .map(|second| self.exports.get(&(top.clone(), second.clone())).unwrap_or(second).clone());
                let resolved: Vec<String> = [Some(top.clone()), second].into_iter().flatten().collect();
                let is_partly_allowed = allowed.iter().any(|a| a.starts_with(&format!("{top}::")));
                let is_module_alone = resolved.len() == 1 && is_partly_allowed;
                let resolved = resolved.join("::");
                (!is_module_alone && !allowed.contains(&resolved.as_str())).then_some(Kind::Imports(resolved))
            }
            Name::Std(path) if pure => {
                let path = path.join("::");
                let is_below = |list: &[&str]| {
                    list.iter().any(|entry| path == *entry || path.starts_with(&format!("{entry}::")))
                };
                (is_below(IMPURE_STD) && !is_below(PURE_STD)).then_some(Kind::UsesStd(path))
            }
            Name::Other(first) if pure => {
                let is_foreign = self.dependencies.contains(first) && !PURE_CRATES.contains(&first.as_str());
                is_foreign.then(|| Kind::UsesCrate(first.clone()))
            }
            Name::Std(_) | Name::Other(_) => None,
        }
    }
}

/// The rule of the longest module name that `path` is in.
fn rule(path: &[String]) -> Option<&'static [&'static str]> {
    (1..=path.len()).rev().find_map(|length| {
        let name = path[..length].join("::");
        TABLE.iter().find(|(module, _)| *module == name).map(|(_, allowed)| *allowed)
    })
}

/// A name as far as the table is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// A path in our crate, from its root.
    Ours(Vec<String>),
    /// A path in the standard library, from its root.
    Std(Vec<String>),
    /// The first segment of anything else: a dependency, or a name that is local.
    Other(String),
}

/// Collects every path that a file names, but for those in its tests.
struct Names {
    /// Where in the crate the walk stands.
    module: ModulePath,
    /// What `use` items of the file call other things.
    aliases: BTreeMap<String, Vec<String>>,
    found: Vec<(Name, usize)>,
}

impl Names {
    fn new(module: ModulePath) -> Self {
        // The crate's roots have no name of their own.
        let module = if module == ["lib"] || module == ["main"] { Vec::new() } else { module };
        Self { module, aliases: BTreeMap::new(), found: Vec::new() }
    }

    fn note(&mut self, path: &[String], line: usize) {
        let mut path = path.to_vec();
        if let Some(target) = path.first().and_then(|first| self.aliases.get(first)) {
            path.splice(0..1, target.clone());
        }
        let Some(first) = path.first() else { return };
        let name = match first.as_str() {
            "crate" | "rollcall" => Name::Ours(path[1..].to_vec()),
            "self" | "super" => match self.resolve(&path) {
                Some(path) => Name::Ours(path),
                None => return,
            },
            "std" | "core" | "alloc" => Name::Std(path[1..].to_vec()),
            _ => Name::Other(first.clone()),
        };
        // `crate` alone (as in `pub(crate)`) names nothing.
        if name != Name::Ours(Vec::new()) {
            self.found.push((name, line));
        }
    }

    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = self.module.clone();
        let mut rest = path;
        while let [first, tail @ ..] = rest {
            match first.as_str() {
                "self" => {}
                "super" => {
                    base.pop()?;
                }
                _ => break,
            }
            rest = tail;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// Paths in a macro's tokens: identifiers joined by `::`.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => {
                    self.note_tokens(group.stream());
                    at += 1;
                }
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    let mut path = vec![ident.to_string()];
                    at += 1;
                    while is_path_separator(&tokens[at..])
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.note(&path, line);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..] if a.as_char() == ':' && b.as_char() == ':')
}

impl<'ast> Visit<'ast> for Names {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // What `use` items introduce holds for the whole file, also above the item.
        for item in &file.items {
            let syn::Item::Use(item) = item else { continue };
            if is_test_only(&item.attrs) {
                continue;
            }
            for import in imports(&item.tree) {
                let is_known = import
                    .path
                    .first()
                    .is_some_and(|p| matches!(p.as_str(), "crate" | "rollcall" | "std" | "super"));
                if is_known && import.name != "*" {
                    self.aliases.insert(import.name, import.path);
                }
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let line = item.use_token.span.start().line;
        // A `use` of a name that another `use` introduced is resolved too, but not through itself.
        for import in imports(&item.tree) {
            let own = self.aliases.remove(&import.name);
            self.note(&import.path, line);
            if let Some(own) = own {
                self.aliases.insert(import.name, own);
            }
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.note(&[item.ident.to_string()], item.ident.span().start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.note(&segments, path.segments[0].ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.note_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.note_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

/// One leaf of a `use` tree: the name it introduces and what it stands for.
struct Import {
    name: String,
    path: Vec<String>,
}

fn imports(tree: &syn::UseTree) -> Vec<Import> {
    let mut leaves = Vec::new();
    collect_imports(tree, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect_imports(tree: &syn::UseTree, prefix: &mut Vec<String>, leaves: &mut Vec<Import>) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect_imports(&path.tree, prefix, leaves);
            prefix.pop();
        }
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|item| collect_imports(item, prefix, leaves));
        }
        syn::UseTree::Name(name) => {
            let name = name.ident.to_string();
            leaves.push(leaf(&name, &name, prefix));
        }
        syn::UseTree::Rename(rename) => {
            leaves.push(leaf(&rename.ident.to_string(), &rename.rename.to_string(), prefix));
        }
        syn::UseTree::Glob(_) => leaves.push(leaf("*", "*", prefix)),
    }
}

/// `self` at the end of a group is the module before it.
fn leaf(ident: &str, name: &str, prefix: &[String]) -> Import {
    let mut path = prefix.to_vec();
    if ident != "self" || prefix.is_empty() {
        path.push(ident.to_owned());
    }
    let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_owned() };
    Import { name, path }
}

/// Whether an item is there only while testing: `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        if attribute.path().is_ident("test") {
            return true;
        }
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition: String =
            list.tokens.to_string().chars().filter(|character| !character.is_whitespace()).collect();
        list.path.is_ident("cfg")
            && (condition == "test"
                || condition
                    .strip_prefix("all(")
                    .is_some_and(|rest| rest.trim_end_matches(')').split(',').any(|part| part == "test")))
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "items of other kinds name nothing, or are not ours to list"
)]
fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The dependencies of `Cargo.toml`, as the code names them.
fn dependencies() -> BTreeSet<String> {
    let manifest = include_str!("../Cargo.toml");
    let mut is_inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_inside = line == "[dependencies]";
        } else if is_inside
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once('=')
        {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    assert!(names.contains("tokio"), "the dependencies were not found in Cargo.toml");
    names
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a source folder can be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    paths
}

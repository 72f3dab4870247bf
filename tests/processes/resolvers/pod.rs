//! What stands around a resolver: a sidecar on port 53, an upstream that knows all other names, and the resolver's settings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rollcall::clock;

use crate::support::dev::ROLLCALL;
use crate::support::{Dig, KnotZone, Namespace, Process, dig_with, start_knot, wait_until};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);
/// For how long resolvers wait for an answer here before they ask again, in s: the most that glibc lets itself be told.
const RESOLVERS_TIMEOUT_S: u64 = 30;
/// What takes less has missed no answer, and is still far more than anything takes.
const NONE_MISSED: Duration = Duration::from_secs(RESOLVERS_TIMEOUT_S - 1);
/// As the kubelet writes it for a pod of the namespace `shop`, and the sidecar's zone behind it.
pub(super) const SEARCH: &str = "shop.svc.cluster.local svc.cluster.local cluster.local rollcall.internal";
/// The addresses of `web.default`, sorted.
pub(super) const WEB: &[&str] = &["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"];
/// Those of `www.example.test`, which the upstream knows.
pub(super) const WWW: &[&str] = &["192.0.2.1", "2001:db8::1"];
/// What [`Pod::look_up`] tells of a name that does not exist, and of one that may be found another time.
pub(super) const NO_NAME: &[&str] = &["EAI_NONAME", "error"];
pub(super) const AGAIN: &[&str] = &["EAI_AGAIN", "error"];
/// Addresses of `many.default`: more than fit into 1232 octets, and three times what fits into 512.
pub(super) const MANY: usize = INSTANCES * 5;
/// Its instances.
pub(super) const INSTANCES: usize = 20;

/// A pod's namespaces with a sidecar; all of it ends when dropped.
#[derive(Debug)]
pub(super) struct Pod {
    namespace: Namespace,
    folder: tempfile::TempDir,
    _upstream: Process,
    _sidecar: Process,
}

impl Pod {
    /// One whose registry has `web.default` (two instances with an address of each family), `four.default` (two with an IPv4 address) and
    /// `many.default`.
    pub(super) fn serving() -> Self {
        let mut services = String::from("services:\n");
        let mut add = |service: &str, id: usize, addresses: &str| {
            let id = format!("{service}-{id}");
            let line =
                format!("{{name: {service}, id: {id}, addresses: [{addresses}], port: 8080, checks: []}}");
            writeln!(services, "- {line}").expect("a String takes it");
        };
        for id in 1..=2 {
            add("web", id, &format!("10.0.0.{id}, 'fd00::{id}'"));
            add("four", id, &format!("10.0.1.{id}"));
        }
        for id in 0..INSTANCES {
            let addresses: Vec<_> =
                (0..MANY / INSTANCES).map(|number| format!("10.1.{id}.{number}")).collect();
            add("many", id, &addresses.join(", "));
        }
        let pod = Self::start("dev", &services);
        wait_until("all are registered", LIMIT, || {
            pod.dig(&["+tcp", "many.default.rollcall.internal"]).answer.len() == MANY
        });
        pod
    }

    /// One that has never reached its ensemble.
    pub(super) fn never_loaded() -> Self {
        Self::start("sidecar", "ensemble: {servers: ['127.0.0.1:1']}\n")
    }

    fn start(role: &str, settings: &str) -> Self {
        let (namespace, folder) =
            (Namespace::make(), tempfile::tempdir().expect("a temporary folder can be made"));
        namespace.write_resolv_conf("nameserver 127.0.0.1\n");
        let zone = KnotZone { domain: ".", text: include_str!("root.zone"), is_signed: false };
        let upstream = start_knot(folder.path(), UPSTREAM_PORT, zone, |program| namespace.command(program));
        let head = format!(
            "dns: {{address: '127.0.0.1:53', forward: {{upstreams: ['127.0.0.1:{UPSTREAM_PORT}']}}}}\n"
        );
        let file = folder.path().join("settings.yaml");
        std::fs::write(&file, head + settings).expect("a file can be written");
        let mut command = namespace.command(ROLLCALL);
        command.arg(role).arg("-c").arg(&file).env("TMPDIR", folder.path());
        let sidecar = Process::start("rollcall", &mut command);
        let pod = Self { namespace, folder, _upstream: upstream, _sidecar: sidecar };
        wait_until("names of others are answered", LIMIT, || {
            !pod.dig(&["www.example.test"]).answer.is_empty()
        });
        pod
    }

    /// Has programs look names up with this search list; names with fewer dots than `ndots` are looked up with its endings first.
    pub(super) fn search(&self, search: &str, options: &str) {
        self.search_for(Duration::from_secs(RESOLVERS_TIMEOUT_S), search, options);
    }

    /// The same, where programs wait for an answer for so long, in whole seconds.
    pub(super) fn search_for(&self, timeout: Duration, search: &str, options: &str) {
        let timeout_s = timeout.as_secs();
        self.namespace.write_resolv_conf(&format!(
            "nameserver 127.0.0.1\nsearch {search}\noptions timeout:{timeout_s} {options}\n"
        ));
    }

    pub(super) fn dig(&self, arguments: &[&str]) -> Dig {
        dig_with(self.namespace.command("dig").arg("@127.0.0.1").args(arguments))
    }

    /// Runs a program, which must succeed, and returns what it prints.
    pub(super) fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> String {
        let program = program.as_ref();
        let mut command = self.namespace.command(program);
        let output = command.args(arguments).output().expect("nsenter can be run");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}\n{stdout}{stderr}",
            program.display(),
            output.status
        );
        stdout
    }

    /// Runs a program that prints a line for each name, such as `lookup.c`, and returns what it says of each; demands that no query had to be
    /// sent again.
    pub(super) fn look_up(
        &self,
        program: impl AsRef<Path>,
        arguments: &[&str],
    ) -> BTreeMap<String, Vec<String>> {
        let begin = clock::now();
        let told = told(&self.run(program, arguments));
        let took = begin.elapsed();
        assert!(took < NONE_MISSED, "{arguments:?} took {took:?}: an answer was missing");
        told
    }

    /// Compiles `lookup.c`; says which package is missing when there is no such compiler.
    pub(super) fn compile(&self, compiler: &str, flags: &[&str], package: &str) -> PathBuf {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/resolvers/lookup.c");
        let program = self.folder.path().join("lookup");
        let mut command = Command::new(compiler);
        command.args(["-D_GNU_SOURCE", "-Wall", "-Werror", "-o"]).arg(&program).args(flags).arg(source);
        let output = command.output();
        let output = output.unwrap_or_else(|error| {
            panic!("cannot run {compiler}: {error}; install Debian's package {package}")
        });
        assert!(output.status.success(), "{compiler}: {}", text(output.stderr));
        program
    }
}

/// What lines say of the names that they begin with, sorted.
pub(super) fn told(lines: &str) -> BTreeMap<String, Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let lines = lines.lines().map(|line| {
        let mut words = words(line);
        let name = words.remove(0);
        words.sort();
        (name, words)
    });
    lines.collect()
}

/// Demands what each of these names is said to be.
pub(super) fn expect(told: &BTreeMap<String, Vec<String>>, expected: &[(&str, &[&str])]) {
    for (name, words) in expected {
        assert_eq!(
            told.get(*name).map(Vec::as_slice),
            Some(&words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..]),
            "{name} of {told:#?}"
        );
    }
}

/// Demands that this many different instances of `many.default` were found, and nothing else.
pub(super) fn expect_many(addresses: &[String], count: std::ops::RangeInclusive<usize>) {
    let different: std::collections::BTreeSet<_> = addresses.iter().collect();
    assert!(
        count.contains(&different.len()) && different.len() == addresses.len(),
        "{} of them",
        addresses.len()
    );
    assert!(addresses.iter().all(|address| address.starts_with("10.1.")), "{addresses:?}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Any one: all ports of the namespace are free.
const UPSTREAM_PORT: u16 = 5353;

//! The commands as people run them: arguments in; output, exit status and what is left behind.

#[path = "cli/explain.rs"]
mod explain;
#[path = "cli/rehearse.rs"]
mod rehearse;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Generous, since machines that test are busy; a test that waits in vain fails by it.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_broken_file_is_told_whole_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    let text = "\
namspace: shop
dns:
  address: 127.0.0.1
  ttl: 1500ms
http: [127.0.0.1:8500]
address: 10.0.0.1
services:
  - name: Web
    port: many
    checks:
      - kind: http
        intervall: 2s
      - kind: tcp
        timeout: ${ROLLCALL_TEST_NOT_SET}
    port: 80
log:
  filter: rollcall=loud
";
    fs_err::write(&file, text).unwrap();
    let output = run(&["check-config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    let told = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = told.lines().map(|line| line.strip_prefix(file.to_str().unwrap()).unwrap()).collect();
    let starts = [
        ":1:1: namspace: unknown key; did you mean \"namespace\"?",
        ":3:12: dns.address: \"127.0.0.1\" is not an IP address with a port; write one such as 127.0.0.1:8600",
        ":4:8: dns.ttl: 1500ms is no TTL; write whole seconds",
        ":5:7: http: a list stands where a mapping is needed; write keys with values",
        ":8:11: services[0].name: \"Web\" is not a DNS label",
        ":9:11: services[0].port: the text \"many\" stands where a whole number is needed",
        ":12:9: services[0].checks[0].intervall: unknown key; did you mean \"interval\"?",
        ":14:18: services[0].checks[1].timeout: the environment variable ROLLCALL_TEST_NOT_SET is not set",
        ":15:5: services[0].port: the key stands twice, first in line 9; keep one of them",
        ":17:11: log.filter: \"rollcall=loud\" is no log filter",
    ];
    assert_eq!(lines.len(), starts.len(), "{told}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\nshould begin with\n{start}");
    }
}

#[test]
fn good_files_are_told_with_their_role() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let output = run(&["check-config", folder.join("dev.yaml").to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.ends_with("dev.yaml: ok (dev settings, 2 services)\n"), "{told}");
    let output = command(&["check-config", folder.join("sidecar.yaml").to_str().unwrap()])
        .env("POD_IP", "10.0.0.1")
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && told.ends_with("ok (sidecar settings, 1 service)\n"), "{told}");
}

#[test]
fn the_file_of_apache_zookeeper_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zoo.cfg");
    let check = |text: &str| {
        fs_err::write(&file, text).unwrap();
        run(&["check-config", file.to_str().unwrap()])
    };
    let good = check("dataDir=/var/lib/zookeeper\nclientPort=2181\npreAllocSize=65536\nmine=1\n");
    let told = String::from_utf8(good.stdout).unwrap().replace(file.to_str().unwrap(), "zoo.cfg");
    assert_eq!(
        told,
        "zoo.cfg: keys without effect here: preAllocSize; not known: mine; not set, though snapshots beyond 3 are removed \
         here all the same, with their logs: autopurge.purgeInterval\n\
         zoo.cfg: ok (Apache ZooKeeper's settings, server 1)\n"
    );
    assert_eq!(good.status.code(), Some(0));
    let bad = check("dataDir=/var/lib/zookeeper\nclientPort=2181\nforceSync=no\n");
    let told = String::from_utf8(bad.stderr).unwrap();
    assert_eq!((bad.status.code(), bad.stdout.len()), (Some(2), 0));
    assert!(told.contains("zoo.cfg:3:1: forceSync: "), "{told}");
}

#[test]
fn a_missing_file_has_status_2_too() {
    let output = run(&["check-config", "/nowhere/x.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nowhere/x.yaml"));
}

#[test]
fn settings_are_checked_from_a_pipe_as_from_a_file() {
    let check = |settings: &[u8]| {
        let mut command = command(&["check-config", "/dev/stdin"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(settings).unwrap();
        child.wait_with_output().unwrap()
    };
    let good = check(b"services: [{name: web, port: 80, address: 10.0.0.1}]");
    assert_eq!(good.stdout, b"/dev/stdin: ok (sidecar settings, 1 service)\n", "{good:?}");
    let bad = check(b"services: [{name: web, port: many, address: 10.0.0.1}]");
    let told = String::from_utf8(bad.stderr).unwrap();
    assert_eq!((bad.status.code(), told.lines().count()), (Some(2), 1), "{told}");
    assert!(told.starts_with("/dev/stdin:1:30: services[0].port: the text \"many\""), "{told}");
}

#[test]
fn a_taken_port_is_one_line_and_nothing_is_left() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp, udp) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    for (flag, port) in
        [("--client-port", tcp), ("--dns-port", tcp), ("--dns-port", udp), ("--http-port", tcp)]
    {
        // Held by this process while the command runs.
        let _held_tcp = TcpListener::bind(("127.0.0.1", tcp));
        let _held_udp = UdpSocket::bind(("127.0.0.1", udp));
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["dev".to_owned()];
        for other in ["--client-port", "--dns-port", "--http-port"] {
            arguments.push(other.to_owned());
            arguments.push(if other == flag { port.to_string() } else { "0".to_owned() });
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = command(&arguments).env("TMPDIR", folder.path()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(&format!(":{port} ")) && told.contains(flag), "{told}");
        assert_eq!(output.stdout, b"");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0, "no folder is left");
    }
}

#[test]
fn dev_answers_and_leaves_in_order() {
    let dev = Dev::start(&["--service", "db.shop=127.0.0.1:1"]);
    let lookup = dev.until(&["lookup", "rollcall", "-o", "json"], "\"status\": \"up\"");
    assert!(lookup.contains("\"selected\": true"), "{lookup}");
    assert!(dev.until(&["services"], "rollcall").contains("NAMESPACE"));
    let unknown = dev.ask(&["lookup", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("no service nobody.default is known"));

    let mut watch = dev.command(&["watch", "rollcall"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = Lines::of(watch.stdout.take().unwrap());
    assert!(lines.next().contains("present  dev  up"));
    let (status, left) = dev.stop(Signal::TERM);
    assert!(lines.next().contains("changed  dev  status up -> draining, offered yes -> no"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!((status, left), (Some(0), 0), "status, and what is left in the temporary folder");
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut dev = Dev::start(&[]);
    dev.until(&["lookup", "rollcall"], "up");
    dev.signal(Signal::TERM);
    dev.signal(Signal::INT);
    let status = dev.child.wait().unwrap().code();
    // The two signals may come in one wake, in either order; both are told by their statuses.
    assert!(status == Some(130) || status == Some(143), "{status:?}");
}

#[test]
fn znodes_are_read_and_changed() {
    let dev = Dev::start(&[]);
    let zk = |arguments: &[&str]| {
        let output = run(&[&["zk", "--server", &dev.client], arguments].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(zk(&["create", "/a", "one"]).1, "/a\n");
    assert_eq!(zk(&["create", "/a/b-", "two", "--sequential"]).1, "/a/b-0000000000\n");
    assert_eq!(zk(&["ls", "/a"]).1, "b-0000000000\n");
    assert_eq!(zk(&["ls", "/a", "-R"]).1, "/a\n/a/b-0000000000\n");
    assert_eq!(zk(&["get", "/a"]).1, "one\n");
    assert_eq!(zk(&["set", "/a", "three", "--version", "0"]).1, "version 1\n");
    let (status, _, told) = zk(&["set", "/a", "four", "--version", "0"]);
    assert!(status == 1 && told.contains("version") && told.contains(&dev.client), "{told}");
    assert!(zk(&["get", "/a", "-o", "json"]).1.contains("\"data\": \"three\""));
    assert!(zk(&["stat", "/a"]).1.contains("numChildren = 1\n"));
    assert!(zk(&["delete", "/a"]).2.contains("use -R"));
    assert_eq!(zk(&["delete", "/a", "-R"]).0, 0);
    for (arguments, what, remedy) in [
        (&["get", "/a"][..], "no such znode", "zk ls"),
        (&["stat", "/a"], "no such znode", "zk ls"),
        (&["create", "/a/b"], "no such znode", "zk ls"),
        (&["create", "/zookeeper"], "exists already", "zk set"),
    ] {
        let (status, _, told) = zk(arguments);
        assert_eq!(status, 1, "{told}");
        assert!(told.contains(what) && told.contains(&dev.client) && told.contains(remedy), "{told}");
    }
    assert_eq!(zk(&["get", "a"]).0, 2);

    let mut holder = command(&["zk", "--server", &dev.client, "create", "/e", "--ephemeral"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(Lines::of(holder.stdout.take().unwrap()).next(), "/e");
    assert_eq!(zk(&["get", "/e"]).0, 0);
    signal(&holder, Signal::INT);
    assert_eq!(holder.wait().unwrap().code(), Some(0));
    assert_eq!(zk(&["get", "/e"]).0, 1, "it goes with the command");
    assert_eq!(dev.stop(Signal::INT), (Some(0), 0));
}

#[test]
fn the_settings_of_services_are_changed_and_services_without_instances_pruned() {
    let dev = Dev::start(&[]);
    let service = |arguments: &[&str]| {
        let output = run(&[&["service", "--server", &dev.client], arguments].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (status, _, told) = service(&["get", "web"]);
    assert!(status == 1 && told.contains("no service web.default") && told.contains(&dev.client), "{told}");
    dev.until(&["status"], "rollcall.default/dev  up");
    let (status, _, told) = service(&["set", "rolcall", "--min-healthy", "2"]);
    assert!(status == 1 && told.contains("did you mean rollcall.default?"), "{told}");
    let (status, _, told) = service(&["set", "web", "--min-healthy", "2"]);
    assert!(status == 1 && told.contains("no service web.default") && told.contains("--create"), "{told}");
    assert_eq!(service(&["get", "web"]).0, 1, "nothing was made");
    let (status, _, told) = service(&["set", "all", "--create", "--min-healthy", "2"]);
    assert!(status == 2 && told.contains("a meaning of its own"), "{told}");
    let (status, shown, _) =
        service(&["set", "web", "--create", "--min-healthy", "2", "--failback-after", "1m"]);
    assert!(status == 0 && shown.contains("failback_after_s  60             set\n"), "{shown}");

    let zk = |arguments: &[&str]| run(&[&["zk", "--server", &dev.client], arguments].concat()).stdout;
    let path = "/rollcall/services/default/web";
    let stored = String::from_utf8(zk(&["get", path])).unwrap();
    assert_eq!(stored, "{\"failback_after_s\":60,\"min_healthy\":2}\n");
    zk(&["set", path, "{\"min_healthy\":2,\"later\":[1]}"]);
    let (_, shown, _) = service(&["set", "web", "--unset", "min_healthy", "--failback", "manual"]);
    assert!(shown.contains("later") && shown.contains("not understood"), "{shown}");
    assert_eq!(
        zk(&["get", path]),
        b"{\"failback\":\"manual\",\"later\":[1]}\n",
        "what is not understood stays"
    );

    zk(&["create", &format!("{path}/one"), "{}"]);
    assert!(service(&["prune", "web"]).2.contains("has instances"));
    zk(&["delete", &format!("{path}/one")]);
    assert!(!service(&["prune"]).1.contains("web"), "it has settings");
    assert_eq!(service(&["prune", "web"]).1, "pruned web.default\n");
    assert_eq!(service(&["set", "web"]).0, 2, "nothing to set");
    let (status, _, told) = service(&["set", "rollcall", "--unset", "brakes"]);
    assert!(status == 2 && told.contains("did you mean brake?"), "{told}");
    assert_eq!(service(&["set", "web", "--failback", "never"]).0, 2);
    assert_eq!(service(&["set", "web", "--dns-ttl", "1500ms"]).0, 2);
    zk(&["create", path, "{"]);
    assert!(service(&["set", "web", "--min-healthy", "1"]).2.contains("overwrite it with"));
    zk(&["create", &format!("{path}-unused"), ""]);
    let (status, pruned, told) = service(&["prune"]);
    assert!(status == 0 && told.contains(&format!("{path}: ")) && told.contains("not pruned"), "{told}");
    assert_eq!(pruned, "pruned web-unused.default\n", "damaged settings are settings");
    zk(&["set", path, "{\"min_healthy\":\"2\",\"brake\":false}"]);
    let (status, _, told) = service(&["get", "web"]);
    let remedy = "`rollcall service set web.default --unset min_healthy`";
    assert!(status == 1 && told.contains("min_healthy: invalid type") && told.contains(remedy), "{told}");
    let (status, shown, _) = service(&["set", "web.default", "--unset", "min_healthy"]);
    assert!(status == 0 && shown.contains("brake             off            set"), "{shown}");
    assert_eq!(dev.stop(Signal::INT), (Some(0), 0));
}

#[test]
fn without_a_sidecar_the_error_says_what_to_try() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    for command in [
        &["lookup", "web"][..],
        &["services"],
        &["watch", "web"],
        &["status"],
        &["drain", "--wait"],
        &["drain", "web", "--undo"],
        &["maintenance", "on", "--reason", "disk"],
        &["maintenance", "show"],
    ] {
        let output = run(&[command, &["--http-addr", &addr]].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(&addr) && told.contains("`rollcall dev`") && told.contains("--http-addr"),
            "{told}"
        );
    }
}

#[test]
fn own_instances_are_drained_maintained_and_told_of() {
    let dev = Dev::start(&[]);
    dev.until(&["status"], "rollcall.default/dev  up");
    let tell = |arguments: &[&str]| {
        let output = dev.ask(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (status, told, _) = tell(&["status"]);
    assert_eq!(status, 0);
    assert!(told.contains(&format!("connected to {}", dev.client)), "{told}");
    assert!(told.contains("rollcall.default/dev http  http  passing"), "{told}");

    let (status, told, errors) = tell(&["drain", "rollcall", "--wait=20s"]);
    assert_eq!((status, errors.as_str()), (0, ""), "{told}");
    assert!(
        told.contains("rollcall.default/dev  draining")
            && told.contains("all sidecars that follow it have seen it"),
        "{told}"
    );
    assert!(tell(&["lookup", "rollcall"]).1.contains("dev  draining"));
    assert!(tell(&["status"]).1.contains("told to drain"));
    let (status, told, _) = tell(&["drain", "--undo"]);
    assert!(status == 0 && told.contains("rollcall.default/dev  up"), "{told}");

    let (status, told, errors) = tell(&["maintenance", "on", "rollcall", "--reason", "new disk & fan"]);
    assert!(status == 0 && told.contains("rollcall.default/dev  maintenance"), "{told}");
    assert!(
        errors.contains("a restart of the sidecar undoes this: the sidecar has no state_dir"),
        "{errors}"
    );
    assert!(tell(&["maintenance", "show"]).1.trim_end().ends_with("new disk & fan"));
    assert!(tell(&["maintenance", "show", "-o", "json"]).1.contains("\"reason\": \"new disk & fan\""));
    assert!(tell(&["maintenance", "show", "other"]).1.contains("no instance"));
    let (status, told, errors) = tell(&["maintenance", "off", "-o", "json"]);
    assert!(status == 0 && errors.is_empty() && told.contains("\"status\": \"up\""), "{told}");

    for arguments in
        [&["drain", "nobody"][..], &["drain", "nobody", "--undo"], &["maintenance", "on", "nobody"]]
    {
        let (status, _, told) = tell(arguments);
        assert_eq!(status, 1, "{told}");
        assert!(
            told.contains("no instance of nobody.default is this sidecar's")
                && told.contains("rollcall status"),
            "{told}"
        );
    }
    for arguments in
        [&["drain", "--wait=soon"][..], &["maintenance", "on", "--reason", "a\nb"], &["drain", "--wait=11m"]]
    {
        assert_ne!(tell(arguments).0, 0, "{arguments:?}");
    }
    assert_eq!(dev.stop(Signal::TERM), (Some(0), 0));
}

#[test]
fn maintenance_with_a_data_folder_outlives_dev() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--data-dir", folder.path().to_str().unwrap()];
    let dev = Dev::start(&arguments);
    dev.until(&["status"], "rollcall.default/dev  up");
    let output = dev.ask(&["maintenance", "on", "--reason", "disk"]);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(dev.stop(Signal::INT).0, Some(0));
    let dev = Dev::start(&arguments);
    let told = dev.until(&["status"], "rollcall.default/dev  maintenance");
    assert!(told.contains(": disk"), "{told}");
    assert_eq!(dev.stop(Signal::INT).0, Some(0));
}

#[test]
fn completions_and_manual_pages_are_made_of_the_arguments() {
    for (shell, mark) in [
        ("bash", "complete -F _rollcall"),
        ("zsh", "#compdef rollcall"),
        ("fish", "complete -c rollcall"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let output = run(&["completions", shell]);
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && told.contains(mark) && told.contains("maintenance"), "{shell}");
    }
    let page = String::from_utf8(run(&["man", "zk", "create"]).stdout).unwrap();
    assert!(page.contains(".TH rollcall-zk-create 1") && page.contains("ephemeral"), "{page}");
    let unknown = run(&["man", "drian"]);
    assert_eq!(unknown.status.code(), Some(2));
    let told = String::from_utf8(unknown.stderr).unwrap();
    assert!(told.contains("rollcall has no command \"drian\"; `rollcall --help`"), "{told}");

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man1");
    let output = run(&["man", "--dir", dir.to_str().unwrap()]);
    assert!(output.status.success());
    for name in ["rollcall.1", "rollcall-drain.1", "rollcall-maintenance-on.1", "rollcall-zk-ls.1"] {
        assert!(fs_err::read_to_string(dir.join(name)).unwrap().contains(".SH NAME"), "{name}");
    }
    let output = run(&["man", "--dir", "/proc/nowhere"]);
    assert!(
        output.status.code() == Some(1)
            && String::from_utf8(output.stderr).unwrap().contains("/proc/nowhere")
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dev = Dev::start(&[]);
    dev.until(&["services"], "rollcall");
    let mut child = dev.command(&["services"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(0), ""));
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["ROLLCALL_LOG", "ROLLCALL_HTTP_ADDR", "ROLLCALL_SERVERS", "ROLLCALL_CONFIG"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program runs")
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}

/// A `rollcall dev` on free ports, ended with the test.
struct Dev {
    child: Child,
    client: String,
    http: String,
    temporary: tempfile::TempDir,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let ports = ["dev", "--client-port", "0", "--dns-port", "0", "--http-port", "0"];
        let mut child = command(&[&ports[..], arguments].concat())
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let lines = Lines::of(child.stdout.take().expect("it is piped"));
        let address = |name: &str| loop {
            let line = lines.next();
            let mut words = line.split_whitespace();
            if words.next() == Some(name) {
                return words.next().expect("an address").to_owned();
            }
        };
        let (client, http) = (address("ensemble"), address("HTTP"));
        Self { child, client, http, temporary }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(&[arguments, &["--http-addr", &self.http]].concat())
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Asks again until the answer holds `wanted`.
    fn until(&self, arguments: &[&str], wanted: &str) -> String {
        let end = Deadline::new();
        loop {
            let output = self.ask(arguments);
            let told = String::from_utf8(output.stdout).expect("text");
            if told.contains(wanted) {
                return told;
            }
            end.check(&format!("{arguments:?} never told {wanted}: {told}"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn signal(&self, kind: Signal) {
        signal(&self.child, kind);
    }

    /// The exit status, and how many things are left in the temporary folder.
    fn stop(mut self, kind: Signal) -> (Option<i32>, usize) {
        self.signal(kind);
        let status = self.child.wait().expect("it ends").code();
        (status, fs_err::read_dir(self.temporary.path()).expect("it can be listed").count())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a child's output, waited for with a deadline.
struct Lines(mpsc::Receiver<String>);

impl Lines {
    fn of(stdout: ChildStdout) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    fn next(&self) -> String {
        self.0.recv_timeout(DEADLINE).expect("a line of output")
    }
}

struct Deadline(Instant);

impl Deadline {
    fn new() -> Self {
        Self(rollcall::clock::now() + DEADLINE)
    }

    fn check(&self, reason: &str) {
        assert!(rollcall::clock::now() < self.0, "{reason}");
    }
}

#[test]
fn the_schemas_of_the_settings_are_printed_as_they_are_checked_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema");
    for (arguments, role) in [
        (&["--schema"][..], "sidecar"),
        (&["--schema", "sidecar"], "sidecar"),
        (&["--schema", "ensemble"], "ensemble"),
        (&["--schema=dev"], "dev"),
    ] {
        let output = run(&[&["check-config"], arguments].concat());
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        assert_eq!(output.stdout, fs_err::read(folder.join(format!("{role}.json"))).unwrap());
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], format!("Settings of rollcall {role}"));
    }
    let output = run(&["check-config", "--schema", "zk"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("possible values: sidecar, ensemble, dev"));
}

#[test]
fn check_config_opens_the_authorities_of_checks() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ca) = (folder.path().join("sidecar.yaml"), folder.path().join("ca.pem"));
    for kind in ["kind: https", "kind: grpc, tls: true"] {
        let text = format!(
            "address: 127.0.0.1\nservices: [{{name: web, port: 80, checks: [{{{kind}, name: app, ca: {}}}]}}]\n",
            ca.display()
        );
        std::fs::write(&file, text).unwrap();
        let output = run(&["check-config", file.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("check app of web.default: ") && errors.contains("ca.pem"), "{errors}");
    }
}

#[test]
fn check_config_opens_the_authorities_of_upstreams() {
    let folder = tempfile::tempdir().unwrap();
    let (file, ca) = (folder.path().join("sidecar.yaml"), folder.path().join("ca.pem"));
    for (upstream, is_opened) in [("tls://192.0.2.1#dns.example", true), ("192.0.2.1", false)] {
        let forward = format!("{{ca: {}, domains: {{corp.example: ['{upstream}']}}}}", ca.display());
        std::fs::write(&file, format!("dns: {{forward: {forward}}}\n")).unwrap();
        let output = run(&["check-config", file.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(if is_opened { 2 } else { 0 }), "{errors}");
        assert_eq!(errors.contains("dns.forward: ") && errors.contains("ca.pem"), is_opened, "{errors}");
    }
}

#[test]
fn check_config_opens_the_files_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ensemble.yaml");
    let cert = folder.path().join("cert.pem");
    let text = format!(
        "server_id: 1\ndata_dir: /nowhere\nmembers: [{{id: 1, host: a}}, {{id: 2, host: b}}, {{id: 3, host: c}}]\n\
         quorum: {{tls: {{cert: {cert}, key: {cert}, ca: {cert}}}}}\n",
        cert = cert.display()
    );
    std::fs::write(&file, text).unwrap();
    let output = run(&["check-config", file.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("quorum.tls: ") && errors.contains("cert.pem"), "{errors}");
}

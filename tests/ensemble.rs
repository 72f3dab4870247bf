//! `rollcall ensemble` as its own process: settings, the client port, the status port, the end.
#![expect(clippy::unwrap_used, reason = "what a test cannot do without fails it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rollcall::clock;

const PATIENCE: Duration = Duration::from_secs(20);

/// A member that is killed when the test is over.
struct Ensemble {
    child: Child,
    client: u16,
    status: u16,
}

impl Ensemble {
    fn start(folder: &Path) -> Self {
        let [client, status] = free_ports();
        let data = folder.join("data");
        let file = folder.join("ensemble.yaml");
        let text = format!(
            "data_dir: {}\nclient: {{address: 127.0.0.1:{client}, four_letter_words: [ruok, srvr]}}\nstatus_address: 127.0.0.1:{status}\n",
            data.display()
        );
        std::fs::write(&file, text).unwrap();
        // With fewer files than it is allowed, as on most machines.
        let limited = r#"ulimit -S -n 512 && exec "$0" ensemble -c "$1""#;
        let mut command = clean(Command::new("sh"));
        command.arg("-c").arg(limited).arg(env!("CARGO_BIN_EXE_rollcall")).arg(&file);
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let ensemble = Self { child, client, status };
        wait_until("readiness", || get(status, "/readyz").is_some_and(|answer| answer.contains(" 200 OK")));
        ensemble
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = clock::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(clock::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_clients_tells_its_state_and_ends_with_status_0() {
    let folder = tempfile::tempdir().unwrap();
    let ensemble = Ensemble::start(folder.path());
    assert_eq!(ask(ensemble.client, b"ruok"), "imok");
    assert!(ask(ensemble.client, b"srvr").contains("\nMode: standalone\n"));
    assert!(ask(ensemble.client, b"mntr").contains("is not in the whitelist"));
    assert!(get(ensemble.status, "/livez").unwrap().ends_with("ok\n"));
    let metrics = get(ensemble.status, "/metrics").unwrap();
    assert!(metrics.contains("\nrollcall_ensemble_znodes 4\n"), "{metrics}");
    assert!(get(ensemble.status, "/api/v1/services").unwrap().contains(" 404 "), "nothing else is there");

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", ensemble.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, ..] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard, "it may have as many connections as it is allowed files");

    let created = zk(ensemble.client, &["create", "/a", "kept"]);
    assert_eq!(created, "/a\n");
    assert_eq!(ensemble.terminate(), Some(0));

    let again = Ensemble::start(folder.path());
    assert_eq!(zk(again.client, &["get", "/a"]), "kept\n");
    assert_eq!(again.terminate(), Some(0));
}

#[test]
fn the_commented_settings_are_valid() {
    for role in ["ensemble", "dev"] {
        let output = program().arg("check-config").arg(format!("config/{role}.yaml")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&format!("config/{role}.yaml: ok ({role} settings, ")), "{text}");
    }
}

#[test]
fn a_taken_port_is_one_line_that_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = folder.path().join("ensemble.yaml");
    let addr = taken.local_addr().unwrap();
    std::fs::write(&file, format!("data_dir: {}\nclient: {{address: {addr}}}\n", folder.path().display()))
        .unwrap();
    let output = program().arg("ensemble").arg("-c").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains(&addr.to_string()) && text.contains("client.address"), "{text}");
}

#[test]
fn what_keeps_it_from_starting_is_a_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, [client, free]) = (taken.local_addr().unwrap().port(), free_ports());
    let [myid, file] = ["myid", "zoo.cfg"].map(|name| folder.path().join(name));
    std::fs::write(&myid, "1").unwrap();
    let told = |own: &str, more: &str| {
        let data = folder.path().display();
        let text = format!(
            "initLimit=10\nsyncLimit=5\ndataDir={data}\nclientPort={client}\nserver.1={own}\nserver.2=127.0.0.2:2888:3888\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let output = program().arg("ensemble").arg("--zoo-cfg").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned()
    };
    let nowhere = told(&format!("no.such.host.invalid:{free}:{taken}"), "");
    assert!(
        !nowhere.contains("stop what listens") && nowhere.contains("quorumListenOnAllIPs=true"),
        "{nowhere}"
    );
    let in_use = told(&format!("127.0.0.1:{taken}:{free}"), "quorumListenOnAllIPs=true\n");
    assert!(
        in_use.contains("stop what listens there") && !in_use.contains("quorumListenOnAllIPs"),
        "{in_use}"
    );

    std::fs::write(&file, format!("dataDir={}/below\nclientPort={client}\n", myid.display())).unwrap();
    let output = program().arg("ensemble").arg("--zoo-cfg").arg(&file).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().last().unwrap();
    assert!(line.contains("name one that can be made") && !line.contains("durable"), "{text}");
}

#[test]
fn two_processes_that_call_themselves_the_same_member_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let ([client, quorum], [election, status]) = (free_ports(), free_ports());
    let (file, log) = (folder.path().join("ensemble.yaml"), folder.path().join("log"));
    let text = format!(
        "server_id: 1\ndata_dir: {}\nclient: {{address: 127.0.0.1:{client}}}\nstatus_address: 127.0.0.1:{status}\nmembers:\n\
         - {{id: 1, host: 127.0.0.1, quorum_port: {quorum}, election_port: {election}}}\n- {{id: 2, host: 127.0.0.2}}\n\
         - {{id: 3, host: 127.0.0.3}}\n",
        folder.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = program();
    command.arg("ensemble").arg("-c").arg(&file).stderr(std::fs::File::create(&log).unwrap());
    let member = Ensemble { child: command.spawn().unwrap(), client, status };
    let is_told =
        || std::fs::read_to_string(&log).unwrap().contains("two processes call themselves this member");
    let mut calls = Vec::new();
    let mut call = |host: u8| {
        wait_until("a call", || {
            let Some(mut call) = call_from(host, election) else { return false };
            // The member's id before 3.5: bare.
            call.write_all(&3_i64.to_be_bytes()).unwrap();
            calls.push(call);
            true
        });
    };
    // A member that moves, as a pod does, is no reason to say anything; one that is at two places is.
    [7, 8, 9].into_iter().for_each(&mut call);
    assert!(!is_told());
    let mut turns = [8, 9].into_iter().cycle();
    wait_until("the warning", || {
        turns.by_ref().take(1).for_each(&mut call);
        is_told()
    });
    let log = std::fs::read_to_string(&log).unwrap();
    let line = log.lines().find(|line| line.contains("two processes")).unwrap();
    assert!(line.contains(r#""server":"3""#) && line.contains(r#"from":"127.0.0."#), "{line}");
    drop(member);
}

#[test]
fn three_members_of_one_machine_run_on_a_usual_zoo_cfg() {
    // Whoever has the port: the file says nothing of it.
    let _taken = TcpListener::bind("127.0.0.1:8501");
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<[u16; 3]> = free_ports::<9>().chunks(3).map(|three| three.try_into().unwrap()).collect();
    let members: Vec<Ensemble> = (1..=3)
        .map(|id| {
            let path = |name: &str| folder.path().join(format!("{name}{id}"));
            std::fs::create_dir(path("data")).unwrap();
            std::fs::write(path("data").join("myid"), id.to_string()).unwrap();
            let [client, ..] = ports[id - 1];
            let servers = (1..).zip(&ports).map(|(id, [_, quorum, election])| {
                format!("server.{id}=localhost:{quorum}:{election}\n")
            });
            let text = format!(
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPortAddress=localhost\nclientPort={client}\n{}",
                path("data").display(),
                servers.collect::<String>()
            );
            std::fs::write(path("cfg"), text).unwrap();
            let log = std::fs::File::create(path("log")).unwrap();
            let child = program().arg("ensemble").arg("--zoo-cfg").arg(path("cfg")).stderr(log).spawn().unwrap();
            Ensemble { child, client, status: 0 }
        })
        .collect();
    let mode = |member: &Ensemble| {
        let answer = try_ask(member.client, b"srvr").unwrap_or_default();
        answer.lines().find_map(|line| line.strip_prefix("Mode: ").map(str::to_owned))
    };
    wait_until("a leader and two who follow", || {
        let mut modes: Vec<_> = members.iter().filter_map(mode).collect();
        modes.sort();
        modes == ["follower", "follower", "leader"]
    });
    let servers: Vec<_> = members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect();
    assert_eq!(zk(members[0].client, &["create", "/a", "written"]), "/a\n");
    let found = program().args(["zk", "--server", &servers.join(","), "get", "/a"]).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "written\n");
    for id in 1..=3 {
        let log = std::fs::read_to_string(folder.path().join(format!("log{id}"))).unwrap();
        let line = log.lines().find(|line| line.contains("goes on without a status port")).unwrap();
        assert!(line.contains("127.0.0.1:8501") && line.contains("metricsProvider.className"), "{line}");
    }
    for member in members {
        assert_eq!(member.terminate(), Some(0));
    }
}

/// Connects to a port of the member, from another address of loopback.
fn call_from(host: u8, port: u16) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).ok()?;
    Some(socket.into())
}

fn program() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_rollcall")))
}

/// The environment of whoever runs the tests must not decide.
fn clean(mut command: Command) -> Command {
    command.env_remove("ROLLCALL_CONFIG").env_remove("ROLLCALL_SERVERS").env_remove("ROLLCALL_LOG");
    command
}

fn zk(port: u16, arguments: &[&str]) -> String {
    let server = format!("127.0.0.1:{port}");
    let output = program().arg("zk").arg("--server").arg(server).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ask(port: u16, word: &[u8; 4]) -> String {
    try_ask(port, word).unwrap()
}

fn try_ask(port: u16, word: &[u8; 4]) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(word)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are held until all are known, so that they differ.
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline: Instant = clock::now() + PATIENCE;
    while !is_true() {
        assert!(clock::now() < deadline, "{what} did not come within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

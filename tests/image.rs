//! The container image: small, without root, content with a file system that may not be written, and able to find others by
//! name though there is nothing in it but the program.
//!
//! The stage of the `Dockerfile` that compiles needs a registry; here the program is compiled outside and put into the same last
//! stage. The engine must answer; if none does, the test says so and shows nothing.
#![expect(clippy::unwrap_used, reason = "what a test cannot do without fails it")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fs_err as fs;
use rollcall::clock;

/// What is promised to whoever pulls it.
const BYTES_MAX: u64 = 15_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_image_is_small_and_its_members_are_found_by_name() {
    if let Err(why) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        eprintln!("THE IMAGE IS NOT TESTED: no container engine answers: {why}");
        return;
    }
    let image = Image::build(&static_binary());
    let inspect = |format: &str| docker(&["image", "inspect", "--format", format, &image.tag]).unwrap();
    let bytes: u64 = inspect("{{.Size}}").parse().unwrap();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
    assert_eq!(inspect("{{.Config.User}} {{.Config.Entrypoint}}"), "65532:65532 [/rollcall]");

    let bare = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"];
    let version = docker(&[&bare[..], &[&image.tag, "--version"]].concat()).unwrap();
    assert_eq!(version, format!("rollcall {}", env!("CARGO_PKG_VERSION")));

    let network = Network::create();
    let member = image.run_member(&network);
    let server = format!("{}:2181", member.name);
    let client = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", &network.name];
    let zk = |arguments: &[&str]| {
        docker(&[&client[..], &[&image.tag, "zk", "--server", &server], arguments].concat())
    };
    wait_until("a client finds the member by its name", || zk(&["get", "/zookeeper/quota"]));
    assert_eq!(zk(&["create", "/a", "hello"]).unwrap(), "/a");
    assert_eq!(zk(&["get", "/a"]).unwrap(), "hello");
    docker(&["stop", "--time", "20", &member.name]).unwrap();
    let status = docker(&["inspect", "--format", "{{.State.ExitCode}}", &member.name]).unwrap();
    assert_eq!(status, "0", "a member that is told to stop ends well");
}

/// `ROLLCALL_STATIC_BINARY` if it is set, as for a release; otherwise one that is built soon.
fn static_binary() -> PathBuf {
    if let Some(given) = std::env::var_os("ROLLCALL_STATIC_BINARY") {
        return PathBuf::from(given);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A target of its own name keeps the flag away from build scripts and macros.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--profile", "image-test", "--bin", "rollcall"]);
    cargo.args(["--target", &target]).current_dir(folder);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("CARGO_TARGET_DIR", folder.join("target"));
    // What cargo tells tests about this package some build scripts take for a change.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("target").join(target).join("image-test/rollcall")
}

/// An image that is removed when the test is over.
struct Image {
    tag: String,
}

impl Image {
    fn build(binary: &Path) -> Self {
        let context = tempfile::tempdir().unwrap();
        fs::copy(binary, context.path().join("rollcall")).unwrap();
        let image = Self { tag: format!("rollcall-test:{}", std::process::id()) };
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile");
        let (file, context) = (file.to_str().unwrap(), context.path().to_str().unwrap());
        docker(&["build", "--quiet", "--file", file, "--target", "prebuilt", "--tag", &image.tag, context])
            .unwrap();
        image
    }

    /// Starts a member alone; its settings come on its standard input, since the engine need not see our files.
    fn run_member(&self, network: &Network) -> Container {
        let mut container = Container { name: format!("rollcall-test-{}", std::process::id()), feeder: None };
        let arguments = [
            "create",
            "--interactive",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--tmpfs",
            "/data:uid=65532,gid=65532",
            "--name",
            &container.name,
            "--network",
            &network.name,
            &self.tag,
            "ensemble",
            "-c",
            "/dev/stdin",
        ];
        docker(&arguments).unwrap();
        let settings = "data_dir: /data\nclient: {address: 0.0.0.0:2181}\n";
        let mut feeder = Command::new("docker")
            .args(["start", "--interactive", &container.name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        feeder.stdin.take().unwrap().write_all(settings.as_bytes()).unwrap();
        container.feeder = Some(feeder);
        container
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // What is left tells its name; there is nothing else to do about it.
        let _ = docker(&["image", "rm", "--force", &self.tag]);
    }
}

/// A container that is removed when the test is over.
struct Container {
    name: String,
    /// The client that hands its settings to it; it ends with the container.
    feeder: Option<Child>,
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("docker").args(["logs", &self.name]).status();
        }
        let _ = docker(&["rm", "--force", &self.name]);
        if let Some(feeder) = &mut self.feeder {
            let _ = feeder.wait();
        }
    }
}

/// A network that leads nowhere, and is removed when the test is over.
struct Network {
    name: String,
}

impl Network {
    fn create() -> Self {
        let network = Self { name: format!("rollcall-test-{}", std::process::id()) };
        docker(&["network", "create", "--internal", &network.name]).unwrap();
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = docker(&["network", "rm", &self.name]);
    }
}

/// What docker prints, or why it does not.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.map_err(|error| format!("docker: {error}"))?;
    let text = if status.success() { &stdout } else { &stderr };
    let text = String::from_utf8_lossy(text).trim().to_owned();
    if status.success() { Ok(text) } else { Err(text) }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<String, String>) {
    let deadline = clock::now() + PATIENCE;
    while let Err(why) = is_so() {
        assert!(clock::now() < deadline, "{what}: not within {PATIENCE:?}: {why}");
    }
}

//! `rollcall explain`: why lookups answer what they answer, and why they answered what they did before something changed.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rollcall::clock;
use rollcall::config::timestamp;
use serde_json::{Value, json};

use super::{Deadline, Dev, run};

const PRIMARY: &str = "{name: web, id: web-1, port: 9, checks: []}";
const STANDBY: &str = "{name: web, id: web-2, port: 9, priority: 10, checks: []}";

#[test]
fn every_instance_is_told_with_its_reason_its_owner_and_its_zxid() {
    let folder = tempfile::tempdir().unwrap();
    let dev = start(folder.path());
    let told = json_of(&dev, &[]);
    assert_eq!(told["tiers"], tiers([(0, 1, true), (10, 1, false)]));
    assert_eq!(
        reasons(&told),
        [(true, "up, in the tier that is offered"), (false, "up, but tier 0 is offered")]
    );
    assert_eq!(told["unreadable"], json!([]));
    let lookup = parsed(&dev, &["lookup", "web", "-o", "json"]);
    let table = text_of(&dev, &[]);
    for (explained, looked_up) in instances(&told).iter().zip(instances(&lookup)) {
        assert_eq!((&explained["id"], &explained["offered"]), (&looked_up["id"], &looked_up["selected"]));
        let id = explained["id"].as_str().unwrap();
        let (owner, mzxid) = written(&dev, id);
        assert_eq!(
            (explained["owner"].as_str(), explained["mzxid"].as_str()),
            (Some(&*owner), Some(&*mzxid))
        );
        let line = line_of(&table, id);
        assert!(line.contains(&owner) && line.ends_with(&mzxid), "{owner} and {mzxid} are not in\n{line}");
    }
    let line = line_of(&table, "web-1");
    assert!(line.starts_with("*  web-1  100.0 %  up, in the tier that is offered  "), "{table}");
    assert!(line_of(&table, "web-2").trim_start().starts_with("web-2           up, but tier 0 is offered "));
    assert!(
        table.contains("the first with enough") && table.contains("a tier before it is offered"),
        "{table}"
    );
    assert!(table.lines().last().unwrap().starts_with("web.default: as of "), "{table}");

    let output = dev.ask(&["explain", "nobody"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("no service nobody.default is known"), "{errors}");
}

#[test]
fn what_was_before_a_drain_is_told_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let dev = start(folder.path());
    let before = json_of(&dev, &[]);
    let then = now();
    assert!(dev.ask(&["drain", "web", "--wait=20s"]).status.success());
    let drained = text_of(&dev, &[]);
    assert!(line_of(&drained, "web-1").trim_start().starts_with("web-1         it is leaving "), "{drained}");
    assert_eq!(reasons(&json_of(&dev, &[])), [(false, "it is leaving"), (false, "it is leaving")]);

    let past = json_of(&dev, &["--at", &then]);
    assert_eq!(timestamp::text(past["at_ms"].as_i64().unwrap()), then);
    for key in ["tiers", "instances", "zxid"] {
        assert_eq!(past[key], before[key], "{key}");
    }
    let table = text_of(&dev, &["--at", &then]);
    assert!(line_of(&table, "web-1").starts_with("*  web-1  100.0 %  up, in the tier that is offered "));
    assert_eq!(table.lines().last(), Some(&*format!("web.default: as of {then}")));
}

#[test]
fn an_instance_that_was_removed_is_told_of_when_it_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let dev = start(folder.path());
    let then = now();
    write_settings(folder.path(), &[STANDBY]);
    let end = Deadline::new();
    let left = loop {
        let told = json_of(&dev, &[]);
        if instances(&told).len() == 1 {
            break told;
        }
        end.check(&format!("it never left: {told}"));
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(left["instances"][0]["id"], "web-2");
    assert_eq!(reasons(&left), [(true, "up, in the tier that is offered")]);
    let past = json_of(&dev, &["--at", &then]);
    assert_eq!(
        reasons(&past),
        [(true, "up, in the tier that is offered"), (false, "up, but tier 0 is offered")]
    );
    assert_eq!((&past["instances"][0]["id"], &past["instances"][0]["share"]), (&json!("web-1"), &json!(1.0)));
}

#[test]
fn a_time_of_which_nothing_is_known_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let started = clock::unix_ms();
    let dev = start(folder.path());
    let refused = |at: &str| {
        let output = dev.ask(&["explain", "web", "--at", at]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{at}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.lines().count() == 1 && told.contains(&dev.http), "{told}");
        told
    };
    let before = timestamp::text(started - 1);
    let told = refused(&before);
    assert!(told.contains(&format!("what was at {before} is not known")), "{told}");
    let (_, back) = told.trim_end().split_once("what is known reaches back to ").expect("from when on");
    assert!(timestamp::parse(back, 0).unwrap() >= started, "{told}");
    assert!(refused("1d").contains("what is known reaches back to "));
    assert!(refused("2999-01-01T00:00:00Z").contains("2999-01-01T00:00:00.000Z is yet to come"));
    assert!(refused("yesterday").contains("\"yesterday\" is not a time: write one such as "));
}

/// A primary and its standby, both of which are up.
fn start(folder: &Path) -> Dev {
    write_settings(folder, &[PRIMARY, STANDBY]);
    let dev = Dev::start(&["-c", folder.join("dev.yaml").to_str().expect("a path of text")]);
    dev.until(&["lookup", "web"], "web.default: 1 of 2 offered");
    dev.until(&["lookup", "web", "-o", "json"], "\"stale\": false");
    dev
}

/// As editors do it: another file takes the place of the one before.
fn write_settings(folder: &Path, services: &[&str]) {
    let new = folder.join("dev.yaml.new");
    fs_err::write(&new, format!("services: [{}]\n", services.join(", "))).expect("it is written");
    fs_err::rename(new, folder.join("dev.yaml")).expect("it is renamed");
}

fn now() -> String {
    timestamp::text(clock::unix_ms())
}

fn text_of(dev: &Dev, arguments: &[&str]) -> String {
    let output = dev.ask(&[&["explain", "web"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn json_of(dev: &Dev, arguments: &[&str]) -> Value {
    parsed(dev, &[&["explain", "web", "-o", "json"], arguments].concat())
}

fn parsed(dev: &Dev, arguments: &[&str]) -> Value {
    let output = dev.ask(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn instances(told: &Value) -> &[Value] {
    told["instances"].as_array().expect("a list")
}

/// Whether each is offered, and why.
fn reasons(told: &Value) -> Vec<(bool, &str)> {
    instances(told)
        .iter()
        .map(|it| (it["offered"] == true, it["reason"].as_str().expect("a reason")))
        .collect()
}

/// The priority of each, how many are up, which are all of it, and whether it is chosen.
fn tiers<const N: usize>(tiers: [(u32, usize, bool); N]) -> Value {
    let tier =
        |(priority, up, chosen)| json!({"priority": priority, "instances": up, "up": up, "chosen": chosen});
    tiers.map(tier).into_iter().collect()
}

fn line_of<'a>(table: &'a str, id: &str) -> &'a str {
    let line = table.lines().find(|line| line.split_whitespace().any(|word| word == id));
    line.unwrap_or_else(|| panic!("{id} is not in\n{table}")).trim_end()
}

/// Of what stands in the tree, its owner and when it was written.
fn written(dev: &Dev, id: &str) -> (String, String) {
    let path = format!("/rollcall/services/default/web/{id}");
    let zk = |command: &str| run(&["zk", "--server", &dev.client, command, &path]).stdout;
    let record: Value = serde_json::from_slice(&zk("get")).expect("JSON");
    let stat = String::from_utf8(zk("stat")).expect("text");
    let mzxid = stat.lines().find_map(|line| line.strip_prefix("mZxid = ")).expect("a stat has one");
    (record["owner"].as_str().expect("an owner").to_owned(), mzxid.to_owned())
}

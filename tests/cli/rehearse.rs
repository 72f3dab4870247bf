//! `rollcall rehearse`: who would answer what, if something were lost.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Dev;

/// Each has an address of its own: a record that has the address of one that vanished takes its place.
const SETTINGS: &str = "\
services:
  - {name: api, id: a2, zone: a, address: 127.0.9.1, port: 9, checks: []}
  - {name: store, id: c1, zone: c, address: 127.0.9.2, port: 9, checks: []}
  - {name: web, id: a1, zone: a, address: 127.0.9.3, port: 9, checks: []}
  - {name: web, id: b1, zone: b, address: 127.0.9.4, port: 9, checks: []}
  - {name: web, id: b2, zone: b, address: 127.0.9.5, port: 9, checks: []}
";
const STAGES: [(&str, &str); 4] = [
    ("now", "now"),
    ("expired", "when their sessions have expired"),
    ("probed", "when they were probed"),
    ("settled", "in the end"),
];
/// Below all tiers.
const LAST_RESORT: u32 = 65_536;

#[test]
fn without_a_zone_an_instance_and_the_ensemble_everything_is_answered_as_before() {
    let (_folder, dev) = start();
    let losses = ["zone=a", "ensemble", "web/b1"];
    let table = table_of(&dev, &losses);
    let mut expected = Vec::new();
    for (service, offered, who) in
        [("api", "1, 1 lost", "a2 100 %"), ("web", "3, 2 lost", "a1 33 %, b1 33 %, b2 33 %")]
    {
        expected.extend(STAGES.map(|(_, when)| row(service, when, "0", offered, who)));
    }
    assert_eq!(rows(&table), expected, "{table}");
    let last: Vec<_> = table.lines().skip(1 + expected.len()).collect();
    assert_eq!(last[0], "without the ensemble nobody hears of a loss: what is answered stays as it is");
    // The store, and what `rollcall dev` registers of itself.
    let untouched = "without zone=a, ensemble, web.default/b1: 2 services are not touched; as of ";
    assert!(last.len() == 2 && last[1].starts_with(untouched), "{table}");

    let told = told(&dev, &losses);
    assert_eq!(told["losses"], json!(["zone=a", "ensemble", "web.default/b1"]));
    assert_eq!(
        lost(&told),
        [("api", json!(["a2"])), ("rollcall", json!([])), ("store", json!([])), ("web", json!(["a1", "b1"]))]
    );
    for (stage, _) in STAGES {
        assert_eq!(answer(&told, "api", stage), "0: a2 lost");
        assert_eq!(answer(&told, "store", stage), "0: c1");
        assert_eq!(answer(&told, "web", stage), "0: a1 lost, b1 lost, b2");
    }
}

#[test]
fn without_a_zone_and_an_instance_who_is_left_answers_once_they_were_probed() {
    let (_folder, dev) = start();
    let losses = ["zone=a", "web/b1"];
    let table = table_of(&dev, &losses);
    let (api, web) = ("a2 100 %", "a1 33 %, b1 33 %, b2 33 %");
    let [(_, now), (_, expired), (_, probed), (_, settled)] = STAGES;
    let expected = [
        row("api", now, "0", "1, 1 lost", api),
        row("api", expired, "0", "1, 1 lost", api),
        row("api", probed, "last resort", "1, 1 lost", api),
        row("api", settled, "-", "0", ""),
        row("web", now, "0", "3, 2 lost", web),
        row("web", expired, "0", "3, 2 lost", web),
        row("web", probed, "0", "1", "b2 100 %"),
        row("web", settled, "0", "1", "b2 100 %"),
    ];
    assert_eq!(rows(&table), expected, "{table}");
    assert!(!table.contains("without the ensemble"), "{table}");

    let told = told(&dev, &losses);
    let answers = |service| STAGES.map(|(stage, _)| answer(&told, service, stage));
    let silent = format!("{LAST_RESORT}: a2 lost");
    assert_eq!(answers("api"), ["0: a2 lost", "0: a2 lost", &silent, "null: "]);
    let all = "0: a1 lost, b1 lost, b2";
    assert_eq!(answers("web"), [all, all, "0: b2", "0: b2"]);
}

#[test]
fn what_is_not_there_cannot_be_lost_and_what_is_no_loss_is_refused() {
    let (_folder, dev) = start();
    for (loss, error, hint) in [
        ("zone=b1", "no instance that is known is in zone \"b1\"", "did you mean zone=b?"),
        ("web/c1", "web.default has no instance c1", "did you mean web.default/"),
        ("wbe/b1", "no service wbe.default is known", "did you mean web.default?"),
    ] {
        let output = dev.ask(&["rehearse", "--lose", "ensemble", "--lose", loss]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
        assert!(told.contains(error) && told.contains(hint) && told.contains(&dev.http), "{told}");
    }
    let output = dev.ask(&["rehearse", "--lose", "rack=1"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && told.contains("\"rack=1\" cannot be lost"), "{told}");
    assert_eq!(dev.ask(&["rehearse"]).status.code(), Some(2), "nothing is lost");
}

fn start() -> (TempDir, Dev) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("dev.yaml");
    fs_err::write(&file, SETTINGS).expect("it is written");
    let dev = Dev::start(&["-c", file.to_str().expect("a path of text")]);
    for service in ["api", "rollcall", "store"] {
        dev.until(&["lookup", service], ": 1 of 1 offered");
    }
    dev.until(&["lookup", "web"], ": 3 of 3 offered");
    (folder, dev)
}

fn table_of(dev: &Dev, losses: &[&str]) -> String {
    rehearse(dev, losses, &[])
}

fn told(dev: &Dev, losses: &[&str]) -> Value {
    serde_json::from_str(&rehearse(dev, losses, &["-o", "json"])).expect("JSON")
}

fn rehearse(dev: &Dev, losses: &[&str], arguments: &[&str]) -> String {
    let losses: Vec<_> = losses.iter().flat_map(|loss| ["--lose", loss]).collect();
    let output = dev.ask(&[&["rehearse"], &*losses, arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The columns of one line.
type Row = [String; 5];

fn row(service: &str, when: &str, tier: &str, offered: &str, who: &str) -> Row {
    // Its name stands in the first line of each.
    let name = if when == "now" { format!("{service}.default") } else { String::new() };
    [&name, when, tier, offered, who].map(str::to_owned)
}

/// The lines of the table below its head, cut where the head's columns begin.
fn rows(table: &str) -> Vec<Row> {
    let head = table.lines().next().expect("a head");
    let starts = ["SERVICE", "WHEN", "TIER", "OFFERED", "WHO"].map(|name| head.find(name).expect("a column"));
    let row = |line: &str| {
        [0, 1, 2, 3, 4].map(|column| {
            let end = starts.get(column + 1).map_or(line.len(), |end| line.len().min(*end));
            line.get(starts[column]..end).unwrap_or_default().trim().to_owned()
        })
    };
    table.lines().skip(1).take_while(|line| !line.starts_with("without ")).map(row).collect()
}

fn lost(told: &Value) -> Vec<(&str, Value)> {
    services(told).iter().map(|it| (it["name"].as_str().expect("a name"), it["lost"].clone())).collect()
}

/// The tier, and who of it is offered.
fn answer(told: &Value, service: &str, stage: &str) -> String {
    let service = services(told).iter().find(|it| it["name"] == service).expect("it is told of");
    let answer = &service[stage];
    let name = |offer: &Value| {
        let lost = if offer["lost"] == true { " lost" } else { "" };
        format!("{}{lost}", offer["id"].as_str().expect("an id"))
    };
    let offered: Vec<_> = answer["offered"].as_array().expect("a list").iter().map(name).collect();
    format!("{}: {}", answer["tier"], offered.join(", "))
}

fn services(told: &Value) -> &[Value] {
    told["services"].as_array().expect("a list")
}

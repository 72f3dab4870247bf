//! What was measured, as a table or as JSON: medians and ratios as in `bench ensemble`.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::output::{Format, table};
use super::super::figure::{Figure, MIB, US_PER_MS, latency_us, ms, place_name, ratio, show_ratio, us_each};
use super::super::latencies::Latency;
use super::super::resources::Resources;
use super::super::tally::as_f64;
use super::Server;
use super::arguments::BenchDnsArguments;
use super::counts::DnsFigures;

/// All runs and what they were made with.
#[derive(Debug)]
pub(super) struct Report {
    settings: Value,
    servers: Vec<Value>,
    runs: Vec<MeasuredRun>,
    /// Whether everything that was asked for was measured.
    pub(super) is_complete: bool,
}

/// One server, measured once.
#[derive(Clone, Debug)]
pub(super) struct MeasuredRun {
    /// Which server: 0 the first, 1 the one it is compared with.
    pub(super) server: usize,
    /// From 1.
    pub(super) round: u32,
    pub(super) figures: DnsFigures,
    pub(super) resources: Resources,
    /// Changes of the view that were committed meanwhile, if there were to be any.
    pub(super) changes: Option<u64>,
}

const FIGURES: [Figure<MeasuredRun>; 9] = [
    Figure::new("queries_per_s", "QUERIES/S", (1.0, 0), |run| Some(run.figures.queries_per_second())),
    Figure::new("p50_us", "P50", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p50)),
    Figure::new("p99_us", "P99", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p99)),
    Figure::new("p99_9_us", "P99.9", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p99_9)),
    Figure::new("max_us", "MAX", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.max)),
    Figure::new("server_cpu_us_per_query", "CPU/Q", (1.0, 2), MeasuredRun::server_cpu_us_per_query),
    Figure::new("client_cpu_us_per_query", "CLIENT CPU/Q", (1.0, 2), MeasuredRun::client_cpu_us_per_query),
    Figure::new("server_resident_bytes", "MEMORY", (MIB, 1), MeasuredRun::server_resident_bytes),
    Figure::new("changes_per_s", "CHANGES/S", (1.0, 0), MeasuredRun::changes_per_second),
];
const COUNTS: [&str; 4] = ["LOST", "TRUNCATED", "MISMATCHED", "CODES"];
const LEGEND: &str = "QUERIES/S that were answered; P50 to MAX in ms; CPU/Q in us of CPU time for each query answered; MEMORY of all \
                      processes of the server in MiB; CHANGES/S of the view that were committed; TRUNCATED answers (TC); MISMATCHED packets that answer nothing that was asked";

impl Report {
    pub(super) fn new(arguments: &BenchDnsArguments, questions: usize, servers: &[Server]) -> Self {
        let settings = json!({
            "questions": questions,
            "outstanding": arguments.outstanding(),
            "queries_per_s": arguments.rate,
            "sockets": arguments.sockets(),
            "duration_ms": ms(arguments.duration),
            "warm_up_ms": ms(arguments.warm_up),
            "rounds": arguments.rounds,
            "timeout_ms": ms(arguments.timeout),
            "edns_octets": arguments.edns,
        });
        let servers = servers
            .iter()
            .enumerate()
            .map(|(place, server)| {
                let (address, pids) = (server.address.to_string(), &server.processes.ids);
                let changes = server.changes.as_ref().map(|plan| plan.rate);
                json!({"name": place_name(place), "address": address, "pids": pids, "changes_per_s": changes})
            })
            .collect();
        Self { settings, servers, runs: Vec::new(), is_complete: false }
    }

    pub(super) fn add(&mut self, run: MeasuredRun) {
        self.runs.push(run);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn text(&self, format: Format) -> String {
        match format {
            Format::Table => self.tables(),
            Format::Json => format!("{:#}", self.json()),
        }
    }

    fn json(&self) -> Value {
        let medians = (0..self.servers.len()).map(|place| {
            let mut median = json!({"server": place_name(place)});
            for figure in &FIGURES {
                median[figure.name] = json!(self.median(place, figure));
            }
            median
        });
        let ratios = self.is_comparison().then(|| {
            let ratios = FIGURES.iter().map(|figure| (figure.name.to_owned(), json!(self.ratio(figure))));
            ratios.collect::<Value>()
        });
        json!({
            "complete": self.is_complete,
            "settings": self.settings,
            "servers": self.servers,
            "runs": self.runs.iter().map(MeasuredRun::json).collect::<Vec<_>>(),
            "medians": medians.collect::<Vec<_>>(),
            "ratios": ratios,
        })
    }

    fn tables(&self) -> String {
        let mut headings = Vec::new();
        headings.extend(self.is_comparison().then_some("SERVER"));
        headings.push("ROUND");
        headings.extend(FIGURES.iter().map(|figure| figure.heading));
        headings.extend(COUNTS);
        let mut rows = Vec::new();
        for place in 0..self.servers.len() {
            let start = |round: String| {
                let server = self.is_comparison().then(|| place_name(place).to_owned());
                [server, Some(round)].into_iter().flatten()
            };
            let runs: Vec<_> = self.runs_of(place).collect();
            for run in &runs {
                let figures = FIGURES.iter().map(|figure| figure.show((figure.of)(run)));
                rows.push(start(run.round.to_string()).chain(figures).chain(run.counts()).collect());
            }
            if runs.len() > 1 {
                let figures = FIGURES.iter().map(|figure| figure.show(self.median(place, figure)));
                let counts = COUNTS.map(|_| String::new());
                rows.push(start("median".to_owned()).chain(figures).chain(counts).collect());
            }
        }
        let mut text = table(&headings, rows);
        text.push_str(&format!("\n{LEGEND}"));
        for run in &self.runs {
            for (what, count) in run.remarks() {
                let server = place_name(run.server);
                text.push_str(&format!("\n{server}, round {}: {count} {what}", run.round));
            }
        }
        if self.is_comparison() {
            let headings: Vec<_> = FIGURES.iter().map(|figure| figure.heading).collect();
            let ratios = FIGURES.iter().map(|figure| show_ratio(self.ratio(figure))).collect();
            if self.servers[0]["changes_per_s"].is_u64() {
                text.push_str("\nfirst: while its view changes; second: the same server, calm");
            }
            text.push_str("\n\nmedians of the first, divided by those of the second\n");
            text.push_str(&table(&headings, vec![ratios]));
        }
        text
    }

    const fn is_comparison(&self) -> bool {
        self.servers.len() > 1
    }

    fn runs_of(&self, place: usize) -> impl Iterator<Item = &MeasuredRun> {
        self.runs.iter().filter(move |run| run.server == place)
    }

    fn median(&self, place: usize, figure: &Figure<MeasuredRun>) -> Option<f64> {
        figure.median(self.runs_of(place))
    }

    fn ratio(&self, figure: &Figure<MeasuredRun>) -> Option<f64> {
        ratio(self.median(0, figure), self.median(1, figure))
    }
}

impl MeasuredRun {
    fn json(&self) -> Value {
        let figures = &self.figures;
        let mut json = json!({
            "server": place_name(self.server),
            "round": self.round,
            "seconds": figures.elapsed.as_secs_f64(),
            "asked": figures.asked,
            "answered": figures.answered,
            "lost": figures.lost,
            "unsent": figures.unsent,
            "late": figures.late,
            "truncated": figures.truncated,
            "mismatched": figures.mismatched,
            "codes": figures.codes,
            "socket_errors": figures.socket_errors,
            "mean_us": self.latency_us(|latency| latency.mean),
        });
        for figure in &FIGURES {
            json[figure.name] = json!((figure.of)(self));
        }
        json
    }

    /// The columns of [`COUNTS`].
    fn counts(&self) -> [String; COUNTS.len()] {
        let figures = &self.figures;
        let codes: Vec<_> = figures.codes.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let codes = if codes.is_empty() { "-".to_owned() } else { codes.join(", ") };
        [figures.lost.to_string(), figures.truncated.to_string(), figures.mismatched.to_string(), codes]
    }

    /// What is to be said where it has happened.
    fn remarks(&self) -> Vec<(String, u64)> {
        let figures = &self.figures;
        let mut remarks = vec![
            ("queries were due and could not be sent before the end".to_owned(), figures.unsent),
            ("answers came after the timeout".to_owned(), figures.late),
        ];
        let errors = figures.socket_errors.iter();
        remarks.extend(errors.map(|(error, count)| (format!("times the system said: {error}"), *count)));
        remarks.retain(|(_, count)| *count > 0);
        remarks
    }

    fn latency_us(&self, choose: impl FnOnce(&Latency) -> Duration) -> Option<f64> {
        latency_us(self.figures.latency.as_ref(), choose)
    }

    fn server_cpu_us_per_query(&self) -> Option<f64> {
        self.per_query(self.resources.servers.as_ref()?.cpu)
    }

    fn client_cpu_us_per_query(&self) -> Option<f64> {
        self.per_query(self.resources.client_cpu?)
    }

    fn server_resident_bytes(&self) -> Option<f64> {
        Some(as_f64(self.resources.servers.as_ref()?.resident_bytes.iter().sum()))
    }

    fn changes_per_second(&self) -> Option<f64> {
        Some(as_f64(self.changes?) / self.figures.elapsed.as_secs_f64())
    }

    fn per_query(&self, time: Duration) -> Option<f64> {
        us_each(time, self.figures.answered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::processes::ProcessesUsage;
    use super::*;

    #[test]
    fn medians_and_ratios_are_of_the_rounds() {
        let mut report = report(&["first", "second"]);
        for (round, (first, second)) in [(300, 100), (900, 110), (330, 90)].into_iter().enumerate() {
            report.add(run(0, round, first));
            report.add(run(1, round, second));
        }
        let json = report.json();
        assert_eq!(json["medians"][0]["queries_per_s"], 330.0);
        assert_eq!(json["medians"][1]["queries_per_s"], 100.0);
        let ratio = json["ratios"]["queries_per_s"].as_f64().unwrap();
        assert!((ratio - 3.3).abs() < 1e-9, "{ratio}");
        let text = report.tables();
        assert!(text.contains("\nsecond  median  100        2.000"), "{text}");
        assert!(
            text.ends_with("3.30       1.00  1.00  1.00   1.00  0.30   0.30          1.00    -"),
            "{text}"
        );
    }

    #[test]
    fn one_round_of_one_server_is_one_row() {
        let mut report = report(&["first"]);
        report.add(run(0, 0, 100));
        let text = report.tables();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "ROUND  QUERIES/S  P50    P99    P99.9  MAX    CPU/Q     CLIENT CPU/Q  MEMORY  CHANGES/S  LOST  TRUNCATED  MISMATCHED  CODES",
                "1      100        2.000  3.000  4.000  5.000  10000.00  10000.00      3.0     -          7     1          2           NOERROR 99, NXDOMAIN 1",
            ]
        );
        assert_eq!(
            lines[3..],
            [
                "first, round 1: 3 answers came after the timeout",
                "first, round 1: 4 times the system said: connection refused"
            ]
        );
    }

    #[test]
    fn what_was_not_measured_is_null_and_a_dash() {
        let mut report = report(&["first"]);
        let mut run = run(0, 0, 0);
        run.resources = Resources { servers: None, client_cpu: None };
        run.figures.latency = None;
        run.figures.codes.clear();
        report.add(run);
        let json = report.json();
        for field in ["p50_us", "server_cpu_us_per_query", "client_cpu_us_per_query", "server_resident_bytes"]
        {
            assert_eq!(json["runs"][0][field], Value::Null, "{field}");
        }
        assert_eq!(json["ratios"], Value::Null);
        let text = report.tables();
        assert!(text.contains("\n1      0          -    -"), "{text}");
    }

    fn report(servers: &[&str]) -> Report {
        let servers = servers.iter().map(|name| json!({"name": name})).collect();
        Report { settings: json!({}), servers, runs: Vec::new(), is_complete: true }
    }

    fn run(server: usize, round: usize, answered: u64) -> MeasuredRun {
        let ms = Duration::from_millis;
        let figures = DnsFigures {
            elapsed: Duration::from_secs(1),
            asked: answered + 7,
            answered,
            lost: 7,
            unsent: 0,
            late: 3,
            mismatched: 2,
            truncated: 1,
            codes: BTreeMap::from([("NOERROR", answered.saturating_sub(1)), ("NXDOMAIN", 1)]),
            latency: Some(Latency { mean: ms(2), p50: ms(2), p99: ms(3), p99_9: ms(4), max: ms(5) }),
            socket_errors: BTreeMap::from([("connection refused".to_owned(), 4)]),
        };
        let usage = ProcessesUsage { cpu: ms(1000), resident_bytes: vec![1 << 20, 2 << 20] };
        let resources = Resources { servers: Some(usage), client_cpu: Some(ms(1000)) };
        MeasuredRun { server, round: u32::try_from(round).unwrap() + 1, figures, resources, changes: None }
    }
}

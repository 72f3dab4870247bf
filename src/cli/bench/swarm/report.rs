//! What a swarm came to, as tables or as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::output::{Format, table};
use super::super::figure::{MIB, ms, us};
use super::super::latencies::{Latencies, Latency};
use super::super::tally::as_f64;
use super::arguments::BenchSwarmArguments;
use super::churn::Visibility;
use super::phase::Phase;

/// The phases so far, and what they were made with.
#[derive(Debug)]
pub(super) struct SwarmReport {
    settings: Value,
    phases: Vec<Phase>,
    pub(super) visibility: Option<Visibility>,
    /// Whether everything that was asked for was measured.
    pub(super) is_complete: bool,
}

const PHASES_LEGEND: &str = "CPU of all servers together and OWN CPU in processors, MEMORY of the largest server and OWN MEMORY in MiB; LOST sessions; \
                             the last five for each view and change: CPU in us, events, znodes that came with them, znodes read because of them";
const VISIBILITY_LEGEND: &str =
    "VISIBLE from the reply to a change's writer until the view is published that shows it, in ms";

impl SwarmReport {
    pub(super) fn new(arguments: &BenchSwarmArguments) -> Self {
        let settings = json!({
            "servers": arguments.servers,
            "pids": arguments.pids,
            "sidecars": arguments.sidecars,
            "services": arguments.services,
            "sessions": arguments.sessions,
            "hold_ms": ms(arguments.hold),
            "churn_per_s": arguments.churn,
            "for_ms": ms(arguments.churn_time),
            "restart": arguments.restart,
            "restart_parallel": arguments.restart_parallel,
            "session_timeout_ms": ms(arguments.session_timeout),
        });
        Self { settings, phases: Vec::new(), visibility: None, is_complete: false }
    }

    pub(super) fn add(&mut self, phase: Phase) {
        self.phases.push(phase);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    pub(super) fn text(&self, format: Format) -> String {
        match format {
            Format::Table => self.tables(),
            Format::Json => format!("{:#}", self.json()),
        }
    }

    fn json(&self) -> Value {
        json!({
            "complete": self.is_complete,
            "settings": self.settings,
            "phases": self.phases.iter().map(Phase::json).collect::<Vec<_>>(),
            "visibility": self.visibility.as_ref().map(Visibility::json),
        })
    }

    fn tables(&self) -> String {
        let headings = [
            "PHASE",
            "SECONDS",
            "COUNT",
            "PER S",
            "CPU",
            "OWN CPU",
            "MEMORY",
            "OWN MEMORY",
            "LOST",
            "ERRORS",
            "CPU/V&C",
            "OWN CPU/V&C",
            "EVENTS/V&C",
            "CARRIED/V&C",
            "READS/V&C",
        ];
        let mut text = table(&headings, self.phases.iter().map(Phase::row).collect());
        text.push_str(&format!("\n{PHASES_LEGEND}"));
        let Some(visibility) = &self.visibility else { return text };
        let headings = ["VISIBLE", "COUNT", "MEAN", "P50", "P99", "P99.9", "MAX"];
        text.push_str(&format!("\n\n{}\n{VISIBILITY_LEGEND}", table(&headings, visibility.rows())));
        if visibility.unseen > 0 {
            text.push_str(&format!("\n{} times a view did not show a change in time", visibility.unseen));
        }
        if let Some(error) = &visibility.first_error {
            text.push_str(&format!("\n{} changes failed, the first because {error}", visibility.errors));
        }
        text
    }
}

impl Phase {
    fn json(&self) -> Value {
        let servers = self.resources.servers.as_ref();
        json!({
            "phase": self.name,
            "seconds": self.elapsed.as_secs_f64(),
            "count": self.count,
            "per_s": self.per_second(),
            "views": self.views,
            "changes": self.changes,
            "errors": self.errors,
            "counts": self.counts.json(),
            "server_cpu_us": self.server_cpu().map(us),
            "client_cpu_us": self.resources.client_cpu.map(us),
            "server_resident_bytes": servers.map(|servers| &servers.resident_bytes),
            "client_resident_bytes": self.client_resident_bytes,
            "server_cpu_us_per_view_and_change": self.server_cpu_us_per_view_and_change(),
            "client_cpu_us_per_view_and_change": self.client_cpu_us_per_view_and_change(),
            "events_per_view_and_change": self.per_view_and_change(as_f64(self.counts.events)),
            "carried_per_view_and_change": self.per_view_and_change(as_f64(self.counts.carried)),
            "reads_per_view_and_change": self.per_view_and_change(as_f64(self.counts.reads)),
            "requests_per_view_and_change": self.per_view_and_change(as_f64(self.counts.requests)),
        })
    }

    fn row(&self) -> Vec<String> {
        let number = |digits: usize| {
            move |value: Option<f64>| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            }
        };
        let (tenths, hundredths) = (number(1), number(2));
        let processors = |cpu: Option<Duration>| hundredths(cpu.and_then(|cpu| self.processors(cpu)));
        let mib = |bytes: Option<u64>| tenths(bytes.map(|bytes| as_f64(bytes) / MIB));
        let servers = self.resources.servers.as_ref();
        vec![
            self.name.to_owned(),
            tenths(Some(self.elapsed.as_secs_f64())),
            self.count.to_string(),
            tenths(self.per_second()),
            processors(self.server_cpu()),
            processors(self.resources.client_cpu),
            mib(servers.and_then(|servers| servers.resident_bytes.iter().max().copied())),
            mib(self.client_resident_bytes),
            self.counts.sessions_lost.to_string(),
            self.errors.to_string(),
            tenths(self.server_cpu_us_per_view_and_change()),
            tenths(self.client_cpu_us_per_view_and_change()),
            hundredths(self.per_view_and_change(as_f64(self.counts.events))),
            hundredths(self.per_view_and_change(as_f64(self.counts.carried))),
            hundredths(self.per_view_and_change(as_f64(self.counts.reads))),
        ]
    }

    fn server_cpu_us_per_view_and_change(&self) -> Option<f64> {
        self.per_view_and_change(us(self.server_cpu()?))
    }

    fn client_cpu_us_per_view_and_change(&self) -> Option<f64> {
        self.per_view_and_change(us(self.resources.client_cpu?))
    }
}

impl Visibility {
    fn json(&self) -> Value {
        json!({
            "changes": self.changes,
            "unseen": self.unseen,
            "errors": self.errors,
            "first_error": self.first_error,
            "in_each_view": latencies_json(&self.in_each_view),
            "in_all_views": latencies_json(&self.in_all_views),
        })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        [("in each view", &self.in_each_view), ("in all views", &self.in_all_views)]
            .into_iter()
            .map(|(what, latencies)| {
                let summary = latencies.summary();
                let figures = SUMMARY.iter().map(|(_, of)| {
                    summary
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), |of_all| format!("{:.3}", us(of(of_all)) / 1e3))
                });
                [what.to_owned(), latencies.count().to_string()].into_iter().chain(figures).collect()
            })
            .collect()
    }
}

/// One of the durations that latencies come to.
type Figure = fn(&Latency) -> Duration;

/// What is told of latencies, in the order of the table.
const SUMMARY: [(&str, Figure); 5] = [
    ("mean_us", |latency| latency.mean),
    ("p50_us", |latency| latency.p50),
    ("p99_us", |latency| latency.p99),
    ("p99_9_us", |latency| latency.p99_9),
    ("max_us", |latency| latency.max),
];

fn latencies_json(latencies: &Latencies) -> Value {
    let summary = latencies.summary();
    let mut json = json!({"count": latencies.count()});
    for (name, of) in SUMMARY {
        json[name] = json!(summary.as_ref().map(|summary| us(of(summary))));
    }
    json
}

#[cfg(test)]
mod tests {
    use super::super::super::processes::ProcessesUsage;
    use super::super::super::resources::Resources;
    use super::super::counts::Counts;
    use super::*;

    #[test]
    fn figures_are_told_for_each_view_and_change() {
        let report = report(vec![churn()], Some(visibility()));
        let json = report.json();
        let phase = &json["phases"][0];
        assert_eq!(phase["server_cpu_us_per_view_and_change"], 50.0);
        assert_eq!(phase["client_cpu_us_per_view_and_change"], 100.0);
        assert_eq!(phase["reads_per_view_and_change"], 2.0);
        assert_eq!(phase["carried_per_view_and_change"], 0.5);
        assert_eq!(phase["per_s"], 5.0);
        let visible = &json["visibility"];
        assert_eq!(
            (&visible["in_each_view"]["count"], &visible["in_all_views"]["count"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(visible["in_all_views"]["max_us"], 9_000.0);
        let text = report.tables();
        let lines: Vec<_> = text.lines().collect();
        let words =
            |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[1]), "churn 2.0 10 5.0 0.50 1.00 2.0 4.0 1 0 50.0 100.0 3.00 0.50 2.00");
        // The mean is one of a histogram, and nearly 5 and 9.
        assert!(words(lines[5]).starts_with("in each view 2 "), "{text}");
        assert!(words(lines[6]).starts_with("in all views 1 "), "{text}");
        assert!(words(lines[5]).ends_with("9.000 9.000 9.000"), "{text}");
        assert!(words(lines[6]).ends_with("9.000 9.000 9.000 9.000"), "{text}");
        assert_eq!(
            lines[8..],
            ["3 times a view did not show a change in time", "1 changes failed, the first because lost"]
        );
    }

    #[test]
    fn what_was_not_measured_is_null_and_a_dash() {
        let resources = Resources { servers: None, client_cpu: None };
        let hold = Phase {
            name: "hold",
            has_rate: false,
            changes: None,
            client_resident_bytes: None,
            resources,
            ..churn()
        };
        let report = report(vec![hold], None);
        let json = report.json();
        for field in ["server_cpu_us", "server_resident_bytes", "reads_per_view_and_change"] {
            assert_eq!(json["phases"][0][field], Value::Null, "{field}");
        }
        assert_eq!(json["visibility"], Value::Null);
        let text = report.tables();
        assert!(!text.contains("VISIBLE") && text.contains("hold   2.0      10     -      -    -"), "{text}");
    }

    fn report(phases: Vec<Phase>, visibility: Option<Visibility>) -> SwarmReport {
        SwarmReport { settings: json!({}), phases, visibility, is_complete: true }
    }

    fn churn() -> Phase {
        let usage = ProcessesUsage { cpu: Duration::from_secs(1), resident_bytes: vec![1 << 20, 2 << 20] };
        Phase {
            name: "churn",
            elapsed: Duration::from_secs(2),
            count: 10,
            has_rate: true,
            changes: Some(10),
            views: 2_000,
            errors: 0,
            counts: Counts {
                events: 60_000,
                reads: 40_000,
                carried: 10_000,
                sessions_lost: 1,
                ..Counts::ZERO
            },
            resources: Resources { servers: Some(usage), client_cpu: Some(Duration::from_secs(2)) },
            client_resident_bytes: Some(4 << 20),
        }
    }

    fn visibility() -> Visibility {
        let of = |all_ms: &[u64]| {
            let mut latencies = Latencies::new();
            all_ms.iter().for_each(|ms| latencies.record(Duration::from_millis(*ms)));
            latencies
        };
        Visibility {
            changes: 2,
            in_each_view: of(&[1, 9]),
            in_all_views: of(&[9]),
            unseen: 3,
            errors: 1,
            first_error: Some("lost".to_owned()),
        }
    }
}

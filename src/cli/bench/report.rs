//! What was measured, as a table or as JSON.
//!
//! Of several rounds the medians of each figure are told, and of two ensembles the ratios of their medians, the first's to the
//! second's: 3 in `ops_per_s` means three times the throughput of the second, 0.5 in a latency half of the second's.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::output::{Format, table};
use super::arguments::{BenchEnsembleArguments, Workload};
use super::ensemble::Ensemble;
use super::figure::{Figure, MIB, US_PER_MS, latency_us, ms, place_name, ratio, show_ratio, us, us_each};
use super::latencies::Latency;
use super::resources::Resources;
use super::tally::{Figures, as_f64};

/// All runs and what they were made with.
#[derive(Debug)]
pub(super) struct Report {
    settings: Value,
    ensembles: Vec<Value>,
    runs: Vec<MeasuredRun>,
    /// Whether everything that was asked for was measured.
    pub(super) is_complete: bool,
}

/// One workload, measured once.
#[derive(Clone, Debug)]
pub(super) struct MeasuredRun {
    pub(super) workload: Workload,
    /// Which ensemble: 0 the first, 1 the one it is compared with.
    pub(super) ensemble: usize,
    /// From 1.
    pub(super) round: u32,
    pub(super) figures: Figures,
    pub(super) resources: Resources,
}

const FIGURES: [Figure<MeasuredRun>; 9] = [
    Figure::new("ops_per_s", "OPS/S", (1.0, 0), |run| Some(run.figures.ops_per_second())),
    Figure::new("p50_us", "P50", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p50)),
    Figure::new("p99_us", "P99", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p99)),
    Figure::new("p99_9_us", "P99.9", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.p99_9)),
    Figure::new("max_us", "MAX", (US_PER_MS, 3), |run| run.latency_us(|latency| latency.max)),
    Figure::new("longest_stall_us", "STALL", (US_PER_MS, 3), |run| Some(us(run.figures.longest_stall))),
    Figure::new("server_cpu_us_per_op", "CPU/OP", (1.0, 1), MeasuredRun::server_cpu_us_per_op),
    Figure::new("client_cpu_us_per_op", "CLIENT CPU/OP", (1.0, 1), MeasuredRun::client_cpu_us_per_op),
    Figure::new("server_resident_bytes_max", "MEMORY", (MIB, 1), MeasuredRun::server_resident_bytes_max),
];
const LEGEND: &str = "P50 to MAX and STALL (the longest time in which no operation was done) in ms; CPU/OP of all servers \
                      together in us; MEMORY of the largest server in MiB";

impl Report {
    pub(super) fn new(arguments: &BenchEnsembleArguments, ensembles: &[Ensemble]) -> Self {
        let settings = json!({
            "connections": arguments.connections,
            "pipeline": arguments.pipeline,
            "duration_ms": arguments.count.is_none().then_some(ms(arguments.duration)),
            "count": arguments.count,
            "warmup_ms": ms(arguments.warmup),
            "rounds": arguments.rounds,
            "data_bytes": arguments.data_bytes,
            "keys": arguments.keys,
            "session_timeout_ms": ms(arguments.session_timeout),
        });
        let ensembles = ensembles
            .iter()
            .enumerate()
            .map(|(place, ensemble)| {
                json!({"name": place_name(place), "servers": ensemble.servers, "pids": ensemble.processes.ids})
            })
            .collect();
        Self { settings, ensembles, runs: Vec::new(), is_complete: false }
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
        let mut medians = Vec::new();
        let mut ratios = Vec::new();
        for workload in self.workloads() {
            for place in 0..self.ensembles.len() {
                let mut median = json!({"workload": workload.to_string(), "ensemble": place_name(place)});
                for figure in &FIGURES {
                    median[figure.name] = json!(self.median(workload, place, figure));
                }
                medians.push(median);
            }
            if self.ensembles.len() > 1 {
                let mut ratio = json!({"workload": workload.to_string()});
                for figure in &FIGURES {
                    ratio[figure.name] = json!(self.ratio(workload, figure));
                }
                ratios.push(ratio);
            }
        }
        json!({
            "complete": self.is_complete,
            "settings": self.settings,
            "ensembles": self.ensembles,
            "runs": self.runs.iter().map(MeasuredRun::json).collect::<Vec<_>>(),
            "medians": medians,
            "ratios": ratios,
        })
    }

    fn tables(&self) -> String {
        let is_comparison = self.ensembles.len() > 1;
        let mut headings = vec!["WORKLOAD"];
        headings.extend(is_comparison.then_some("ENSEMBLE"));
        headings.push("ROUND");
        headings.extend(FIGURES.iter().map(|figure| figure.heading));
        headings.push("ERRORS");
        let mut rows = Vec::new();
        for workload in self.workloads() {
            for place in 0..self.ensembles.len() {
                let start = |round: String| {
                    let ensemble = is_comparison.then(|| place_name(place).to_owned());
                    [Some(workload.to_string()), ensemble, Some(round)].into_iter().flatten()
                };
                let runs: Vec<_> = self.runs_of(workload, place).collect();
                for run in &runs {
                    let figures = FIGURES.iter().map(|figure| figure.show((figure.of)(run)));
                    let errors = run.figures.error_count().to_string();
                    rows.push(start(run.round.to_string()).chain(figures).chain([errors]).collect());
                }
                if runs.len() > 1 {
                    let figures =
                        FIGURES.iter().map(|figure| figure.show(self.median(workload, place, figure)));
                    rows.push(start("median".to_owned()).chain(figures).chain(["".to_owned()]).collect());
                }
            }
        }
        let mut text = table(&headings, rows);
        text.push_str(&format!("\n{LEGEND}"));
        for run in &self.runs {
            for (what, count) in &run.figures.errors {
                let (workload, ensemble) = (run.workload, place_name(run.ensemble));
                text.push_str(&format!(
                    "\n{workload}, {ensemble}, round {}: {count} times {what}",
                    run.round
                ));
            }
        }
        if is_comparison {
            text.push_str(&format!(
                "\n\nmedians of the first, divided by those of the second\n{}",
                self.ratios()
            ));
        }
        text
    }

    fn ratios(&self) -> String {
        let mut headings = vec!["WORKLOAD"];
        headings.extend(FIGURES.iter().map(|figure| figure.heading));
        let row = |workload: Workload| {
            let ratios = FIGURES.iter().map(|figure| show_ratio(self.ratio(workload, figure)));
            [workload.to_string()].into_iter().chain(ratios).collect()
        };
        table(&headings, self.workloads().into_iter().map(row).collect())
    }

    /// In the order in which they were measured.
    fn workloads(&self) -> Vec<Workload> {
        let mut workloads = Vec::new();
        for run in &self.runs {
            if !workloads.contains(&run.workload) {
                workloads.push(run.workload);
            }
        }
        workloads
    }

    fn runs_of(&self, workload: Workload, place: usize) -> impl Iterator<Item = &MeasuredRun> {
        self.runs.iter().filter(move |run| run.workload == workload && run.ensemble == place)
    }

    fn median(&self, workload: Workload, place: usize, figure: &Figure<MeasuredRun>) -> Option<f64> {
        figure.median(self.runs_of(workload, place))
    }

    fn ratio(&self, workload: Workload, figure: &Figure<MeasuredRun>) -> Option<f64> {
        ratio(self.median(workload, 0, figure), self.median(workload, 1, figure))
    }
}

impl MeasuredRun {
    fn json(&self) -> Value {
        let mut json = json!({
            "workload": self.workload.to_string(),
            "ensemble": place_name(self.ensemble),
            "round": self.round,
            "seconds": self.figures.elapsed.as_secs_f64(),
            "ops": self.figures.ops,
            "errors": self.figures.error_count(),
            "error_kinds": self.figures.errors,
            "mean_us": self.latency_us(|latency| latency.mean),
            "server_resident_bytes": self.resources.servers.as_ref().map(|servers| &servers.resident_bytes),
        });
        for figure in &FIGURES {
            json[figure.name] = json!((figure.of)(self));
        }
        json
    }

    fn latency_us(&self, choose: impl FnOnce(&Latency) -> Duration) -> Option<f64> {
        latency_us(self.figures.latency.as_ref(), choose)
    }

    fn server_cpu_us_per_op(&self) -> Option<f64> {
        self.per_op(self.resources.servers.as_ref()?.cpu)
    }

    fn client_cpu_us_per_op(&self) -> Option<f64> {
        self.per_op(self.resources.client_cpu?)
    }

    fn server_resident_bytes_max(&self) -> Option<f64> {
        self.resources.servers.as_ref()?.resident_bytes.iter().max().map(|bytes| as_f64(*bytes))
    }

    fn per_op(&self, time: Duration) -> Option<f64> {
        us_each(time, self.figures.ops)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::processes::ProcessesUsage;
    use super::*;

    #[test]
    fn medians_and_ratios_are_of_the_rounds() {
        let mut report = report(&["first", "second"]);
        for (round, (first, second)) in [(300, 100), (900, 110), (330, 90)].into_iter().enumerate() {
            report.add(run(0, round, first));
            report.add(run(1, round, second));
        }
        let json = report.json();
        assert_eq!(json["medians"][0]["ops_per_s"], 330.0);
        assert_eq!(json["medians"][1]["ops_per_s"], 100.0);
        let ratio = json["ratios"][0]["ops_per_s"].as_f64().unwrap();
        assert!((ratio - 3.3).abs() < 1e-9, "{ratio}");
        assert_eq!(json["runs"].as_array().unwrap().len(), 6);
        let text = report.tables();
        assert!(text.contains("set       second    median  100    2.000"), "{text}");
        assert!(
            text.ends_with("set       3.30   1.00  1.00  1.00   1.00  1.00   0.30    0.30           1.00"),
            "{text}"
        );
    }

    #[test]
    fn one_round_of_one_ensemble_is_one_row() {
        let mut report = report(&["first"]);
        report.add(run(0, 0, 100));
        let text = report.tables();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "WORKLOAD  ROUND  OPS/S  P50    P99    P99.9  MAX    STALL   CPU/OP   CLIENT CPU/OP  MEMORY  ERRORS",
                "set       1      100    2.000  3.000  4.000  5.000  70.000  10000.0  10000.0        2.0     1",
            ]
        );
        assert_eq!(lines[3..], ["set, first, round 1: 1 times connection lost"]);
    }

    #[test]
    fn what_was_not_measured_is_null_and_a_dash() {
        let mut report = report(&["first"]);
        let mut run = run(0, 0, 100);
        run.resources = Resources { servers: None, client_cpu: None };
        run.figures.ops = 0;
        run.figures.latency = None;
        report.add(run);
        let json = report.json();
        for field in ["p50_us", "server_cpu_us_per_op", "server_resident_bytes"] {
            assert_eq!(json["runs"][0][field], Value::Null, "{field}");
        }
        assert!(report.tables().contains("set       1      0      -    -"), "{}", report.tables());
    }

    fn report(ensembles: &[&str]) -> Report {
        let ensembles = ensembles.iter().map(|name| json!({"name": name})).collect();
        Report { settings: json!({}), ensembles, runs: Vec::new(), is_complete: true }
    }

    fn run(ensemble: usize, round: usize, ops: u64) -> MeasuredRun {
        let ms = Duration::from_millis;
        let latency = Latency { mean: ms(2), p50: ms(2), p99: ms(3), p99_9: ms(4), max: ms(5) };
        let figures = Figures {
            elapsed: Duration::from_secs(1),
            ops,
            latency: Some(latency),
            longest_stall: ms(70),
            errors: BTreeMap::from([("connection lost".to_owned(), 1)]),
        };
        let usage = ProcessesUsage { cpu: ms(1000), resident_bytes: vec![1 << 20, 2 << 20] };
        let resources = Resources { servers: Some(usage), client_cpu: Some(ms(1000)) };
        let round = u32::try_from(round).unwrap() + 1;
        MeasuredRun { workload: Workload::Set, ensemble, round, figures, resources }
    }
}

//! What a process uses, read from `/proc` (proc(5)): this one's when metrics are printed, any one's for measurements.
//!
//! The `process` feature of the `prometheus` crate would do it with a second copy of several crates.

use std::io;
use std::time::Duration;

use prometheus::Gauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::metrics::{into_counter, opts};
use super::{Metric, PROCESS_CPU, PROCESS_FDS, PROCESS_MEMORY, PROCESS_THREADS};

/// What a process has used and holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    /// User and system time of all its threads since its start, in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Resident memory.
    pub(crate) resident_bytes: u64,
}

impl ProcessUsage {
    /// Reads what the process with this id uses.
    ///
    /// # Errors
    ///
    /// When there is no such process, or no `/proc`.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Self::below(&format!("/proc/{pid}"))
    }

    /// Reads what this process uses.
    ///
    /// # Errors
    ///
    /// When there is no `/proc`.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Self::below("/proc/self")
    }

    fn below(folder: &str) -> io::Result<Self> {
        let read = |file: &str| fs_err::read_to_string(format!("{folder}/{file}"));
        let unreadable = || io::Error::other(format!("{folder} has another form than proc(5) describes"));
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(unreadable)?;
        let resident_kib = status_value(&read("status")?, "VmRSS:").ok_or_else(unreadable)?;
        Ok(Self { cpu: Duration::from_millis(ticks * MS_PER_TICK), resident_bytes: resident_kib * 1024 })
    }
}

/// Reads `stat` and `status` and counts `fd`. Where there is no `/proc`, it collects nothing.
pub(super) struct ProcessCollector {
    cpu: Gauge,
    memory: Gauge,
    fds: Gauge,
    threads: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let gauge = |metric: Metric| Gauge::with_opts(opts(metric)).expect("names here are well formed");
        Self {
            cpu: gauge(PROCESS_CPU),
            memory: gauge(PROCESS_MEMORY),
            fds: gauge(PROCESS_FDS),
            threads: gauge(PROCESS_THREADS),
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        [&self.cpu, &self.memory, &self.fds, &self.threads].into_iter().flat_map(Collector::desc).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes or ticks are far away")]
    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::with_capacity(4);
        if let Some(ticks) = read("stat").as_deref().and_then(cpu_ticks) {
            self.cpu.set((ticks * MS_PER_TICK) as f64 / 1000.0);
            let mut cpu = self.cpu.collect();
            cpu.iter_mut().for_each(into_counter);
            families.extend(cpu);
        }
        let status = read("status").unwrap_or_default();
        if let Some(kib) = status_value(&status, "VmRSS:") {
            self.memory.set((kib * 1024) as f64);
            families.extend(self.memory.collect());
        }
        if let Some(threads) = status_value(&status, "Threads:") {
            self.threads.set(threads as f64);
            families.extend(self.threads.collect());
        }
        if let Ok(fds) = fs_err::read_dir("/proc/self/fd") {
            // One of them is the folder being read.
            self.fds.set(fds.count().saturating_sub(1) as f64);
            families.extend(self.fds.collect());
        }
        families
    }
}

fn read(file: &str) -> Option<String> {
    fs_err::read_to_string(format!("/proc/self/{file}")).ok()
}

/// User and system time in ticks: fields 14 and 15 of `stat`, counted from behind the command's name, which
/// may itself hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// The number on the line of `status` that begins with `key`.
fn status_value(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The length of a tick in `/proc`, the same on every architecture that we build for.
const MS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_commands_name() {
        let line = "1 (a) b) S 1 1 1 0 -1 4194560 11 12 13 14 150 250 17 18 20 0 4 0 123 9000 777 184467 1 1";
        assert_eq!(cpu_ticks(line), Some(400));
        assert_eq!(cpu_ticks("1 (a"), None);
    }

    #[test]
    fn a_status_line_is_found_by_its_key() {
        let status = "Name:\tThreads: 9\nVmRSS:\t    5124 kB\nThreads:\t3\n";
        assert_eq!(status_value(status, "VmRSS:"), Some(5124));
        assert_eq!(status_value(status, "Threads:"), Some(3));
        assert_eq!(status_value(status, "VmHWM:"), None);
    }

    #[test]
    fn a_process_is_read_by_its_id_and_a_missing_one_is_an_error() {
        let usage = ProcessUsage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 1 << 20, "{usage:?}");
        assert!(ProcessUsage::of_this_process().unwrap().cpu >= usage.cpu);
        // Ids end at 2^22.
        assert_eq!(ProcessUsage::of(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let families = ProcessCollector::new().collect();
        let value = |metric: Metric| {
            let family = families.iter().find(|family| family.name() == metric.name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value(PROCESS_MEMORY) > 1e6 && value(PROCESS_THREADS) >= 1.0 && value(PROCESS_FDS) >= 3.0);
    }
}

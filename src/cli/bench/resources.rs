//! What a measurement took of processors and memory: at the servers, and here.

use std::time::Duration;

use super::processes::{Processes, ProcessesUsage};
use crate::telemetry::ProcessUsage;

/// What it took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resources {
    /// CPU time that the servers used meanwhile, and the memory of each at the end.
    pub(super) servers: Option<ProcessesUsage>,
    /// CPU time that this process used meanwhile.
    pub(super) client_cpu: Option<Duration>,
}

/// What was used when a measurement began.
#[derive(Debug)]
pub(super) struct Meter {
    servers: Option<ProcessesUsage>,
    client: Option<ProcessUsage>,
}

impl Meter {
    pub(super) fn start(processes: &Processes) -> Self {
        Self { servers: processes.usage(), client: ProcessUsage::of_this_process().ok() }
    }

    /// What was used since then.
    pub(super) fn read(&self, processes: &Processes) -> Resources {
        Resources {
            servers: self.servers.as_ref().zip(processes.usage()).map(|(before, mut after)| {
                after.cpu = after.cpu.saturating_sub(before.cpu);
                after
            }),
            client_cpu: self
                .client
                .zip(ProcessUsage::of_this_process().ok())
                .map(|(before, after)| after.cpu.saturating_sub(before.cpu)),
        }
    }
}

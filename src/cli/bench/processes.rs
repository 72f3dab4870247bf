//! The processes of the servers that are measured, when they run on this machine.

use std::io;
use std::time::Duration;

use super::super::failure::Failure;
use crate::telemetry::ProcessUsage;

/// The servers' processes; none when nobody named them.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    pub(super) ids: Vec<u32>,
}

/// What processes use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessesUsage {
    /// CPU time of all together.
    pub(super) cpu: Duration,
    /// Memory of each, in the order of the ids.
    pub(super) resident_bytes: Vec<u64>,
}

impl Processes {
    /// Looks at each of them once.
    ///
    /// # Errors
    ///
    /// When one is not there.
    pub(super) fn find(ids: &[u32]) -> Result<Self, Failure> {
        if let Some((id, error)) = ids.iter().find_map(|id| Some((id, ProcessUsage::of(*id).err()?))) {
            let remedy = "give the ids of the servers, which must run on this machine";
            return Err(Failure::usage(format!("cannot measure process {id}: {error}; {remedy}")));
        }
        Ok(Self { ids: ids.to_vec() })
    }

    /// What they use by now; `None` without ids, or when one of them has ended.
    pub(super) fn usage(&self) -> Option<ProcessesUsage> {
        let usages: io::Result<Vec<_>> = self.ids.iter().map(|id| ProcessUsage::of(*id)).collect();
        let usages = usages.ok().filter(|usages| !usages.is_empty())?;
        Some(ProcessesUsage {
            cpu: usages.iter().map(|usage| usage.cpu).sum(),
            resident_bytes: usages.iter().map(|usage| usage.resident_bytes).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_uses_memory() {
        let processes = Processes::find(&[std::process::id()]).unwrap();
        let usage = processes.usage().unwrap();
        assert!(matches!(usage.resident_bytes[..], [bytes] if bytes > 0), "{usage:?}");
        assert_eq!(Processes::default().usage(), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        // Beyond the largest id that Linux gives, 2^22.
        let refusal = Processes::find(&[4_194_305]).unwrap_err().to_string();
        assert!(refusal.contains("process 4194305"), "{refusal}");
    }
}

//! A process that gets a share of a processor, as one with a quota: it is stopped most of the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// As quotas of containers are dealt out (`cpu.cfs_period_us`).
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// Holds a process to its share, until it is dropped.
#[derive(Debug)]
pub(crate) struct Throttle {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    /// Lets the process run for `share` percent of the time.
    pub(crate) fn start(process_id: u32, share: u32) -> Self {
        let id = i32::try_from(process_id).ok().and_then(Pid::from_raw).expect("a child has an id");
        let is_over = Arc::<AtomicBool>::default();
        let end = Arc::clone(&is_over);
        let running = PERIOD * share / 100;
        let thread = thread::spawn(move || {
            let signal =
                |signal| kill_process(id, signal).expect("the process is there while it is throttled");
            while !end.load(Ordering::Relaxed) {
                signal(Signal::STOP);
                thread::sleep(PERIOD - running);
                signal(Signal::CONT);
                thread::sleep(running);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _failed_and_said_so = thread.join();
        }
    }
}

//! Disks: one of a few MiB, and how long the one that all members share holds everybody up.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rollcall::clock;

/// Writes and syncs a little all the time, beside the members.
///
/// What a machine's disk takes for a sync while others use it too can be seconds. No member can be faster than its disk,
/// so what this one waited is allowed to them as well.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    longest_ms: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const WATCH_PERIOD: Duration = Duration::from_millis(50);

impl DiskWatch {
    pub(crate) fn start(folder: &Path) -> Self {
        let longest_ms = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut file = File::create(folder.join("watch")).expect("a file can be made");
        let (longest, over) = (Arc::clone(&longest_ms), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let start = clock::now();
                file.write_all(&[1; 512]).and_then(|()| file.sync_data()).expect("a file can be synced");
                let took = u64::try_from((clock::now() - start).as_millis()).expect("a short time");
                longest.fetch_max(took, Ordering::Relaxed);
                thread::sleep(WATCH_PERIOD);
            }
        });
        Self { longest_ms, is_over, thread: Some(thread) }
    }

    /// The longest that a sync has taken so far.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A tmpfs on a folder, until dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Whether this process may mount anything.
    pub(crate) fn is_possible() -> bool {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self::try_mount(folder.path(), 1 << 20).is_some()
    }

    /// Puts a disk of this size on an empty folder.
    ///
    /// # Panics
    ///
    /// When it cannot be mounted; [`SmallDisk::is_possible`] tells.
    pub(crate) fn mount(folder: &Path, bytes: u64) -> Self {
        Self::try_mount(folder, bytes).expect("a tmpfs can be mounted")
    }

    fn try_mount(folder: &Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self { folder: folder.to_owned() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever still has a file open there is about to die.
        let _status = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

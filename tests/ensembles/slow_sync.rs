//! A disk that takes its time, for one member alone: a library that is loaded before all others delays each sync.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempPath;

/// The delay of one member's syncs, which can be set while it runs.
#[derive(Debug)]
pub(crate) struct SlowSync {
    library: TempPath,
    /// How many ms each sync takes; none when the file is missing.
    file: PathBuf,
}

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ensembles/slow_sync.c");

impl SlowSync {
    /// Compiles the library below `target/tmp`; the file that it reads is to be in `folder`.
    ///
    /// # Panics
    ///
    /// When there is no C compiler.
    pub(crate) fn new(folder: &Path) -> Self {
        // Other tests may be compiling it, too.
        let mut file = tempfile::Builder::new();
        let file = file.prefix("slow_sync").suffix(".so").tempfile_in(env!("CARGO_TARGET_TMPDIR"));
        let library = file.expect("a file can be made below target/tmp").into_temp_path();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(SOURCE);
        let status = compiler.status();
        let status = status.unwrap_or_else(|error| panic!("cannot run cc: {error}; tests/run installs it"));
        assert!(status.success(), "{SOURCE} cannot be compiled");
        Self { library, file: folder.join("sync_ms") }
    }

    /// Has the library loaded into the process that is to be started.
    pub(crate) fn apply_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("SLOW_SYNC_FILE", &self.file);
    }

    /// From its next sync on, each takes so much longer.
    pub(crate) fn set(&self, delay: Duration) {
        std::fs::write(&self.file, delay.as_millis().to_string()).expect("a file can be written");
    }

    pub(crate) fn clear(&self) {
        std::fs::remove_file(&self.file).expect("a file that was written can be removed");
    }
}

//! The history of a run while it is made, shared by all that take part in it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rollcall::clock;

use crate::history::{History, Record};

/// A handle on the history of a run.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    start: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { start: clock::now(), history: Arc::default() }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from((clock::now() - self.start).as_nanos()).expect("a run is shorter than 500 years")
    }

    pub(crate) fn add(&self, record: Record) {
        self.history.lock().expect("nobody panics while adding").records.push(record);
    }

    /// Notes that something was done to a member, and when.
    pub(crate) fn fault(&self, what: String) {
        self.add(Record::Fault { at: self.now(), what });
    }

    /// Looks at what was recorded so far.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&History) -> T) -> T {
        at(&self.history.lock().expect("nobody panics while adding"))
    }

    /// What was recorded so far.
    pub(crate) fn history(&self) -> History {
        self.history.lock().expect("nobody panics while adding").clone()
    }
}

/// Writes a history to a new file below `target/tmp`.
///
/// # Panics
///
/// When the file cannot be written.
pub(crate) fn keep(history: &History, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ensembles");
    std::fs::create_dir_all(&folder).expect("a folder can be made below target/tmp");
    let path = folder.join(format!("{name}-{}.jsonl", std::process::id()));
    let mut file = BufWriter::new(File::create(&path).expect("a file can be made below target/tmp"));
    write_lines(history, &mut file).expect("a history can be written");
    path
}

/// Writes one record a line.
fn write_lines(history: &History, out: &mut impl Write) -> std::io::Result<()> {
    for record in &history.records {
        serde_json::to_writer(&mut *out, record)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::Sample;
    use crate::history::{Action, Change, EventKind};

    #[test]
    fn a_history_reads_as_it_was_written() {
        let mut sample = Sample::new();
        let client = sample.client("a");
        sample.create(client, "/x", "1", 5);
        sample.lost(client, Action::Multi(vec![Change::Delete { path: "/x".to_owned() }]));
        sample.event(client, EventKind::Deleted, "/x");
        sample.dump(9, &[("/x", "1", 5)]);
        let history = sample.history();
        let mut bytes = Vec::new();
        write_lines(&history, &mut bytes).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), history.records.len());
        assert_eq!(History::read_lines(&bytes[..]).unwrap(), history);
    }
}

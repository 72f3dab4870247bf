//! What a sidecar's next process must know about this one: whether it left in order, and which instances were held off.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::state_file;

/// The file's name in the state directory.
const FILE: &str = "failback";
/// Far more than is written: tens of thousands of instances.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The file: one line of JSON, such as `{"is_running":true,"held":["web.default/web-1"]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldFile {
    /// Whether the sidecar was not told to leave: if it is not running any more, it was killed.
    pub is_running: bool,
    /// The instances that fail or are held off, each `service.namespace/id`.
    pub held: BTreeSet<String>,
    /// Those that are drained, and were not offered when the sidecar was killed. Earlier versions do not say.
    #[serde(default)]
    pub drained: BTreeSet<String>,
}

impl HoldFile {
    /// Reads the file in `folder`; the default when there is none. One that is damaged is set aside, and taken for that of a sidecar that
    /// was killed: who is held off for nothing waits while standbys serve, and who is let off for nothing breaks an operator's word.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        let kept = state_file::load(folder, FILE, FILE_BYTES_MAX, parse)?.or_damaged(|aside, reason| {
            warn!(
                file = %aside.display(),
                reason,
                "damaged, and not used: own instances wait below standbys that serve, as after a crash; `rollcall failback` ends that"
            );
            Ok(Self { is_running: true, ..Self::default() })
        })?;
        Ok(kept.unwrap_or_default())
    }

    /// Writes the file in `folder`, which is made if need be; a crash leaves the earlier one or this one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        state_file::replace(folder, FILE, &line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert_eq!(HoldFile::load(&state_dir).unwrap(), HoldFile::default());
        let names = |name: &str| BTreeSet::from([format!("web.default/{name}")]);
        let file = HoldFile { is_running: true, held: names("web-1"), drained: names("web-2") };
        file.save(&state_dir).unwrap();
        assert_eq!(HoldFile::load(&state_dir).unwrap(), file);
    }

    #[test]
    fn what_is_damaged_is_set_aside_and_taken_for_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path();
        for damaged in ["{", "", "\0\0\0\0"] {
            std::fs::write(state_dir.join(FILE), damaged).unwrap();
            let file = HoldFile::load(state_dir).unwrap();
            assert_eq!(file, HoldFile { is_running: true, ..HoldFile::default() });
            assert_eq!(std::fs::read_to_string(state_dir.join("failback.damaged")).unwrap(), damaged);
            assert!(!state_dir.join(FILE).exists());
        }
        assert_eq!(HoldFile::load(state_dir).unwrap(), HoldFile::default());
    }
}

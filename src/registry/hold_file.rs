//! What a sidecar's next process must know about this one: whether it left in order, and which instances were held off.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state_file;

/// The file's name in the state directory.
const FILE: &str = "failback";

/// The file: one line of JSON, such as `{"is_running":true,"held":["web.default/web-1"]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldFile {
    /// Whether the sidecar was not told to leave: if it is not running any more, it was killed.
    pub is_running: bool,
    /// The instances that fail or are held off, each `service.namespace/id`.
    pub held: BTreeSet<String>,
}

impl HoldFile {
    /// Reads the file in `folder`; the default when there is none.
    ///
    /// # Errors
    ///
    /// When it can be neither read nor understood.
    pub fn load(folder: &Path) -> io::Result<Self> {
        match fs_err::read(folder.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!("{}: {error}; delete it to start without", folder.join(FILE).display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
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
        let file = HoldFile { is_running: true, held: BTreeSet::from(["web.default/web-1".to_owned()]) };
        file.save(&state_dir).unwrap();
        assert_eq!(HoldFile::load(&state_dir).unwrap(), file);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let error = HoldFile::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("failback: EOF") && error.contains("delete it"), "{error}");
    }
}

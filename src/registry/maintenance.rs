//! Instances that an operator has taken out, and the file that says so to the sidecar's next process.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state_file;

/// That an instance is in maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Why, as the operator put it.
    pub reason: Reason,
    /// Since when, in ms since 1970.
    pub since_ms: i64,
}

/// Why an operator does something: one line, at most [`Reason::BYTES_MAX`] bytes, may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reason(String);

/// Why a text is no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReasonError {
    /// It is too long.
    #[error("a reason of {bytes} bytes is longer than the {} there is room for", Reason::BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It would steer a terminal or break a line of a log.
    #[error("a reason is one line of text, without control characters")]
    Control,
}

impl Reason {
    /// Bytes of the longest reason.
    pub const BYTES_MAX: usize = 256;

    /// Checks `text`; blanks around it are cut off.
    ///
    /// # Errors
    ///
    /// When it is too long or has control characters.
    pub fn parse(text: &str) -> Result<Self, ReasonError> {
        let text = text.trim();
        if text.len() > Self::BYTES_MAX {
            return Err(ReasonError::TooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(ReasonError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The reason as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Reason {
    type Error = ReasonError;

    fn try_from(text: String) -> Result<Self, ReasonError> {
        Self::parse(&text)
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file: one line of JSON, such as `{"instances":{"web.default/web-1":{"reason":"disk","since_ms":1764115200000}}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceFile {
    /// The instances in maintenance, each `service.namespace/id`.
    pub instances: BTreeMap<String, Maintenance>,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceFileError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is longer than any that was written.
    #[error("the file is longer than {} bytes", MaintenanceFile::BYTES_MAX)]
    TooLong,
    /// It is not what was written.
    #[error("the file is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

impl MaintenanceFile {
    /// The file's name in the state directory.
    pub const NAME: &'static str = "maintenance";
    /// Bytes of the longest file: two thousand instances with the longest reasons and names.
    pub const BYTES_MAX: usize = 1 << 20;

    /// Reads the file in `folder`; nobody is in maintenance when there is none.
    ///
    /// # Errors
    ///
    /// When it can be neither read nor understood.
    pub fn load(folder: &Path) -> Result<Self, MaintenanceFileError> {
        let file = match fs_err::File::open(folder.join(Self::NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(Self::BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > Self::BYTES_MAX {
            return Err(MaintenanceFileError::TooLong);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes the file in `folder`, which is made if need be; a crash leaves the earlier one or this one.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or is longer than it may be read again.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        if line.len() > Self::BYTES_MAX {
            let message =
                format!("{} instances in maintenance are more than a file holds", self.instances.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        state_file::replace(folder, Self::NAME, &line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert_eq!(MaintenanceFile::load(&state_dir).unwrap(), MaintenanceFile::default());
        let file = sample("new disk \u{2192} \"sdb\"");
        file.save(&state_dir).unwrap();
        assert_eq!(MaintenanceFile::load(&state_dir).unwrap(), file);
    }

    #[test]
    fn what_is_damaged_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |bytes: &[u8]| {
            std::fs::write(folder.path().join(MaintenanceFile::NAME), bytes).unwrap();
            MaintenanceFile::load(folder.path()).unwrap_err().to_string()
        };
        let whole = serde_json::to_vec(&sample("disk")).unwrap();
        for cut in 0..whole.len() {
            assert!(load(&whole[..cut]).contains("damaged"), "cut at {cut}");
        }
        let long = serde_json::to_vec(&MaintenanceFile {
            instances: BTreeMap::from([(
                "web.default/web-1".to_owned(),
                Maintenance { reason: Reason("x".repeat(Reason::BYTES_MAX + 1)), since_ms: 1 },
            )]),
        });
        assert!(load(&long.unwrap()).contains("damaged: a reason of 257 bytes"));
        assert!(load(&vec![b' '; MaintenanceFile::BYTES_MAX + 1]).contains("longer than"));
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(Reason::parse(" new disk\n").unwrap().as_str(), "new disk");
        assert_eq!(Reason::parse("a\nb"), Err(ReasonError::Control));
        assert_eq!(Reason::parse(&"x".repeat(257)), Err(ReasonError::TooLong { bytes: 257 }));
    }

    fn sample(reason: &str) -> MaintenanceFile {
        let maintenance = Maintenance { reason: Reason::parse(reason).unwrap(), since_ms: 7 };
        MaintenanceFile { instances: BTreeMap::from([("web.default/web-1".to_owned(), maintenance)]) }
    }
}

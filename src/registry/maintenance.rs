//! Instances that an operator has taken out, and the file that says so to the sidecar's next process.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::error;

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

impl MaintenanceFile {
    /// The file's name in the state directory.
    pub const NAME: &'static str = "maintenance";
    /// Bytes of the longest file: two thousand instances with the longest reasons and names.
    pub const BYTES_MAX: usize = 1 << 20;

    /// Reads the file in `folder`; nobody is in maintenance when there is none. Nor is anybody by one that is damaged, which is set aside: to
    /// take out instances that nobody wants out would be no better than to offer one too many.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        let loaded = state_file::load(folder, Self::NAME, Self::BYTES_MAX as u64, parse)?;
        let kept = loaded.or_damaged(|aside, reason| {
            error!(
                file = %aside.display(),
                reason,
                "damaged, and not used: no instance is in maintenance now; put those that should be there again"
            );
            Ok(Self::default())
        })?;
        Ok(kept.unwrap_or_default())
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
    fn what_is_damaged_or_too_long_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("maintenance"), folder.path().join("maintenance.damaged"));
        let mut longer = sample("disk");
        let reason = Reason("x".repeat(Reason::BYTES_MAX + 1));
        longer.instances.insert("web.default/web-2".to_owned(), Maintenance { reason, since_ms: 1 });
        let whole = serde_json::to_vec(&sample("disk")).unwrap();
        let cut = (0..whole.len()).map(|at| whole[..at].to_vec());
        let long = [serde_json::to_vec(&longer).unwrap(), vec![b' '; MaintenanceFile::BYTES_MAX + 1]];
        for damaged in cut.chain(long) {
            std::fs::write(&file, &damaged).unwrap();
            assert_eq!(MaintenanceFile::load(folder.path()).unwrap(), MaintenanceFile::default());
            assert_eq!((std::fs::read(&aside).unwrap(), file.exists()), (damaged, false));
        }
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

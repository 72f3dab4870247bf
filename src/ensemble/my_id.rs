//! The file beside the data that says which member they are of.
//!
//! `myid` holds the id in decimal in its first line, as Apache ZooKeeper writes and reads it, so that all members can share
//! one settings file.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ConfigError, read};
use crate::id::ServerId;

/// What the file says.
pub(super) enum MyId {
    /// This member is meant.
    Is(ServerId),
    /// There is no such file.
    Missing(PathBuf),
    /// It cannot be read, or says something else.
    Wrong(String),
}

impl MyId {
    /// Reads the file in `data_dir`.
    pub(super) fn read(data_dir: &Path) -> Self {
        let file = Self::file(data_dir);
        let text = match read(&file) {
            Ok(text) => text,
            Err(ConfigError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Self::Missing(file);
            }
            Err(error) => return Self::Wrong(error.to_string()),
        };
        let id = text.lines().next().unwrap_or_default().trim();
        match id.parse().ok().and_then(ServerId::new) {
            Some(id) => Self::Is(id),
            None => Self::Wrong(format!("{} holds {id:?}, which is no server id", file.display())),
        }
    }

    /// Where it lies.
    pub(super) fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("myid")
    }

    /// What to do when it does not say what it should.
    pub(super) fn remedy(data_dir: &Path) -> String {
        format!("write this member's id into {}, 1 to 254", Self::file(data_dir).display())
    }
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn the_first_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            matches!(MyId::read(folder.path()), MyId::Missing(file) if file == folder.path().join("myid"))
        );
        for (text, expected) in [("7", Some(7)), (" 254 \nmore", Some(254)), ("3\r\n", Some(3))] {
            fs::write(MyId::file(folder.path()), text).unwrap();
            assert!(
                matches!(MyId::read(folder.path()), MyId::Is(id) if Some(id.get()) == expected),
                "{text:?}"
            );
        }
        for text in ["", "\n7", "0", "255", "seven", "-1"] {
            fs::write(MyId::file(folder.path()), text).unwrap();
            assert!(
                matches!(MyId::read(folder.path()), MyId::Wrong(why) if why.contains("which is no server id")),
                "{text:?}"
            );
        }
    }
}

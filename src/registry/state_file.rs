//! Files in the sidecar's state directory.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

/// What became of reading a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded<T> {
    /// There is none.
    Absent,
    /// It is what was written.
    Whole(T),
    /// It is not.
    Damaged {
        /// Where it was put, out of the way.
        aside: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl<T> Loaded<T> {
    /// What was written, or what `stand_in` makes of a file that is damaged, by where that was put and what is wrong with it; `None` where there
    /// is none.
    ///
    /// # Errors
    ///
    /// That of `stand_in`.
    pub(super) fn or_damaged(
        self,
        stand_in: impl FnOnce(&Path, &str) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        match self {
            Self::Absent => Ok(None),
            Self::Whole(value) => Ok(Some(value)),
            Self::Damaged { aside, reason } => stand_in(&aside, &reason).map(Some),
        }
    }
}

/// Reads the file `name` in `folder`. One that has more than `bytes_max` bytes, or that `parse` does not understand, is set aside as
/// `NAME.damaged`, for somebody to look at, over one that was put there before.
///
/// # Errors
///
/// When it cannot be read, or is no file.
pub(super) fn load<T, E: Display>(
    folder: &Path,
    name: &str,
    bytes_max: u64,
    parse: impl FnOnce(&[u8]) -> Result<T, E>,
) -> io::Result<Loaded<T>> {
    let path = folder.join(name);
    if !exists(&path)? {
        return Ok(Loaded::Absent);
    }
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let parsed = if bytes.len() as u64 > bytes_max {
        Err(format!("it has more than {bytes_max} bytes"))
    } else {
        parse(&bytes).map_err(|error| error.to_string())
    };
    Ok(match parsed {
        Ok(value) => Loaded::Whole(value),
        Err(reason) => Loaded::Damaged { aside: set_aside(folder, name), reason },
    })
}

/// Whether there is a file at `path`. Asked before it is opened, since a FIFO keeps whoever does that until somebody opens its other end,
/// and a device may do anything.
///
/// # Errors
///
/// When there is something else, or that cannot be told.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match fs_err::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => {
            let message = format!("{} is no regular file; remove it", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts the file `name` into `folder`, which is made if need be: written beside it and renamed, so that a crash leaves the earlier
/// one or this one.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_by(folder, name, |file| file.write_all(bytes))
}

/// The same, with what `write` writes; returns what it returns. When the process is killed in the middle of it, what is written so far
/// stays: see [`sweep`].
///
/// # Errors
///
/// When it cannot be written, or `write` fails.
pub(super) fn replace_by<T>(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
    let written = write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    Ok(written)
}

/// Removes what processes that were killed have left half written, and nothing else; nobody may be writing there. Returns how many files.
///
/// # Errors
///
/// When the folder cannot be read, or a file not be removed.
pub(super) fn sweep(folder: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().to_str().is_some_and(is_half_written) {
            fs_err::remove_file(entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Returns where it is then.
fn set_aside(folder: &Path, name: &str) -> PathBuf {
    let (path, aside) = (folder.join(name), folder.join(format!("{name}.damaged")));
    match fs_err::rename(&path, &aside) {
        Ok(()) => aside,
        Err(error) => {
            warn!(%error, "a damaged file cannot be set aside, and stays until it is written anew");
            path
        }
    }
}

fn is_half_written(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What the name of a file begins with that is being written; so many random letters and digits follow.
const PREFIX: &str = ".rollcall-";
const RANDOM: usize = 6;

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn what_is_damaged_or_too_long_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let (file, aside) = (folder.path().join("file"), folder.path().join("file.damaged"));
        let load = || load(folder.path(), "file", 4, |bytes| std::str::from_utf8(bytes).map(str::to_owned));
        assert_eq!(load().unwrap(), Loaded::Absent);
        std::fs::write(&file, "four").unwrap();
        assert_eq!(load().unwrap(), Loaded::Whole("four".to_owned()));
        let cases = [(b"fives".as_slice(), "it has more than 4 bytes"), (b"\xff", "invalid utf-8")];
        for (damaged, told) in cases {
            std::fs::write(&file, damaged).unwrap();
            let Loaded::Damaged { aside: found, reason } = load().unwrap() else { panic!("{told}") };
            assert!(reason.contains(told), "{reason}");
            assert_eq!((&found, std::fs::read(&found).unwrap()), (&aside, damaged.to_vec()));
            assert_eq!(load().unwrap(), Loaded::Absent);
        }
    }

    #[test]
    fn only_what_is_damaged_has_a_stand_in() {
        let damaged = || Loaded::Damaged { aside: "a".into(), reason: "b".to_owned() };
        let told = |aside: &Path, reason: &str| Ok(format!("{} {reason}", aside.display()));
        assert_eq!(Loaded::Absent.or_damaged(told).unwrap(), None);
        assert_eq!(Loaded::Whole("c".to_owned()).or_damaged(told).unwrap().unwrap(), "c");
        assert_eq!(damaged().or_damaged(told).unwrap().unwrap(), "a b");
        damaged().or_damaged(|_, _| Err(io::ErrorKind::Other.into())).unwrap_err();
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("device")).unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        for name in ["fifo", "device", "folder"] {
            let error = load(folder.path(), name, 4, |_| Ok::<_, String>(())).unwrap_err().to_string();
            assert!(error.ends_with(&format!("{name} is no regular file; remove it")), "{error}");
        }
    }

    #[test]
    fn what_was_being_written_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path();
        let names = || {
            let entries = std::fs::read_dir(state_dir).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let others =
            [".rollcall-", ".rollcall-abc1234", ".rollcall-notes.", ".tmpAbC123", "owner", "rollcall-AbC123"];
        for name in others {
            std::fs::write(state_dir.join(name), "").unwrap();
        }
        std::fs::create_dir(state_dir.join(".rollcall-folder")).unwrap();
        let before = names();
        // As a process that is killed in the middle leaves it.
        replace_by(state_dir, "view", |_| {
            let written = names().into_iter().find(|name| !before.contains(name)).unwrap();
            std::fs::copy(state_dir.join(written), state_dir.join(".rollcall-Copy12")).map(drop)
        })
        .unwrap();
        replace_by(state_dir, "other", |_| {
            assert_eq!(sweep(state_dir).unwrap(), 2, "{:?}", names());
            Err::<(), _>(io::ErrorKind::Other.into())
        })
        .unwrap_err();
        std::fs::remove_file(state_dir.join("view")).unwrap();
        assert_eq!(names(), before);
    }
}

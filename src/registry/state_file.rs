//! Files in the sidecar's state directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tracing::warn;

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

/// Puts the file `name` of `folder`, which is damaged, out of the way for somebody to look at, over one that was put there before; returns
/// where it is then.
pub(super) fn set_aside(folder: &Path, name: &str) -> PathBuf {
    let (path, aside) = (folder.join(name), folder.join(format!("{name}.damaged")));
    match fs_err::rename(&path, &aside) {
        Ok(()) => aside,
        Err(error) => {
            warn!(%error, "a damaged file cannot be set aside, and stays until it is written anew");
            path
        }
    }
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

fn is_half_written(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What the name of a file begins with that is being written; so many random letters and digits follow.
const PREFIX: &str = ".rollcall-";
const RANDOM: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

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

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

/// The same, with what `write` writes; returns what it returns.
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
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
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

//! Files in the sidecar's state directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

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

//! Who we are: the id that lets a sidecar replace what its own earlier process registered.

use std::io;
use std::path::Path;

use super::registration::OWNER_BYTES_MAX;
use super::state_file;

/// The file in the state directory that holds the id.
const FILE: &str = "owner";

/// The owner id kept in `state_dir`, made at the first call; without a directory a random one, for this process.
///
/// # Errors
///
/// When the file can be neither read nor written, or holds no id.
pub fn owner_id(state_dir: Option<&Path>) -> io::Result<String> {
    let Some(state_dir) = state_dir else { return Ok(random_id()) };
    let path = state_dir.join(FILE);
    match fs_err::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            let message = format!("{} holds no owner id; delete it to get a new one", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(state_dir),
        Err(error) => Err(error),
    }
}

/// An id that nobody else has: 128 random bits as hexadecimal digits.
pub fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn create(state_dir: &Path) -> io::Result<String> {
    let id = random_id();
    state_file::replace(state_dir, FILE, id.as_bytes())?;
    Ok(id)
}

fn parse(text: &str) -> Option<String> {
    let id = text.trim();
    let is_id = (1..=OWNER_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_keeps_the_id() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let id = owner_id(Some(&state_dir)).unwrap();
        assert_eq!(owner_id(Some(&state_dir)).unwrap(), id);
        assert_ne!(owner_id(None).unwrap(), id);
    }

    #[test]
    fn a_file_that_holds_no_id_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "\n").unwrap();
        let error = owner_id(Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("owner"), "{error}");
    }
}

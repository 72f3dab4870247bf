//! Who we are: the id that lets a sidecar replace what its own earlier process registered.

use std::io;
use std::path::Path;

use tracing::warn;

use super::registration::OWNER_BYTES_MAX;
use super::state_file;

/// The file in the state directory that holds the id.
pub(super) const FILE: &str = "owner";
/// An id, and blanks around it that somebody may have put there.
const FILE_BYTES_MAX: u64 = 1 << 10;

/// The owner id kept in `state_dir`, made at the first call; without a directory a random one, for this process. A file that holds no id
/// is set aside, and another id made.
///
/// # Errors
///
/// When the file can be neither read nor written.
pub fn owner_id(state_dir: Option<&Path>) -> io::Result<String> {
    let Some(state_dir) = state_dir else { return Ok(random_id()) };
    let kept = state_file::load(state_dir, FILE, FILE_BYTES_MAX, parse)?.or_damaged(|aside, reason| {
        let owner = create(state_dir)?;
        warn!(
            file = %aside.display(),
            reason,
            owner,
            "damaged, and not used: the sidecar has another identity now, and takes what it had registered before for somebody else's until \
             that session ends; wait for that"
        );
        Ok(owner)
    })?;
    kept.map_or_else(|| create(state_dir), Ok)
}

/// An id that nobody else has: 128 random bits as hexadecimal digits.
pub fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn create(state_dir: &Path) -> io::Result<String> {
    let id = random_id();
    keep(state_dir, &id)?;
    Ok(id)
}

/// Has `state_dir` keep `id`.
///
/// # Errors
///
/// When the file cannot be written.
pub(super) fn keep(state_dir: &Path, id: &str) -> io::Result<()> {
    state_file::replace(state_dir, FILE, id.as_bytes())
}

fn parse(bytes: &[u8]) -> Result<String, &'static str> {
    let id = std::str::from_utf8(bytes).unwrap_or_default().trim();
    let is_id = (1..=OWNER_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id { Ok(id.to_owned()) } else { Err("it holds no id") }
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
    fn a_file_that_holds_no_id_is_set_aside_and_another_id_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for damaged in [b"\n".as_slice(), b"an id", b"\xff\xff", &[b'x'; OWNER_BYTES_MAX + 1]] {
            std::fs::write(folder.path().join(FILE), damaged).unwrap();
            let id = owner_id(Some(folder.path())).unwrap();
            assert_eq!(owner_id(Some(folder.path())).unwrap(), id);
            assert_eq!(std::fs::read(folder.path().join("owner.damaged")).unwrap(), damaged);
        }
    }
}

//! Small files of text, replaced in one step.
//!
//! Source: `AtomicFileOutputStream.java` of Apache ZooKeeper.

use std::io::Read;

use super::StorageError;
use super::disk::{Disk, DiskFile, sync_folder};
use super::file_name::temporary;

/// Reads a file, `None` when there is none; more than [`TEXT_BYTES_MAX`] are not looked at.
pub(super) fn read<D: Disk>(disk: &D, name: &str) -> Result<Option<String>, StorageError> {
    if !disk.list()?.iter().any(|existing| existing == name) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.open(name)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Replaces a file: after a crash there is the old text or the new one, after this call the new one.
pub(super) fn replace<D: Disk>(disk: &mut D, name: &str, text: &str) -> Result<(), StorageError> {
    let temporary = temporary(name);
    let mut file = disk.create(&temporary)?;
    file.put_at(0, text.as_bytes())?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    sync_folder(disk)?;
    Ok(())
}

/// More than a number or the ids of all servers that there can be take, and no less than a path may.
const TEXT_BYTES_MAX: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn a_power_failure_anywhere_leaves_the_old_or_the_new_text() {
        for seed in 0..300 {
            let mut disk = SimDisk::new(seed);
            disk.put("number", b"9");
            disk.fail_power_after(seed % 6);
            let is_written = replace(&mut disk, "number", "10").is_ok();
            let found = read(&disk.power_on(), "number").unwrap();
            let is_new = found.as_deref() == Some("10");
            assert!(is_new || found.as_deref() == Some("9") && !is_written, "seed {seed}: {found:?}");
        }
    }
}

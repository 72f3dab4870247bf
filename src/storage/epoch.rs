//! The two epoch files: a decimal number each, without a line end, replaced in one step.
//!
//! Source: `QuorumPeer.java`, `AtomicFileOutputStream.java` of Apache ZooKeeper.

use std::io::Read;

use super::StorageError;
use super::disk::{Disk, DiskFile};
use super::file_name::temporary;
use crate::id::Epoch;

/// Reads an epoch, `None` when there is no file.
pub(super) fn read<D: Disk>(disk: &D, name: &str) -> Result<Option<Epoch>, StorageError> {
    if !disk.list()?.iter().any(|existing| existing == name) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    disk.open(name)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    match text.trim_end().parse() {
        Ok(epoch) => Ok(Some(Epoch(epoch))),
        Err(_) => Err(StorageError::BadEpoch { file: disk.path_of(name), text: text.into_owned() }),
    }
}

/// Replaces an epoch: after a crash there is the old number or the new one, after this call the new one.
pub(super) fn write<D: Disk>(disk: &mut D, name: &str, epoch: Epoch) -> Result<(), StorageError> {
    replace(disk, name, epoch.to_string().as_bytes())
}

/// Replaces a small file in one step, durably.
pub(super) fn replace<D: Disk>(disk: &mut D, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = temporary(name);
    let mut file = disk.create(&temporary)?;
    file.put_at(0, bytes)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_dir()?;
    Ok(())
}

/// More than any number of 32 bits takes.
const TEXT_BYTES_MAX: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::file_name::CURRENT_EPOCH;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn an_epoch_is_written_as_apache_writes_it() {
        let mut disk = SimDisk::new(0);
        assert_eq!(read(&disk, CURRENT_EPOCH).unwrap(), None);
        write(&mut disk, CURRENT_EPOCH, Epoch(12)).unwrap();
        assert_eq!(disk.bytes_of("currentEpoch").unwrap(), b"12");
        assert_eq!(read(&disk, CURRENT_EPOCH).unwrap(), Some(Epoch(12)));
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_file_named() {
        for text in ["", "-1", "x", "1 2", "4294967296"] {
            let disk = SimDisk::new(0);
            disk.put(CURRENT_EPOCH, text.as_bytes());
            let error = read(&disk, CURRENT_EPOCH).unwrap_err().to_string();
            assert!(error.contains("sim/currentEpoch"), "{error}");
        }
        let disk = SimDisk::new(0);
        disk.put(CURRENT_EPOCH, b"7\n");
        assert_eq!(read(&disk, CURRENT_EPOCH).unwrap(), Some(Epoch(7)), "as edited by hand");
    }

    #[test]
    fn a_power_failure_anywhere_leaves_the_old_or_the_new_number() {
        for seed in 0..300 {
            let mut disk = SimDisk::new(seed);
            disk.put(CURRENT_EPOCH, b"9");
            disk.fail_power_after(seed % 6);
            let is_written = write(&mut disk, CURRENT_EPOCH, Epoch(10)).is_ok();
            let found = read(&disk.power_on(), CURRENT_EPOCH).unwrap();
            let is_new = found == Some(Epoch(10));
            assert!(is_new || found == Some(Epoch(9)) && !is_written, "seed {seed}: {found:?}");
        }
    }
}

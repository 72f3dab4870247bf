//! The two epoch files: a decimal number each, without a line end.
//!
//! Source: `QuorumPeer.java` of Apache ZooKeeper.

use super::StorageError;
use super::disk::Disk;
use super::text_file;
use crate::id::Epoch;

/// Reads an epoch, `None` when there is no file.
pub(super) fn read<D: Disk>(disk: &D, name: &str) -> Result<Option<Epoch>, StorageError> {
    let Some(text) = text_file::read(disk, name)? else { return Ok(None) };
    match text.trim_end().parse() {
        Ok(epoch) if Epoch(epoch).next().is_none() => {
            Err(StorageError::EpochTooLate { place: disk.path_of(name), epoch: Epoch(epoch) })
        }
        Ok(epoch) => Ok(Some(Epoch(epoch))),
        Err(_) => Err(StorageError::BadEpoch { file: disk.path_of(name), text }),
    }
}

/// Replaces an epoch, durably and in one step.
pub(super) fn write<D: Disk>(disk: &mut D, name: &str, epoch: Epoch) -> Result<(), StorageError> {
    text_file::replace(disk, name, &epoch.to_string())
}

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
        for text in ["1073741824", "2147483646", "4294967295"] {
            let disk = SimDisk::new(0);
            disk.put(CURRENT_EPOCH, text.as_bytes());
            let error = read(&disk, CURRENT_EPOCH).unwrap_err().to_string();
            assert!(error.contains(&format!("sim/currentEpoch names the epoch {text}")), "{error}");
            assert!(error.contains("bring back"), "{error}");
        }
        let disk = SimDisk::new(0);
        disk.put(CURRENT_EPOCH, b"7\n");
        assert_eq!(read(&disk, CURRENT_EPOCH).unwrap(), Some(Epoch(7)), "as edited by hand");
    }
}

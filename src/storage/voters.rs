//! Who votes, recorded with the data: a member that starts with other voters than its data were written with belongs to
//! another ensemble.
//!
//! Text: the voters' ids, separated by spaces, and a line end. Apache ZooKeeper leaves the file alone.

use std::collections::BTreeSet;
use std::io::Read;

use super::disk::Disk;
use super::file_name::VOTERS;
use super::{Storage, StorageError, epoch};
use crate::id::ServerId;

impl<D: Disk> Storage<D> {
    /// The voters that were last recorded.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub fn recorded_voters(&self) -> Result<Option<BTreeSet<ServerId>>, StorageError> {
        if !self.disk.list()?.iter().any(|name| name == VOTERS) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.disk.open(VOTERS)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let ids: Option<BTreeSet<_>> =
            text.split_whitespace().map(|id| id.parse().ok().and_then(ServerId::new)).collect();
        match ids.filter(|ids| !ids.is_empty()) {
            Some(ids) => Ok(Some(ids)),
            None => {
                let file = self.disk.path_of(VOTERS);
                Err(StorageError::BadVoters { file, text: text.into_owned() })
            }
        }
    }

    /// Records the voters, durably.
    ///
    /// # Errors
    ///
    /// As [`Storage::append`].
    pub fn record_voters(&mut self, voters: &BTreeSet<ServerId>) -> Result<(), StorageError> {
        let ids: Vec<_> = voters.iter().map(ToString::to_string).collect();
        let text = format!("{}\n", ids.join(" "));
        self.attempt(|storage| epoch::replace(&mut storage.disk, VOTERS, text.as_bytes()))
    }
}

/// More than all ids that there are take.
const TEXT_BYTES_MAX: u64 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn voters_are_found_again_and_garbage_is_refused() {
        let disk = SimDisk::new(0);
        let (mut storage, _) = Storage::open(disk.clone()).unwrap();
        assert_eq!(storage.recorded_voters().unwrap(), None);
        let voters: BTreeSet<_> = [1, 2, 254].into_iter().filter_map(ServerId::new).collect();
        storage.record_voters(&voters).unwrap();
        assert_eq!(disk.bytes_of("voters").unwrap(), b"1 2 254\n");
        let (storage, _) = Storage::open(disk.power_on()).unwrap();
        assert_eq!(storage.recorded_voters().unwrap(), Some(voters));
        for text in ["", "0", "1 255", "1,2", "one"] {
            let disk = SimDisk::new(0);
            let (storage, _) = Storage::open(disk.clone()).unwrap();
            disk.put("voters", text.as_bytes());
            let error = storage.recorded_voters().unwrap_err().to_string();
            assert!(error.contains("sim/voters"), "{error}");
        }
    }
}

//! The file that names the members with a vote: their ids in decimal, with spaces between, in one line.
//!
//! It is ours alone: Apache ZooKeeper has no file of that name and leaves it be.

use std::collections::BTreeSet;

use super::StorageError;
use super::disk::Disk;
use super::file_name::VOTERS;
use super::text_file;
use crate::id::ServerId;

/// Reads the voters, `None` when there is no file.
pub(super) fn read<D: Disk>(disk: &D) -> Result<Option<BTreeSet<ServerId>>, StorageError> {
    let Some(text) = text_file::read(disk, VOTERS)? else { return Ok(None) };
    match parse(&text) {
        Some(voters) => Ok(Some(voters)),
        None => Err(StorageError::BadVoters { file: disk.path_of(VOTERS), text }),
    }
}

/// Replaces the voters, durably and in one step.
pub(super) fn write<D: Disk>(disk: &mut D, voters: &BTreeSet<ServerId>) -> Result<(), StorageError> {
    let ids: Vec<_> = voters.iter().map(ToString::to_string).collect();
    text_file::replace(disk, VOTERS, &format!("{}\n", ids.join(" ")))
}

/// Some server at least, and none twice.
fn parse(text: &str) -> Option<BTreeSet<ServerId>> {
    let mut voters = BTreeSet::new();
    for id in text.split_ascii_whitespace() {
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let id = id.parse().ok().filter(|_| is_number).and_then(ServerId::new)?;
        if !voters.insert(id) {
            return None;
        }
    }
    (!voters.is_empty()).then_some(voters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn voters_are_one_line_and_read_back() {
        let mut disk = SimDisk::new(0);
        assert_eq!(read(&disk).unwrap(), None);
        let voters: BTreeSet<_> = [3, 1, 254].into_iter().filter_map(ServerId::new).collect();
        write(&mut disk, &voters).unwrap();
        assert_eq!(disk.power_on().bytes_of("voters").unwrap(), b"1 3 254\n");
        assert_eq!(read(&disk.power_on()).unwrap(), Some(voters));
    }

    #[test]
    fn what_is_no_list_of_ids_is_refused_with_the_file_named() {
        for text in ["", "\n", "0", "255", "1 1", "1,2", "1 +2", "one"] {
            let disk = SimDisk::new(0);
            disk.put(VOTERS, text.as_bytes());
            let error = read(&disk).unwrap_err().to_string();
            assert!(error.contains("sim/voters") && error.contains(r#""1 2 3""#), "{error}");
        }
    }
}

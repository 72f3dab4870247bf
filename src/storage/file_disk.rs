//! The disk that is a folder of the file system.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::FileExt;
use rustix::fs::FlockOperation;

use super::disk::{Disk, DiskFile};
use super::error::StorageError;

/// The folder `version-2` of a data directory, held by one process at a time.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    /// Open for `fsync`, and locked as long as it is open.
    handle: fs::File,
}

impl FileDisk {
    /// What Apache ZooKeeper calls the folder below the data directory.
    pub const FOLDER: &'static str = "version-2";

    /// Opens the data directory, creates what is missing (durably, up to the first folder that was there)
    /// and locks it.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] when another process holds the folder; [`StorageError::NoFolder`] when it cannot be made,
    /// [`StorageError::Io`] when it cannot be read or locked.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let folder = data_dir.join(Self::FOLDER);
        create_durably(&folder).map_err(|error| {
            // Nothing was written yet.
            let is_about_the_place =
                !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull);
            if is_about_the_place { StorageError::NoFolder(error) } else { error.into() }
        })?;
        let handle = fs::File::open(&folder)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder, handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StorageError::InUse { folder: folder.display().to_string() })
            }
            Err(errno) => {
                let source = io::Error::from(errno);
                Err(io::Error::new(source.kind(), format!("cannot lock {}: {source}", folder.display()))
                    .into())
            }
        }
    }
}

impl Disk for FileDisk {
    type File = fs::File;
    type Reader = fs::File;

    fn path_of(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                // A name that is no text is none of ours and none of Apache's.
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::File::open(self.folder.join(name))
    }

    fn create(&mut self, name: &str) -> io::Result<fs::File> {
        fs::File::create(self.folder.join(name))
    }

    fn edit(&mut self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().write(true).open(self.folder.join(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl DiskFile for fs::File {
    fn put_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Data and the length; time stamps may come later.
        self.sync_data()
    }
}

/// Creates a folder with its missing ancestors; each new name is synced in the folder that holds it.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    create_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        outcome => outcome?,
    }
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn missing_folders_are_made_and_files_come_and_go() {
        let temp = tempfile::tempdir().unwrap();
        let mut disk = FileDisk::open(&temp.path().join("some/data")).unwrap();
        let mut file = disk.create("a").unwrap();
        file.put_at(0, b"hello").unwrap();
        file.set_len(7).unwrap();
        file.sync().unwrap();
        disk.rename("a", "b").unwrap();
        disk.edit("b").unwrap().put_at(6, b"!").unwrap();
        disk.sync_dir().unwrap();

        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut bytes = Vec::new();
        disk.open("b").unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"hello\0!");
        assert!(disk.path_of("b").ends_with("some/data/version-2/b"));

        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn two_members_never_share_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let first = FileDisk::open(temp.path()).unwrap();
        let error = FileDisk::open(temp.path()).unwrap_err();
        assert!(matches!(error, StorageError::InUse { .. }), "{error}");
        drop(first);
        FileDisk::open(temp.path()).unwrap();
    }

    #[test]
    fn errors_name_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(temp.path()).unwrap();
        assert!(disk.open("log.5").unwrap_err().to_string().contains("version-2/log.5"));
    }
}

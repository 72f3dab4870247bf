//! The disk that is a folder of the file system.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::FileExt;
use rustix::fs::FlockOperation;

use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::file_name::{FileName, LOG_FOLDER, LOG_PREFIX};
use super::text_file;

/// The folder `version-2` of a data directory, held by one process at a time; and that of another directory for the logs, if
/// they have one of their own.
#[derive(Debug)]
pub struct FileDisk {
    folder: Folder,
    log_folder: Option<Folder>,
}

/// A folder that this process alone has.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Open for `fsync`, and locked as long as it is open.
    handle: fs::File,
}

impl FileDisk {
    /// What Apache ZooKeeper calls the folder below the data directory.
    pub const FOLDER: &'static str = "version-2";

    /// Opens the data directory, and the one for logs if there is one, creates what is missing (durably, up to the first folder that
    /// was there) and locks it.
    ///
    /// Where the logs lie is noted beside the snapshots: a member that looks for them elsewhere would believe that there are none, and
    /// lose what was acknowledged.
    ///
    /// # Errors
    ///
    /// [`StorageError::InUse`] when another process holds a folder; [`StorageError::NoFolder`] when one cannot be made,
    /// [`StorageError::LogsElsewhere`] when the logs are known to lie somewhere else, [`StorageError::Misplaced`] when logs and snapshots
    /// are not where they should be, [`StorageError::Io`] when something cannot be read or locked.
    pub fn open(data_dir: &Path, log_dir: Option<&Path>) -> Result<Self, StorageError> {
        let folder = Folder::open(data_dir)?;
        let is_same = |log_dir: &&Path| fs::canonicalize(log_dir).ok() == fs::canonicalize(data_dir).ok();
        let log_folder = log_dir.filter(|log_dir| !is_same(log_dir)).map(Folder::open).transpose()?;
        let mut disk = Self { folder, log_folder };
        disk.check_places()?;
        disk.note_log_folder()?;
        Ok(disk)
    }

    /// As Apache's: what is found where nobody looks for it was put there under other settings.
    fn check_places(&self) -> Result<(), StorageError> {
        let Some(log_folder) = &self.log_folder else { return Ok(()) };
        let misplaced = |folder: &Folder, other: &Folder, is_misplaced: fn(&FileName) -> bool| {
            let name = folder.list()?.into_iter().find(|name| is_misplaced(&FileName::parse(name)));
            match name {
                None => Ok(()),
                Some(name) => Err(StorageError::Misplaced {
                    file: folder.path.join(name).display().to_string(),
                    other: other.path.display().to_string(),
                }),
            }
        };
        misplaced(&self.folder, log_folder, |name| matches!(name, FileName::Log(_)))?;
        misplaced(log_folder, &self.folder, |name| matches!(name, FileName::Snapshot(..)))
    }

    fn note_log_folder(&mut self) -> Result<(), StorageError> {
        let noted = text_file::read(self, LOG_FOLDER)?;
        let log_folder = self.log_folder.as_ref().map(|folder| fs::canonicalize(&folder.path)).transpose()?;
        let log_folder = log_folder.map(|path| path.display().to_string());
        match (noted, log_folder) {
            (None, Some(path)) => text_file::replace(self, LOG_FOLDER, &path),
            (Some(noted), found) if found.as_deref() != Some(noted.as_str()) => {
                Err(StorageError::LogsElsewhere { folder: noted, note: self.path_of(LOG_FOLDER) })
            }
            (None, None) | (Some(_), _) => Ok(()),
        }
    }

    /// Where a file of this name lies.
    fn folder_of(&self, name: &str) -> &Folder {
        let log_folder = self.log_folder.as_ref().filter(|_| name.starts_with(LOG_PREFIX));
        log_folder.unwrap_or(&self.folder)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder_of(name).path.join(name)
    }
}

impl Folder {
    fn open(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(FileDisk::FOLDER);
        create_durably(&path).map_err(|error| {
            // Nothing was written yet.
            let is_about_the_place =
                !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::StorageFull);
            if is_about_the_place { StorageError::NoFolder(error) } else { error.into() }
        })?;
        let handle = fs::File::open(&path)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StorageError::InUse { folder: path.display().to_string() })
            }
            Err(errno) => {
                let source = io::Error::from(errno);
                Err(io::Error::new(source.kind(), format!("cannot lock {}: {source}", path.display())).into())
            }
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                // A name that is no text is none of ours and none of Apache's.
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }
}

impl Disk for FileDisk {
    type File = fs::File;
    type Reader = fs::File;

    fn path_of(&self, name: &str) -> String {
        self.place(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.folder.list()?;
        if let Some(log_folder) = &self.log_folder {
            names.extend(log_folder.list()?.into_iter().filter(|name| name.starts_with(LOG_PREFIX)));
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::File::open(self.place(name))
    }

    fn create(&mut self, name: &str) -> io::Result<fs::File> {
        fs::File::create(self.place(name))
    }

    fn edit(&mut self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().write(true).open(self.place(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.place(from), self.place(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.place(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        if let Some(log_folder) = &self.log_folder {
            log_folder.handle.sync_all()?;
        }
        self.folder.handle.sync_all()
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
        let mut disk = FileDisk::open(&temp.path().join("some/data"), None).unwrap();
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
    fn logs_have_a_folder_of_their_own_and_are_looked_for_nowhere_else() {
        let temp = tempfile::tempdir().unwrap();
        let (data, logs, others) =
            (temp.path().join("data"), temp.path().join("logs"), temp.path().join("others"));
        let mut disk = FileDisk::open(&data, Some(&logs)).unwrap();
        for name in ["log.1", "snapshot.0", "currentEpoch"] {
            disk.create(name).unwrap().put_at(0, b"x").unwrap();
        }
        disk.sync_dir().unwrap();
        let mut names = disk.list().unwrap();
        names.sort();
        assert_eq!(names, ["currentEpoch", "log.1", "logFolder", "snapshot.0"]);
        assert!(logs.join("version-2/log.1").is_file() && data.join("version-2/snapshot.0").is_file());
        assert!(disk.path_of("log.1").ends_with("logs/version-2/log.1"));
        disk.open("log.1").unwrap();
        drop(disk);

        for elsewhere in [None, Some(others.as_path()), Some(data.as_path())] {
            let error = FileDisk::open(&data, elsewhere).unwrap_err();
            assert!(matches!(error, StorageError::LogsElsewhere { .. }), "{error}");
            assert!(error.to_string().contains("logs/version-2"), "{error}");
        }
        FileDisk::open(&data, Some(&temp.path().join("data/../logs"))).unwrap();
    }

    #[test]
    fn what_lies_in_the_wrong_folder_is_not_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        let (data, logs) = (temp.path().join("data"), temp.path().join("logs"));
        FileDisk::open(&data, None).unwrap().create("log.1").unwrap();
        let error = FileDisk::open(&data, Some(&logs)).unwrap_err().to_string();
        assert!(error.contains("data/version-2/log.1 does not belong there"), "{error}");
        fs::rename(data.join("version-2/log.1"), logs.join("version-2/log.1")).unwrap();
        FileDisk::open(&logs, None).unwrap().create("snapshot.0").unwrap();
        let error = FileDisk::open(&data, Some(&logs)).unwrap_err().to_string();
        assert!(error.contains("logs/version-2/snapshot.0 does not belong there"), "{error}");
        fs::remove_file(logs.join("version-2/snapshot.0")).unwrap();
        FileDisk::open(&data, Some(&logs)).unwrap();
    }

    #[test]
    fn two_members_never_share_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let first = FileDisk::open(temp.path(), None).unwrap();
        let error = FileDisk::open(temp.path(), None).unwrap_err();
        assert!(matches!(error, StorageError::InUse { .. }), "{error}");
        let error = FileDisk::open(&temp.path().join("other"), Some(temp.path())).unwrap_err();
        assert!(matches!(error, StorageError::InUse { .. }), "{error}");
        drop(first);
        FileDisk::open(temp.path(), None).unwrap();
    }

    #[test]
    fn errors_name_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(temp.path(), None).unwrap();
        assert!(disk.open("log.5").unwrap_err().to_string().contains("version-2/log.5"));
    }
}

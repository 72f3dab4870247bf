//! What storage needs of a disk: one flat folder of files, in which nothing lasts before it was synced.

use std::{fmt, io};

use crate::zab::mutation::{self, Mutation};

/// A folder of files. Two things are durable on their own terms: a file's bytes once [`DiskFile::sync`]
/// returned, and the names in the folder once [`Disk::sync_dir`] returned. A power loss may take any part of
/// the rest.
///
/// Errors carry the path they belong to.
pub trait Disk: fmt::Debug + Send + 'static {
    /// A file that is open for writing.
    type File: DiskFile;
    /// A file that is open for reading.
    type Reader: io::Read + io::Seek + Send;

    /// The path of a file as an operator would type it, for messages.
    fn path_of(&self, name: &str) -> String;

    /// The names of all files in the folder, in any order.
    ///
    /// # Errors
    ///
    /// What the system says; as for every call below.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn open(&self, name: &str) -> io::Result<Self::Reader>;

    /// Creates a file for writing, empty even when there was one of that name.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for writing and keeps what is in it.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn edit(&mut self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing any of the new name in one step.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals so far durable.
    ///
    /// # Errors
    ///
    /// As [`Disk::list`].
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// A file that is open for writing.
pub trait DiskFile: fmt::Debug + Send + 'static {
    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    ///
    /// What the system says; then any part may have been written. As for every call below.
    fn put_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros that take no room yet.
    ///
    /// # Errors
    ///
    /// As [`DiskFile::put_at`].
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable (not its name).
    ///
    /// # Errors
    ///
    /// As [`DiskFile::put_at`]; then nothing is known of anything written since the sync before, and trying
    /// again proves nothing: the kernel may have dropped the bytes.
    fn sync(&mut self) -> io::Result<()>;
}

/// Makes all creations, renames and removals so far durable.
pub(super) fn sync_folder(disk: &mut impl Disk) -> io::Result<()> {
    if mutation::is_on(Mutation::M24) { Ok(()) } else { disk.sync_dir() }
}

//! Snapshot files: header, body, seals.
//!
//! ```text
//! header: int magic "ZKSN" · int version 2 · long dbid -1
//! body:   sessions, ACL table, znodes, end mark            (coded by `tree`)
//! seal:   long Adler-32 of every byte so far · string "/"
//! digest: long zxid · int version 2 · long digest          (since 3.6)
//! seal
//! [long last processed zxid · seal]                        (since 3.9; read, not written)
//! ```
//!
//! The checksum runs over the whole file, earlier seals included. A snapshot is written under a temporary
//! name, synced, renamed, and the folder is synced: a file with its final name is complete.
//!
//! Source: `FileSnap.java`, `SnapStream.java` of Apache ZooKeeper.

use std::io::{self, Read, Seek, SeekFrom};

use simd_adler32::Adler32;

use super::StorageError;
use super::disk::{Disk, DiskFile, sync_folder};
use super::file_name::{Compression, snapshot_name, temporary};
use crate::codec::{CodecError, Reader, WriteJute};
use crate::id::Zxid;
use crate::tree::Tree;

/// A snapshot that this process has read or written, so that it is known to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownSnapshot {
    /// The last txn that it holds wholly.
    pub(super) zxid: Zxid,
    /// The last txn that it may hold parts of.
    pub(super) fuzzy_to: Zxid,
    /// The size of its file.
    pub(super) bytes: u64,
}

/// A snapshot that is being written.
pub(super) struct SnapshotWriter<F> {
    file: F,
    zxid: Zxid,
    checksum: Adler32,
    position: u64,
    synced: u64,
}

impl<F> std::fmt::Debug for SnapshotWriter<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("zxid", &self.zxid)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<F: DiskFile> SnapshotWriter<F> {
    /// Starts the snapshot that holds all txns up to `zxid`.
    pub(super) fn create<D: Disk<File = F>>(disk: &mut D, zxid: Zxid) -> Result<Self, StorageError> {
        let file = disk.create(&temporary(&snapshot_name(zxid)))?;
        let mut writer = Self { file, zxid, checksum: Adler32::new(), position: 0, synced: 0 };
        writer.write(&HEADER)?;
        Ok(writer)
    }

    /// Adds bytes of the body.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.checksum.write(bytes);
        self.file.put_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        // In between, so that the last sync does not keep the log waiting for the whole file.
        if self.position - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.position;
        }
        Ok(())
    }

    /// The snapshot's last txn.
    pub(super) const fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// Gives the snapshot up.
    pub(super) fn discard<D: Disk<File = F>>(self, disk: &mut D) -> Result<(), StorageError> {
        Ok(disk.remove(&temporary(&snapshot_name(self.zxid)))?)
    }

    /// Seals the file and gives it its name.
    pub(super) fn finish<D: Disk<File = F>>(
        self,
        disk: &mut D,
        digest: (Zxid, u64),
    ) -> Result<KnownSnapshot, StorageError> {
        let name = snapshot_name(self.zxid);
        self.finish_as(disk, digest, &name)
    }

    /// As [`SnapshotWriter::finish`], with a name of its own.
    pub(super) fn finish_as<D: Disk<File = F>>(
        mut self,
        disk: &mut D,
        digest: (Zxid, u64),
        name: &str,
    ) -> Result<KnownSnapshot, StorageError> {
        self.seal()?;
        let mut trailer = Vec::with_capacity(DIGEST_BYTES);
        trailer.put_long(digest.0.raw());
        trailer.put_int(DIGEST_VERSION);
        trailer.put_long(digest.1.cast_signed());
        self.write(&trailer)?;
        self.seal()?;
        self.file.sync()?;
        disk.rename(&temporary(&snapshot_name(self.zxid)), name)?;
        sync_folder(disk)?;
        Ok(KnownSnapshot { zxid: self.zxid, fuzzy_to: self.zxid.max(digest.0), bytes: self.position })
    }

    fn seal(&mut self) -> Result<(), StorageError> {
        let mut seal = Vec::with_capacity(SEAL_BYTES);
        seal.put_long(i64::from(self.checksum.finish()));
        seal.put_text(SEAL_MARK);
        self.write(&seal)
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotDamage {
    #[error("it starts with something else than a snapshot's header")]
    Header,
    #[error("the body is broken: {0}")]
    Body(String),
    #[error("the {0} is broken: {1}")]
    Trailer(&'static str, CodecError),
    #[error("the {0} does not fit the bytes before it: the checksum is {2:#x}, {1:#x} is written there")]
    Checksum(&'static str, i64, u32),
    #[error("the {0} does not end as it should")]
    Mark(&'static str),
    #[error("the digest has the unknown version {0}")]
    DigestVersion(i32),
}

/// Refuses a compressed snapshot, with a remedy.
pub(super) fn refuse_compressed<D: Disk>(
    disk: &D,
    name: &str,
    compression: Compression,
) -> Result<(), StorageError> {
    let remedy = match compression {
        Compression::None => return Ok(()),
        Compression::Gzip => {
            "unpack it with gunzip, or let Apache ZooKeeper write one more snapshot with \
             snapshot.compression.method unset"
        }
        Compression::Snappy => {
            "let Apache ZooKeeper write one more snapshot with snapshot.compression.method unset"
        }
    };
    Err(StorageError::Compressed { file: disk.path_of(name), remedy })
}

/// As [`read`], for a file that must be named as a snapshot.
pub(super) fn read_named<D: Disk>(disk: &D, name: &str, zxid: Zxid) -> Result<(Tree, KnownSnapshot), String> {
    if name != snapshot_name(zxid) {
        return Err("its name is not spelled as a snapshot's".to_owned());
    }
    read(disk, name, zxid)
}

/// Reads a snapshot from the disk, and checks all its seals; the reason when it cannot be used.
pub(super) fn read<D: Disk>(disk: &D, name: &str, zxid: Zxid) -> Result<(Tree, KnownSnapshot), String> {
    let mut bytes = Vec::new();
    disk.open(name).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    let (tree, fuzzy_to) = decode(&bytes, zxid).map_err(|damage| damage.to_string())?;
    Ok((tree, KnownSnapshot { zxid, fuzzy_to, bytes: bytes.len() as u64 }))
}

/// Reads a snapshot that is named for `zxid`, and checks all its seals. Returns with it the last txn that it may
/// hold parts of, as far as it tells.
fn decode(bytes: &[u8], zxid: Zxid) -> Result<(Tree, Zxid), SnapshotDamage> {
    // The dbid is not looked at, as in Apache.
    if !bytes.starts_with(&HEADER[..8]) || bytes.len() < HEADER.len() {
        return Err(SnapshotDamage::Header);
    }
    let mut reader = Reader::new(&bytes[HEADER.len()..]);
    let tree =
        Tree::decode_snapshot(&mut reader, zxid).map_err(|error| SnapshotDamage::Body(error.to_string()))?;
    check_seal(bytes, &mut reader, "seal after the body")?;
    // Files of 3.5 end here; those of 3.6 to 3.8 after the digest.
    let mut fuzzy_to = zxid;
    if !reader.is_empty() {
        fuzzy_to = fuzzy_to.max(check_digest(&mut reader)?);
        check_seal(bytes, &mut reader, "seal after the digest")?;
    }
    if !reader.is_empty() {
        let broken = |error| SnapshotDamage::Trailer("last processed zxid", error);
        reader.long("last processed zxid").map_err(broken)?;
        check_seal(bytes, &mut reader, "seal after the last processed zxid")?;
    }
    Ok((tree, fuzzy_to))
}

/// Returns the digest's zxid. It belongs to a txn that may lie after the snapshot's own, so it says nothing about
/// the tree as it was just read; txns carry digests of their own.
fn check_digest(reader: &mut Reader<'_>) -> Result<Zxid, SnapshotDamage> {
    let broken = |error| SnapshotDamage::Trailer("digest", error);
    let zxid = reader.long("digest zxid").map_err(broken)?;
    let version = reader.int("digest version").map_err(broken)?;
    match version {
        // As text, in the first releases that had digests.
        ..DIGEST_VERSION => reader.text("digest").map(drop).map_err(broken)?,
        DIGEST_VERSION => reader.long("digest").map(drop).map_err(broken)?,
        _ => return Err(SnapshotDamage::DigestVersion(version)),
    }
    Ok(Zxid::from_raw(zxid))
}

fn check_seal(bytes: &[u8], reader: &mut Reader<'_>, which: &'static str) -> Result<(), SnapshotDamage> {
    let sealed = &bytes[..bytes.len() - reader.remaining().len()];
    let broken = |error| SnapshotDamage::Trailer(which, error);
    let written = reader.long("checksum").map_err(broken)?;
    let mark = reader.text("mark").map_err(broken)?;
    if mark != SEAL_MARK {
        return Err(SnapshotDamage::Mark(which));
    }
    let checksum = simd_adler32::adler32(&sealed);
    if written == i64::from(checksum) {
        Ok(())
    } else {
        Err(SnapshotDamage::Checksum(which, written, checksum))
    }
}

/// Whether a file looks complete by its first and last bytes alone; enough to choose what to keep, not to
/// trust it.
pub(super) fn looks_complete(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let len = file.seek(SeekFrom::End(0))?;
    if len < (HEADER.len() + SEAL_BYTES) as u64 {
        return Ok(false);
    }
    let (mut head, mut tail) = ([0; 8], [0; SEAL_END.len()]);
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut head)?;
    file.seek(SeekFrom::Start(len - tail.len() as u64))?;
    file.read_exact(&mut tail)?;
    Ok(HEADER.starts_with(&head) && tail == SEAL_END)
}

const HEADER: [u8; 16] = *b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff";
const SEAL_MARK: &str = "/";
/// The mark as it is written.
const SEAL_END: [u8; 5] = *b"\0\0\0\x01/";
const SEAL_BYTES: usize = 13;
const DIGEST_BYTES: usize = 20;
const DIGEST_VERSION: i32 = 2;
/// A sync's worth of snapshot.
const SYNC_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Epoch, SessionId, Xid};
    use crate::storage::sim_disk::SimDisk;
    use crate::tree::{CreateTxn, Txn, TxnHeader, TxnOp};
    use crate::znode::{Acl, ZnodePath};

    proptest! {
        #[test]
        fn a_snapshot_reads_back_as_the_tree(
            names in prop::collection::btree_set("[a-zü]{1,5}", 0..20), data: Option<Vec<u8>>, slice in 1..9_usize,
        ) {
            let tree = tree_of(names.iter().map(String::as_str), data.as_deref());
            let bytes = written(&tree, slice);
            prop_assert_eq!(decode(&bytes, tree.last_zxid()).unwrap().0, tree);
        }

        #[test]
        fn any_change_of_any_byte_is_noticed(at: prop::sample::Index, change in 1_u8..) {
            let tree = tree_of(["a", "b", "c"], Some(b"data"));
            let mut bytes = written(&tree, 100);
            // The dbid in the header is covered by the seals like all the rest.
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(decode(&bytes, tree.last_zxid()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>, has_header: bool) {
            let mut file = if has_header { HEADER.to_vec() } else { Vec::new() };
            file.extend(bytes);
            prop_assert!(decode(&file, Zxid::ZERO).is_err());
        }
    }

    #[test]
    fn files_of_all_versions_are_read() {
        let tree = tree_of(["a"], None);
        let of_3_8 = written(&tree, 100);
        let of_3_5 = &of_3_8[..of_3_8.len() - DIGEST_BYTES - SEAL_BYTES];
        assert_eq!(decode(of_3_5, tree.last_zxid()).unwrap().0, tree);

        let mut of_3_9 = of_3_8.clone();
        of_3_9.put_long(tree.last_zxid().raw());
        let checksum = simd_adler32::adler32(&of_3_9.as_slice());
        of_3_9.put_long(checksum.into());
        of_3_9.put_text("/");
        assert_eq!(decode(&of_3_9, tree.last_zxid()).unwrap().0, tree);

        for cut in 0..of_3_9.len() {
            let is_whole = [of_3_5.len(), of_3_8.len()].contains(&cut);
            assert_eq!(decode(&of_3_9[..cut], tree.last_zxid()).is_ok(), is_whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_unfinished_snapshot_does_not_look_complete() {
        let bytes = written(&tree_of(["a"], None), 100);
        let looks_complete = |bytes: &[u8]| looks_complete(&mut io::Cursor::new(bytes)).unwrap();
        assert!(looks_complete(&bytes));
        assert!(!looks_complete(&bytes[..bytes.len() - 1]));
        assert!(!looks_complete(&bytes[..10]));
        assert!(!looks_complete(b""));
    }

    fn written(tree: &Tree, slice: usize) -> Vec<u8> {
        let mut disk = SimDisk::new(0);
        let mut writer = SnapshotWriter::create(&mut disk, tree.last_zxid()).unwrap();
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, slice, &mut body) {
            writer.write(&std::mem::take(&mut body)).unwrap();
        }
        writer.write(&body).unwrap();
        writer.finish(&mut disk, (tree.last_zxid(), tree.digest())).unwrap();
        disk.bytes_of(&snapshot_name(tree.last_zxid())).unwrap()
    }

    fn tree_of<'a>(names: impl IntoIterator<Item = &'a str>, data: Option<&[u8]>) -> Tree {
        let mut tree = Tree::new();
        for (name, counter) in names.into_iter().zip(1..) {
            let header = TxnHeader {
                session: SessionId(1),
                cxid: Xid(1),
                zxid: Zxid::new(Epoch(1), counter),
                time_ms: 1_700_000_000_000,
            };
            let op = TxnOp::Create2(CreateTxn {
                path: ZnodePath::parse(&format!("/{name}")).unwrap(),
                data: data.map(bytes::Bytes::copy_from_slice),
                acl: vec![Acl::open()],
                ephemeral: false,
                parent_cversion: CreateTxn::PARENT_CVERSION_NEXT,
            });
            tree.apply(&Txn { header, op, digest: None });
        }
        tree
    }
}

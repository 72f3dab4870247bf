//! A data folder that Apache ZooKeeper 3.8.0 wrote, standalone, killed under a client that was still connected.
//!
//! `expected.json` is what that client read from Apache just before: data and stat of every znode. The logs
//! were shortened to 64 bytes of their padding.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use rollcall::id::{Epoch, SessionId, Xid, Zxid};
use rollcall::storage::{FileDisk, Recovered, Storage, StorageError};
use rollcall::tree::{Tree, Txn, TxnHeader, TxnOp};
use rollcall::zab::Entry;
use rollcall::znode::{Acl, Stat};

#[test]
fn every_znode_apache_has_shown_is_recovered_with_its_stat() {
    let folder = copy().unwrap();
    let (_, recovered) = open(folder.path()).unwrap();

    assert_eq!((recovered.accepted_epoch, recovered.current_epoch), (None, None), "standalone has no epochs");
    assert_eq!((&recovered.torn_tail, recovered.is_new), (&None, false));
    assert_eq!(recovered.tree.last_zxid(), Zxid::from_raw(0x19), "the newest snapshot");
    let tree = recovered.into_whole_tree();
    assert_shows(&tree, expected().unwrap());
    let sessions: Vec<_> = tree.sessions().iter().collect();
    assert_eq!(sessions, [(SessionId(0x0100_001e_ead3_0000), 10_000)], "one was closed, one was not");
    let ephemerals: Vec<_> = tree.ephemerals(sessions[0].0).map(AsRef::as_ref).collect::<Vec<&str>>();
    assert_eq!(ephemerals, ["/app/ephemeral"]);
    let secret = tree.node("/app/secret").unwrap();
    assert_eq!(secret.acl()[0].principal.scheme, "digest");
    assert_ne!(secret.acl(), [Acl::open()]);
}

#[test]
fn the_digest_apache_put_into_its_last_txn_is_that_of_the_tree() {
    let folder = copy().unwrap();
    let (_, recovered) = open(folder.path()).unwrap();
    let log = fs::read(file(folder.path(), "log.1a")).unwrap();
    let end = log.iter().rposition(|byte| *byte == b'B').unwrap();
    let digest = u64::from_be_bytes(log[end - 8..end].try_into().unwrap());
    assert_eq!(recovered.into_whole_tree().digest(), digest);
}

#[test]
fn without_its_newest_snapshot_the_logs_make_up_for_it() {
    let folder = copy().unwrap();
    let newest = file(folder.path(), "snapshot.19");
    let mut bytes = fs::read(&newest).unwrap();
    bytes[700] ^= 1;
    fs::write(&newest, bytes).unwrap();

    let (_, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.unreadable_snapshots.len(), 1);
    assert!(
        recovered.unreadable_snapshots[0].contains("snapshot.19"),
        "{:?}",
        recovered.unreadable_snapshots
    );
    assert_shows(&recovered.into_whole_tree(), expected().unwrap());
}

#[test]
fn no_snapshot_that_can_be_read_and_no_log_from_there_on_is_refused() {
    let folder = copy().unwrap();
    fs::remove_file(file(folder.path(), "snapshot.0")).unwrap();
    fs::write(file(folder.path(), "snapshot.19"), b"ZKSN").unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, StorageError::NoUsableSnapshot { .. }), "{error}");

    fs::remove_file(file(folder.path(), "snapshot.19")).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, StorageError::NoSnapshot { .. }), "{error}");
    assert!(error.to_string().contains("log.1 "), "{error}");
}

#[test]
fn what_is_written_on_top_is_there_the_next_time() {
    let folder = copy().unwrap();
    let (mut storage, recovered) = open(folder.path()).unwrap();
    let zxid = Zxid::new(Epoch(1), 1);
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 1 };
    let op = TxnOp::Delete { path: rollcall::znode::ZnodePath::parse("/app/multi").unwrap() };
    let txn = Txn { header, op, digest: None };
    storage.set_accepted_epoch(Epoch(1)).unwrap();
    storage.set_current_epoch(Epoch(1)).unwrap();
    storage.append(&Entry { zxid, payload: txn.encode() }).unwrap();
    storage.sync().unwrap();
    drop(storage);

    let mut expected = recovered.into_whole_tree();
    expected.apply(&txn);
    let (_, recovered) = open(folder.path()).unwrap();
    assert_eq!(recovered.current_epoch, Some(Epoch(1)));
    assert_eq!(recovered.into_whole_tree(), expected);
}

#[test]
fn what_apache_wrote_is_read_back_and_cut_back() {
    let folder = copy().unwrap();
    let (mut storage, recovered) = open(folder.path()).unwrap();
    let zxids = |from: i64, to: i64| (from..=to).map(Zxid::from_raw).collect::<Vec<_>>();
    let read = |storage: &mut Storage<FileDisk>, after| {
        let entries = storage.read_log(Zxid::from_raw(after), 1 << 20).unwrap();
        entries.map(|entries| entries.iter().map(|entry| entry.zxid).collect::<Vec<_>>())
    };
    assert_eq!(read(&mut storage, 0x12), Some(zxids(0x13, 0x23)), "over two files");
    assert_eq!(read(&mut storage, 0x19), Some(zxids(0x1a, 0x23)));
    let snapshot = fs::metadata(file(folder.path(), "snapshot.19")).unwrap().len();
    assert_eq!(storage.newest_snapshot_bytes(), snapshot);
    assert_eq!(recovered.tail.iter().map(|entry| entry.zxid).collect::<Vec<_>>(), zxids(0x1a, 0x23));

    // Apache's snapshots are fuzzy as ours are: this one may hold parts of what is cut off only if it says so.
    storage.truncate(Zxid::from_raw(0x1c)).unwrap();
    let recovered = storage.reload().unwrap();
    assert_eq!(
        (recovered.tree.last_zxid(), recovered.last_zxid()),
        (Zxid::from_raw(0x19), Zxid::from_raw(0x1c))
    );
    storage.truncate(Zxid::from_raw(0x12)).unwrap();
    assert!(file(folder.path(), "truncated.snapshot.19").exists());
    drop(storage);
    let (_, recovered) = open(folder.path()).unwrap();
    assert_eq!((recovered.tree.last_zxid(), recovered.last_zxid()), (Zxid::ZERO, Zxid::from_raw(0x12)));
}

/// Of each path the data and the fields of the stat, in the order of the protocol.
fn expected() -> io::Result<BTreeMap<String, Vec<Value>>> {
    Ok(serde_json::from_str(&fs::read_to_string(fixture().join("expected.json"))?)?)
}

fn assert_shows(tree: &Tree, expected: BTreeMap<String, Vec<Value>>) {
    assert_eq!(tree.last_zxid(), Zxid::from_raw(0x23));
    assert_eq!(tree.node_count(), expected.len());
    for (path, fields) in expected {
        let node = tree.node(&path).unwrap_or_else(|| panic!("{path} is missing"));
        let data = String::from_utf8_lossy(node.data().unwrap_or_default());
        assert_eq!(Some(data.as_ref()), fields[0].as_str(), "{path}");
        let stat: Vec<_> = fields[1..].iter().filter_map(Value::as_i64).collect();
        assert_eq!(numbers(node.stat()).to_vec(), stat, "{path}");
    }
    tree.check_invariants();
}

/// A stat's fields in the order of the protocol.
fn numbers(stat: Stat) -> [i64; 11] {
    [
        stat.czxid.raw(),
        stat.mzxid.raw(),
        stat.ctime_ms,
        stat.mtime_ms,
        stat.version.into(),
        stat.cversion.into(),
        stat.aversion.into(),
        stat.ephemeral_owner.0,
        stat.data_length.into(),
        stat.num_children.into(),
        stat.pzxid.raw(),
    ]
}

fn open(data_dir: &Path) -> Result<(Storage<FileDisk>, Recovered), StorageError> {
    Storage::open(FileDisk::open(data_dir, None)?)
}

fn copy() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let version_2 = folder.path().join(FileDisk::FOLDER);
    fs::create_dir(&version_2)?;
    for entry in fs::read_dir(fixture().join(FileDisk::FOLDER))? {
        let entry = entry?;
        fs::copy(entry.path(), version_2.join(entry.file_name()))?;
    }
    Ok(folder)
}

fn file(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(FileDisk::FOLDER).join(name)
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/apache-3.8.0")
}

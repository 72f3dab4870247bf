//! Bits that flip on a disk at rest: found, made up for, or at worst taken for the end of the last batch.

use fastrand::Rng;

use rollcall::id::{Epoch, SessionId, Xid, Zxid};
use rollcall::storage::sim_disk::SimDisk;
use rollcall::storage::{Disk, Storage, StorageError, StorageSettings};
use rollcall::tree::{CreateTxn, Tree, Txn, TxnHeader, TxnOp};
use rollcall::zab::Entry;
use rollcall::znode::{Acl, ZnodePath};

/// What came of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The member does not start.
    Refused,
    /// Everything is there all the same.
    Harmless,
    /// The last record is broken, which looks like a write that a power failure has torn.
    TakenForTorn,
}

/// Writes a history, flips one bit of some log or snapshot, or of the note of what is committed, and starts on it.
pub(crate) fn flip_a_bit(seed: u64, is_note: bool) -> Result<Outcome, String> {
    let mut rng = Rng::with_seed(seed);
    let disk = SimDisk::new(seed);
    let (whole, without_last, noted) = write(&disk, &mut rng).expect("a healthy disk");
    let mut names = disk.list().expect("a healthy disk");
    // Those of the epochs have no checksum, since they are Apache's.
    names.retain(|name| if is_note { name == "committed" } else { name.contains('.') });
    let name = rng.choice(names).expect("files");
    let bytes = disk.bytes_of(&name).expect("listed").len();
    let offset = rng.usize(0..bytes);
    assert!(disk.flip_bit(&name, offset as u64, rng.u8(0..8)));

    let recovered = match open(&disk) {
        Ok((_, recovered)) => recovered,
        Err(StorageError::Failed { .. } | StorageError::Io(_)) => {
            return Err("the disk is healthy".to_owned());
        }
        Err(_) => return Ok(Outcome::Refused),
    };
    if recovered.committed > noted.max(recovered.tree.last_zxid()) {
        return Err(format!("{noted} was noted, {} is taken for committed", recovered.committed));
    }
    let is_torn = recovered.torn_tail.is_some();
    let tree = recovered.into_whole_tree();
    if tree == whole {
        Ok(Outcome::Harmless)
    } else if tree == without_last && is_torn {
        Ok(Outcome::TakenForTorn)
    } else {
        Err(format!("byte {offset} of {name} has changed, and the tree with it"))
    }
}

/// Three logs, of which snapshots cover one or two, or none, and a txn that is noted as committed. Returns the tree, that of all but
/// the last txn, and the one noted.
fn write(disk: &SimDisk, rng: &mut Rng) -> Result<(Tree, Tree, Zxid), StorageError> {
    let (mut storage, _) = open(disk)?;
    storage.set_accepted_epoch(Epoch(1))?;
    storage.set_current_epoch(Epoch(1))?;
    let mut entries = Vec::new();
    let (mut tree, mut without_last) = (Tree::new(), Tree::new());
    let mut zxid = Zxid::new(Epoch(1), 0);
    for _log in 0..3 {
        for _ in 0..rng.usize(2..8) {
            zxid = zxid.next().expect("a short history");
            let txn = create(zxid, rng);
            entries.push(Entry { zxid, payload: txn.encode() });
            storage.append(&entries[entries.len() - 1])?;
            without_last = tree.clone();
            tree.apply(&txn);
        }
        storage.roll()?;
        if rng.bool() {
            let mut body = Vec::new();
            let mut cursor = tree.begin_snapshot(&mut body);
            while !tree.continue_snapshot(&mut cursor, 100, &mut body) {}
            storage.begin_snapshot(zxid)?;
            storage.write_snapshot(&body)?;
            storage.finish_snapshot((zxid, tree.digest()))?;
        }
    }
    let noted = &entries[Rng::with_seed(rng.get_seed()).usize(..6)];
    storage.record_committed(noted)?;
    Ok((tree, without_last, noted.zxid))
}

/// Without long runs of zeros, which look like sectors that never reached the disk.
fn create(zxid: Zxid, rng: &mut Rng) -> Txn {
    let op = TxnOp::Create2(CreateTxn {
        path: ZnodePath::parse(&format!("/znode-{}", zxid.counter())).expect("a path"),
        data: Some(std::iter::repeat_with(|| rng.u8(1..)).take(300).collect()),
        acl: vec![Acl::open()],
        ephemeral: false,
        parent_cversion: CreateTxn::PARENT_CVERSION_NEXT,
    });
    let header = TxnHeader { session: SessionId(1), cxid: Xid(1), zxid, time_ms: 1_700_000_000_000 };
    Txn { header, op, digest: None }
}

fn open(disk: &SimDisk) -> Result<(Storage<SimDisk>, rollcall::storage::Recovered), StorageError> {
    Storage::open_with(disk.clone(), StorageSettings { preallocate_bytes: 8_192 })
}

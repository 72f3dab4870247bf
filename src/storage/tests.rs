use bytes::Bytes;

use super::sim_disk::SimDisk;
use super::*;
use crate::codec::WriteJute;
use crate::tree::{Tree, Txn};

#[test]
fn after_a_failed_sync_nothing_is_done_any_more() {
    let disk = SimDisk::new(0);
    let mut storage = open(&disk);
    storage.append(&entry(1)).unwrap();
    disk.fail_syncs(1);
    let first = storage.sync().unwrap_err();
    assert!(matches!(first, StorageError::Io(_)), "{first}");

    let operations = disk.operations();
    let refusals = [
        storage.sync(),
        storage.append(&entry(2)),
        storage.roll(),
        storage.begin_snapshot(zxid(1)),
        storage.finish_snapshot((zxid(1), 0)),
        storage.set_accepted_epoch(Epoch(2)),
        storage.set_current_epoch(Epoch(2)),
        storage.purge(3).map(drop),
        storage.truncate(Zxid::ZERO),
        storage.truncate(zxid(9)),
        storage.reload().map(drop),
        storage.install_snapshot(zxid(9), b""),
        storage.read_log(Zxid::ZERO, 100).map(drop),
        storage.record_voters(&BTreeSet::from([ServerId::STANDALONE])),
        storage.record_committed(&entry(1)),
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert!(matches!(&error, StorageError::Failed { cause } if cause.contains("fsync")), "{error}");
    }
    assert_eq!(disk.operations(), operations, "the disk is left alone");
}

#[test]
fn a_full_disk_stops_storage_and_costs_nothing_acknowledged() {
    let disk = SimDisk::new(0);
    let mut storage = open(&disk);
    storage.append(&entry(1)).unwrap();
    storage.sync().unwrap();
    storage.append(&entry(2)).unwrap();
    disk.fail_writes(1);
    let error = storage.sync().unwrap_err();
    assert!(error.to_string().contains("no space"), "{error}");
    drop(storage);
    let (_, recovered) = Storage::open(disk.power_on()).unwrap();
    assert_eq!(recovered.last_zxid(), zxid(1));
}

#[test]
fn nothing_is_written_before_a_sync_asks_for_it_and_one_sync_covers_a_batch() {
    let disk = SimDisk::new(0);
    let mut storage = open(&disk);
    storage.append(&entry(1)).unwrap();
    storage.sync().unwrap();
    let operations = disk.operations();
    (2..50).for_each(|counter| storage.append(&entry(counter)).unwrap());
    assert_eq!(disk.operations(), operations);
    storage.sync().unwrap();
    assert_eq!(disk.operations(), operations + 2, "one write and one sync");
    storage.sync().unwrap();
    assert_eq!(disk.operations(), operations + 2, "nothing new, nothing to sync");
}

#[test]
fn a_snapshot_or_an_epoch_makes_the_log_durable_first() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut storage = open(&disk);
        let tree = append_to(&mut storage, &Tree::new(), 1);
        // It may hold parts of the second txn, so that one must not be lost.
        let later = append_to(&mut storage, &tree, 2);
        try_snapshot(&mut storage, &later, zxid(1)).unwrap();
        let recovered = Storage::open(disk.power_on()).unwrap().1;
        assert_eq!(recovered.last_zxid(), zxid(2), "seed {seed}");

        let disk = SimDisk::new(seed);
        let mut storage = open(&disk);
        storage.set_accepted_epoch(Epoch(1)).unwrap();
        storage.append(&entry(1)).unwrap();
        storage.set_current_epoch(Epoch(1)).unwrap();
        let recovered = Storage::open(disk.power_on()).unwrap().1;
        assert_eq!(recovered.last_zxid(), zxid(1), "seed {seed}");
    }
}

#[test]
fn a_power_failure_at_each_step_of_snapshot_and_purge_costs_nothing() {
    for (step, seed) in (0..40).flat_map(|step| (0..10).map(move |seed| (step, seed))) {
        let disk = SimDisk::new(seed);
        let mut storage = open(&disk);
        let mut tree = Tree::new();
        for counter in 1..=3 {
            tree = append_to(&mut storage, &tree, counter);
            snapshot(&mut storage, &tree);
        }
        tree = append_to(&mut storage, &tree, 4);
        storage.sync().unwrap();
        disk.fail_power_after(step);
        let outcome = storage
            .roll()
            .and_then(|()| try_snapshot(&mut storage, &tree, zxid(4)))
            .and_then(|()| storage.purge(2).map(drop));
        assert_eq!(outcome.is_err(), disk.is_off());
        drop(storage);

        let disk = disk.power_on();
        let recovered = Storage::open(disk.clone()).unwrap().1;
        assert!(recovered.unreadable_snapshots.is_empty());
        assert_eq!(recovered.into_whole_tree(), tree, "step {step} seed {seed}");
        // The one before it must do as well.
        let mut snapshots = files::Files::list(&disk).unwrap().snapshots;
        let (_, _, newest) = snapshots.pop().unwrap();
        disk.put(&newest, b"rotten");
        let recovered = Storage::open(disk).unwrap().1;
        assert_eq!(recovered.into_whole_tree(), tree, "step {step} seed {seed}");
    }
}

#[test]
fn purge_keeps_what_each_kept_snapshot_needs() {
    let disk = SimDisk::new(0);
    let mut storage = open(&disk);
    let mut tree = Tree::new();
    for counter in 1..=6 {
        tree = append_to(&mut storage, &tree, counter);
        snapshot(&mut storage, &tree);
    }
    storage.purge(3).unwrap();
    let mut names = disk.list().unwrap();
    names.retain(|name| !name.starts_with("snapshot"));
    assert_eq!(names, ["log.100000004", "log.100000005", "log.100000006"]);
    for newest_left in [6, 5, 4] {
        let (_, recovered) = Storage::open(disk.clone()).unwrap();
        assert_eq!(recovered.unreadable_snapshots.len(), 6 - newest_left as usize);
        assert_eq!(recovered.into_whole_tree(), tree);
        disk.put(&file_name::snapshot_name(zxid(newest_left)), b"rotten");
    }
    assert!(Storage::open(disk).is_err());
}

#[test]
fn purge_never_removes_the_only_snapshot_known_to_be_good() {
    let disk = SimDisk::new(0);
    drop(open(&disk));
    // Complete to the eye, but broken inside.
    for counter in 1..5 {
        disk.put(&file_name::snapshot_name(zxid(counter)), b"ZKSN\0\0\0\x02 nothing at all \0\0\0\x01/");
    }
    let mut storage = open_with_log(&disk);
    storage.purge(1).unwrap();
    assert!(disk.bytes_of("snapshot.0").is_some());
    assert!(disk.bytes_of("log.100000001").is_some());
}

#[test]
#[should_panic(expected = "no gaps")]
fn a_gap_is_a_bug() {
    let mut storage = open(&SimDisk::new(0));
    storage.append(&entry(1)).unwrap();
    storage.append(&entry(3)).unwrap();
}

fn open(disk: &SimDisk) -> Storage<SimDisk> {
    // The simulated disk has no sparse files.
    let settings = StorageSettings { preallocate_bytes: 8_192 };
    Storage::open_with(disk.clone(), settings).unwrap().0
}

fn open_with_log(disk: &SimDisk) -> Storage<SimDisk> {
    let mut log = log::HEADER.to_vec();
    (1..5).for_each(|counter| log::put_record(&mut log, &entry(counter).payload).unwrap());
    disk.put("log.100000001", &log);
    open(disk)
}

/// Appends a txn, unsynced; returns the tree with it.
fn append_to(storage: &mut Storage<SimDisk>, tree: &Tree, counter: u32) -> Tree {
    let entry = entry(counter);
    storage.append(&entry).unwrap();
    let mut tree = tree.clone();
    tree.apply(&Txn::decode(&entry.payload).unwrap());
    tree
}

fn snapshot(storage: &mut Storage<SimDisk>, tree: &Tree) {
    storage.roll().unwrap();
    try_snapshot(storage, tree, tree.last_zxid()).unwrap();
}

fn try_snapshot(storage: &mut Storage<SimDisk>, tree: &Tree, zxid: Zxid) -> Result<(), StorageError> {
    let mut body = Vec::new();
    let mut cursor = tree.begin_snapshot(&mut body);
    while !tree.continue_snapshot(&mut cursor, 1, &mut body) {}
    storage.begin_snapshot(zxid)?;
    storage.write_snapshot(&body)?;
    storage.finish_snapshot((tree.last_zxid(), tree.digest()))
}

/// A session's creation.
fn entry(counter: u32) -> Entry {
    let mut payload = Vec::new();
    payload.put_long(i64::from(counter) << 8);
    payload.put_int(0);
    payload.put_long(zxid(counter).raw());
    payload.put_long(1_700_000_000_000);
    payload.put_int(-10);
    payload.put_int(10_000);
    Entry { zxid: zxid(counter), payload: Bytes::from(payload) }
}

fn zxid(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

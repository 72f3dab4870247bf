//! Storage over a disk that loses what was not synced, with the power failing at every step.
//!
//! Each seed is one story: a member appends, syncs, rolls, takes snapshots in slices, changes epochs and
//! purges; at some operation of the disk the power fails; recovery, in which it may fail again, must find
//! everything that was acknowledged and nothing that is half applied; and the member goes on. `ROLLCALL_SEED=n`
//! tells one story again.

use bytes::Bytes;
use fastrand::Rng;

use rollcall::id::{Epoch, SessionId, Xid, Zxid};
use rollcall::storage::sim_disk::{Honesty, SimDisk};
use rollcall::storage::{Recovered, Storage, StorageError, StorageSettings};
use rollcall::tree::{CreateTxn, SnapshotCursor, Tree, Txn, TxnHeader, TxnOp};
use rollcall::zab::Entry;
use rollcall::znode::{Acl, OpError, Permissions, ZnodePath};

const STORIES: u64 = 1_000;

#[test]
fn what_was_acknowledged_survives_a_power_failure_at_any_step() {
    let seeds = match std::env::var("ROLLCALL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("ROLLCALL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..STORIES,
    };
    let mut met = Met::default();
    for seed in seeds.clone() {
        if let Err(violation) = tell(seed, Honesty::Honest, &mut met) {
            panic!("{violation}\nsee it again with ROLLCALL_SEED={seed} cargo test --test crash");
        }
    }
    if seeds.end - seeds.start == STORIES {
        println!("{met:?}");
        met.check_nothing_was_missed();
    }
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    for honesty in [Honesty::IgnoresFileSyncs, Honesty::IgnoresFolderSyncs] {
        let found = (0..100).filter(|seed| tell(*seed, honesty, &mut Met::default()).is_err()).count();
        assert!(found > 50, "{honesty:?}: only {found} of 100 stories notice");
    }
}

/// Which situations the stories have met; a test that never meets one proves nothing about it.
#[derive(Debug, Default)]
struct Met {
    failures_in_recovery: u64,
    failures_at_work: u64,
    unacknowledged_kept: u64,
    unacknowledged_lost: u64,
    torn_tails: u64,
    snapshots: u64,
    recovered_from_snapshot: u64,
    snapshots_cut_short: u64,
    epochs_in_between: u64,
    files_purged: u64,
    txns: u64,
}

impl Met {
    fn check_nothing_was_missed(&self) {
        let Self {
            failures_in_recovery,
            failures_at_work,
            unacknowledged_kept,
            unacknowledged_lost,
            torn_tails,
            snapshots,
            recovered_from_snapshot,
            snapshots_cut_short,
            epochs_in_between,
            files_purged,
            txns,
        } = self;
        assert!(*failures_at_work >= STORIES, "every story has a power failure at work");
        let counts = [
            failures_in_recovery,
            unacknowledged_kept,
            unacknowledged_lost,
            torn_tails,
            snapshots,
            recovered_from_snapshot,
            snapshots_cut_short,
            epochs_in_between,
            files_purged,
            txns,
        ];
        assert!(counts.iter().all(|count| **count >= 20), "some situation was hardly ever met");
    }
}

/// What the outside world knows, and what recovery is compared with.
struct Story<'a> {
    rng: Rng,
    disk: SimDisk,
    /// Every txn that may be on disk.
    history: Vec<Txn>,
    /// How many of them were acknowledged.
    synced: usize,
    accepted: Promise,
    current: Promise,
    leader: Leader,
    met: &'a mut Met,
}

/// An epoch that was written: the newest acknowledged, and the newest that was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    acknowledged: Option<Epoch>,
    asked: Option<Epoch>,
}

struct Slices {
    cursor: SnapshotCursor,
    zxid: Zxid,
}

fn tell(seed: u64, honesty: Honesty, met: &mut Met) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    disk.set_honesty(honesty);
    let mut story = Story {
        rng: Rng::with_seed(seed ^ 0x5EED),
        disk,
        history: Vec::new(),
        synced: 0,
        accepted: Promise::default(),
        current: Promise::default(),
        leader: Leader::new(seed),
        met,
    };
    for _life in 0..3 {
        let (storage, recovered) = story.recover()?;
        story.disk.fail_power_after(story.rng.u64(0..150));
        story.work(storage, recovered.into_whole_tree());
        story.met.failures_at_work += 1;
        story.disk = story.disk.power_on();
    }
    story.recover().map(drop)
}

impl Story<'_> {
    /// Opens the storage, with a power failure in some attempts, and checks what it has found.
    fn recover(&mut self) -> Result<(Storage<SimDisk>, Recovered), String> {
        loop {
            let may_fail = self.rng.u8(0..3) == 0;
            if may_fail {
                self.disk.fail_power_after(self.rng.u64(0..6));
            }
            let settings = StorageSettings { preallocate_bytes: 8_192 };
            match Storage::open_with(self.disk.clone(), settings) {
                Ok((storage, recovered)) => {
                    self.check(&recovered)?;
                    return Ok((storage, recovered));
                }
                Err(_) if self.disk.is_off() => {
                    self.met.failures_in_recovery += 1;
                    self.disk = self.disk.power_on();
                }
                Err(error) => return Err(format!("recovery refuses what a power failure left: {error}")),
            }
        }
    }

    fn check(&mut self, recovered: &Recovered) -> Result<(), String> {
        let tree = whole_tree(recovered);
        let last = tree.last_zxid();
        let kept = self.history.iter().take_while(|txn| txn.header.zxid <= last).count();
        let reached = kept.checked_sub(1).map_or(Zxid::ZERO, |index| self.history[index].header.zxid);
        if reached != last {
            return Err(format!("recovered up to {last}, which was never appended"));
        }
        if kept < self.synced {
            let lost = self.history[kept].header.zxid;
            return Err(format!("recovered up to {last}, but {lost} was acknowledged"));
        }
        let mut model = Tree::new();
        self.history[..kept].iter().for_each(|txn| drop(model.apply(txn)));
        tree.check_invariants();
        if model != tree {
            let txns = &self.history[..kept];
            let difference = difference(&model, &tree);
            return Err(format!(
                "the tree recovered at {last} is not that of its txns: {difference}\n{txns:?}"
            ));
        }
        self.accepted.check("accepted", recovered.accepted_epoch)?;
        self.current.check("current", recovered.current_epoch)?;
        if !recovered.unreadable_snapshots.is_empty() {
            return Err(format!("a snapshot is there but broken: {:?}", recovered.unreadable_snapshots));
        }

        self.met.unacknowledged_kept += (kept - self.synced) as u64;
        self.met.unacknowledged_lost += (self.history.len() - kept) as u64;
        self.met.torn_tails += u64::from(recovered.torn_tail.is_some());
        self.met.epochs_in_between += u64::from(recovered.accepted_epoch > recovered.current_epoch);
        self.history.truncate(kept);
        self.synced = kept;
        self.leader.follow_on(&tree, recovered.accepted_epoch);
        Ok(())
    }

    /// Works until the power fails, or for a while.
    fn work(&mut self, mut storage: Storage<SimDisk>, mut committed: Tree) {
        let mut slices = None;
        for _step in 0..120 {
            if self.step(&mut storage, &mut committed, &mut slices).is_err() {
                assert!(self.disk.is_off(), "only a power failure stops the work");
                break;
            }
        }
        self.met.snapshots_cut_short += u64::from(slices.is_some());
    }

    fn step(
        &mut self,
        storage: &mut Storage<SimDisk>,
        committed: &mut Tree,
        slices: &mut Option<Slices>,
    ) -> Result<(), StorageError> {
        match self.rng.u8(0..100) {
            0..45 => self.append(storage),
            45..65 => self.sync(storage, committed),
            65..88 => self.snapshot(storage, committed, slices),
            88..91 => storage.roll(),
            91..95 => self.change_epoch(storage, committed),
            95.. => {
                let purged = storage.purge(self.rng.usize(1..3))?;
                self.met.files_purged += purged as u64;
                Ok(())
            }
        }
    }

    fn append(&mut self, storage: &mut Storage<SimDisk>) -> Result<(), StorageError> {
        for _ in 0..self.rng.usize(1..6) {
            let txn = self.leader.propose();
            let entry = Entry { zxid: txn.header.zxid, payload: txn.encode() };
            assert_eq!(Txn::decode(&entry.payload).as_ref(), Ok(&txn));
            self.history.push(txn);
            self.met.txns += 1;
            storage.append(&entry)?;
        }
        Ok(())
    }

    fn sync(&mut self, storage: &mut Storage<SimDisk>, committed: &mut Tree) -> Result<(), StorageError> {
        storage.sync()?;
        // A member of one commits what is durable, and applies what is committed.
        self.history[self.synced..].iter().for_each(|txn| drop(committed.apply(txn)));
        self.synced = self.history.len();
        Ok(())
    }

    fn snapshot(
        &mut self,
        storage: &mut Storage<SimDisk>,
        committed: &Tree,
        slices: &mut Option<Slices>,
    ) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        let Some(writing) = slices else {
            storage.roll()?;
            let zxid = committed.last_zxid();
            storage.begin_snapshot(zxid)?;
            let cursor = committed.begin_snapshot(&mut bytes);
            *slices = Some(Slices { cursor, zxid });
            return storage.write_snapshot(&bytes);
        };
        let nodes_max = self.rng.usize(1..8);
        let is_done = committed.continue_snapshot(&mut writing.cursor, nodes_max, &mut bytes);
        storage.write_snapshot(&bytes)?;
        if is_done {
            storage.finish_snapshot((committed.last_zxid(), committed.digest()))?;
            self.met.snapshots += 1;
            self.met.recovered_from_snapshot += u64::from(writing.zxid > Zxid::ZERO);
            *slices = None;
        }
        Ok(())
    }

    /// As a leader of one does: promise, hold the history, synchronize, and only then propose.
    fn change_epoch(
        &mut self,
        storage: &mut Storage<SimDisk>,
        committed: &mut Tree,
    ) -> Result<(), StorageError> {
        let epoch = self.accepted.asked.max(Some(self.leader.last.epoch())).unwrap_or_default().next();
        self.accepted.asked = Some(epoch);
        storage.set_accepted_epoch(epoch)?;
        self.accepted.acknowledged = Some(epoch);
        if self.rng.bool() {
            return Ok(());
        }
        self.sync(storage, committed)?;
        self.current.asked = Some(epoch);
        storage.set_current_epoch(epoch)?;
        self.current.acknowledged = Some(epoch);
        self.leader.last = Zxid::new(epoch, 0);
        Ok(())
    }
}

impl Promise {
    fn check(&mut self, name: &str, found: Option<Epoch>) -> Result<(), String> {
        let Self { acknowledged, asked } = *self;
        if found < acknowledged || found > asked {
            return Err(format!(
                "{name} epoch {found:?}, acknowledged was {acknowledged:?}, asked {asked:?}"
            ));
        }
        // What is found now is relied upon from now on.
        *self = Self { acknowledged: found, asked: found };
        Ok(())
    }
}

fn whole_tree(recovered: &Recovered) -> Tree {
    let mut tree = recovered.tree.clone();
    recovered.tail.iter().for_each(|entry| drop(tree.apply(&Txn::decode(&entry.payload).expect("a txn"))));
    tree
}

/// The first znode that differs, or that the sessions do.
fn difference(model: &Tree, recovered: &Tree) -> String {
    let znodes = |tree: &Tree| -> Vec<_> {
        let show = |path, node: rollcall::tree::NodeRef<'_>| {
            format!("{path} {:?} {:?} {:?}", node.data(), node.persisted(), node.acl())
        };
        tree.nodes().map(|(path, node)| show(path, node)).collect()
    };
    let (expected, found) = (znodes(model), znodes(recovered));
    let missing = expected.iter().find(|znode| !found.contains(znode));
    let extra = found.iter().find(|znode| !expected.contains(znode));
    format!("expected {missing:?}, found {extra:?}, else sessions")
}

/// Makes txns as a leader does: valid ones, prepared against a tree that is ahead of the committed one.
struct Leader {
    rng: Rng,
    tree: Tree,
    last: Zxid,
    sessions_made: i64,
}

impl Leader {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed ^ 0x7EAD), tree: Tree::new(), last: Zxid::ZERO, sessions_made: 0 }
    }

    fn follow_on(&mut self, tree: &Tree, accepted: Option<Epoch>) {
        self.tree = tree.clone();
        self.last = tree.last_zxid();
        assert!(accepted.unwrap_or_default() >= self.last.epoch());
    }

    fn propose(&mut self) -> Txn {
        self.last = self.last.next().expect("stories are short");
        let (session, op) = self.operation();
        let header = TxnHeader {
            session,
            cxid: Xid(self.rng.i32(0..1_000)),
            zxid: self.last,
            time_ms: 1_700_000_000_000 + self.rng.i64(0..1_000_000),
        };
        let mut txn = Txn { header, op, digest: None };
        self.tree.apply(&txn);
        txn.digest = (!matches!(txn.op, TxnOp::Error(_))).then(|| self.tree.digest());
        txn
    }

    fn operation(&mut self) -> (SessionId, TxnOp) {
        let session = self.any_session();
        let op = match self.rng.u8(0..100) {
            0..35 => self.create(session),
            35..50 => self.set_data(),
            50..62 => self.delete(),
            62..70 => self.set_acl(),
            70..78 => return self.create_session(),
            78..84 => return self.close_session(),
            84..94 => self.multi(session),
            94.. => TxnOp::Error(OpError::BadVersion),
        };
        (session.unwrap_or(SessionId(1)), op)
    }

    fn create(&mut self, session: Option<SessionId>) -> TxnOp {
        let parent = self.any_path(|path, tree| {
            let owner = tree.ephemerals_of_any().any(|ephemeral| ephemeral.as_str() == path);
            !owner && path.matches('/').count() < 3
        });
        let name = ["a", "b", "c", "d", "ü"][self.rng.usize(0..5)];
        let path = parent.join(name).expect("a valid name");
        if self.tree.node(path.as_str()).is_some() {
            return TxnOp::Error(OpError::NodeExists);
        }
        let parent_cversion = self.tree.node(parent.as_str()).expect("chosen").persisted().cversion + 1;
        let (data, acl) = (self.data(), self.acl());
        match self.rng.u8(0..10) {
            0 => TxnOp::CreateContainer { path, data, acl, parent_cversion },
            1 => TxnOp::CreateTtl { path, data, acl, parent_cversion, ttl_ms: 60_000 },
            2..6 if session.is_some() => {
                TxnOp::Create(CreateTxn { path, data, acl, ephemeral: true, parent_cversion })
            }
            _ => TxnOp::Create2(CreateTxn { path, data, acl, ephemeral: false, parent_cversion }),
        }
    }

    fn set_data(&mut self) -> TxnOp {
        let path = self.any_path(|_, _| true);
        let version = self.tree.node(path.as_str()).expect("chosen").persisted().version + 1;
        TxnOp::SetData { path, data: self.data(), version }
    }

    fn set_acl(&mut self) -> TxnOp {
        let path = self.any_path(|_, _| true);
        let version = self.tree.node(path.as_str()).expect("chosen").persisted().aversion + 1;
        TxnOp::SetAcl { path, acl: self.acl(), version }
    }

    fn delete(&mut self) -> TxnOp {
        let path = self.any_path(|path, tree| tree.node(path).is_some_and(|node| node.child_count() == 0));
        if path.is_root() { TxnOp::Error(OpError::NotEmpty) } else { TxnOp::Delete { path } }
    }

    /// Operations that depend on one another, so that half of them would show.
    fn multi(&mut self, session: Option<SessionId>) -> TxnOp {
        let create = self.create(session);
        let (TxnOp::Create(made) | TxnOp::Create2(made)) = &create else {
            return TxnOp::Multi(vec![TxnOp::Error(OpError::NodeExists), create]);
        };
        let path = made.path.clone();
        let set = TxnOp::SetData { path: path.clone(), data: self.data(), version: 1 };
        let mut ops = vec![TxnOp::Check { path: ZnodePath::root(), version: 0 }, create, set];
        if self.rng.bool() {
            ops.push(TxnOp::Delete { path });
        }
        TxnOp::Multi(ops)
    }

    fn create_session(&mut self) -> (SessionId, TxnOp) {
        self.sessions_made += 1;
        let session = SessionId(self.last.raw() << 8 | self.sessions_made);
        (session, TxnOp::CreateSession { timeout_ms: 10_000 })
    }

    fn close_session(&mut self) -> (SessionId, TxnOp) {
        match self.any_session() {
            Some(session) => {
                // Always with the paths: the form of 3.5 without them cannot repair a parent's pzxid.
                let paths = self.tree.ephemerals(session).cloned().collect();
                (session, TxnOp::CloseSession { paths: Some(paths) })
            }
            None => self.create_session(),
        }
    }

    fn any_session(&mut self) -> Option<SessionId> {
        let sessions: Vec<_> = self.tree.sessions().iter().map(|(session, _)| session).collect();
        self.rng.choice(sessions)
    }

    /// A znode that is ours and meets the condition; the root when there is none.
    fn any_path(&mut self, is_wanted: impl Fn(&str, &Tree) -> bool) -> ZnodePath {
        let ours = self.tree.nodes().map(|(path, _)| path).filter(|path| !path.starts_with("/zookeeper"));
        let wanted: Vec<_> = ours.filter(|path| is_wanted(path, &self.tree)).collect();
        let path = self.rng.choice(wanted).unwrap_or_else(|| "/".to_owned());
        ZnodePath::parse(&path).expect("it is in the tree")
    }

    fn data(&mut self) -> Option<Bytes> {
        let bytes_max = if self.rng.u8(0..8) == 0 { 2_000 } else { 60 };
        let bytes = self.rng.usize(0..bytes_max);
        match self.rng.u8(0..10) {
            0 => None,
            1 => Some(Bytes::from(vec![0; bytes])),
            _ => Some(std::iter::repeat_with(|| self.rng.u8(..)).take(bytes).collect()),
        }
    }

    fn acl(&mut self) -> Vec<Acl> {
        match self.rng.u8(0..6) {
            bits @ 1..4 => vec![Acl::anyone(Permissions(i32::from(bits))), Acl::open()],
            _ => vec![Acl::open()],
        }
    }
}

trait Ephemerals {
    fn ephemerals_of_any(&self) -> impl Iterator<Item = &ZnodePath>;
}

impl Ephemerals for Tree {
    fn ephemerals_of_any(&self) -> impl Iterator<Item = &ZnodePath> {
        self.sessions().iter().flat_map(|(session, _)| self.ephemerals(session))
    }
}

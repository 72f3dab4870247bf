//! Three members on a network without delays, whose disks are done at once.

use std::collections::VecDeque;

use super::*;
use crate::zab::{Entry, LinkId, ServerState};

/// Bytes that a log may be behind by.
const LAG_BYTES_MAX: usize = 1 << 20;

/// Members by id; `None` while one is down.
pub(super) struct Ensemble {
    pub(super) members: BTreeMap<u8, Option<Member>>,
    pub(super) disks: BTreeMap<u8, DiskState>,
    /// Both ends of each connection, the one that dialled first.
    links: BTreeMap<LinkId, (u8, u8)>,
    next_link: u64,
    queue: VecDeque<(u8, Input)>,
    now: Instant,
    window_entries: usize,
    voters: u8,
    read_only_mode: bool,
    pub(super) local_sessions: LocalSessionMode,
    /// Members whose packets and votes do not get through.
    pub(super) cut_off: Vec<u8>,
    /// Members that do nothing, as after SIGSTOP.
    suspended: Vec<u8>,
    /// Members whose disks hang, with what they will say.
    hanging: BTreeMap<u8, Vec<Input>>,
    /// Members that are started with `--force-bootstrap`.
    pub(super) forced: Vec<u8>,
    /// What clients say that they have seen.
    seen: Zxid,
}

pub(super) struct Member {
    pub(super) replica: Replica,
    pub(super) sent: Vec<(ConnectionId, Vec<u8>)>,
    pub(super) closed: Vec<(ConnectionId, CloseReason)>,
}

#[derive(Default)]
pub(super) struct DiskState {
    accepted: Epoch,
    pub(super) current: Epoch,
    snapshot: Option<(Zxid, Bytes)>,
    pub(super) log: Vec<Entry>,
    committed: Zxid,
}

impl DiskState {
    fn recovery(&self) -> Recovery {
        let (base, tree) = match &self.snapshot {
            Some((zxid, body)) => {
                (*zxid, Tree::decode_snapshot(&mut Reader::new(body), *zxid).expect("it was decoded before"))
            }
            None => (Zxid::ZERO, Tree::new()),
        };
        let tail = self.log.iter().filter(|entry| entry.zxid > base).cloned().collect();
        Recovery {
            tree,
            tail,
            committed: self.committed.max(base),
            fuzzy_to: Zxid::ZERO,
            accepted_epoch: self.accepted,
            current_epoch: (self.current > Epoch(0)).then_some(self.current),
        }
    }

    /// Writes a snapshot.
    pub(super) fn snapshot(&mut self, tree: &Tree) {
        let mut body = Vec::new();
        let mut cursor = tree.begin_snapshot(&mut body);
        while !tree.continue_snapshot(&mut cursor, usize::MAX, &mut body) {}
        self.snapshot = Some((tree.last_zxid(), body.into()));
    }
}

impl Ensemble {
    pub(super) fn of(voters: u8) -> Self {
        Self::with_window(voters, 100)
    }

    fn with_window(voters: u8, window_entries: usize) -> Self {
        Self::start_all(voters, window_entries, LocalSessionMode::Off)
    }

    pub(super) fn with_local_sessions(voters: u8, mode: LocalSessionMode) -> Self {
        Self::start_all(voters, 100, mode)
    }

    fn start_all(voters: u8, window_entries: usize, local_sessions: LocalSessionMode) -> Self {
        let mut ensemble = Self {
            members: (1..=voters).map(|id| (id, None)).collect(),
            disks: (1..=voters).map(|id| (id, DiskState::default())).collect(),
            links: BTreeMap::new(),
            next_link: 0,
            queue: VecDeque::new(),
            now: crate::clock::now(),
            window_entries,
            voters,
            read_only_mode: false,
            local_sessions,
            cut_off: Vec::new(),
            suspended: Vec::new(),
            hanging: BTreeMap::new(),
            forced: Vec::new(),
            seen: Zxid::ZERO,
        };
        (1..=voters).for_each(|id| ensemble.start(id));
        ensemble
    }

    fn now(&self) -> Now {
        Now { monotonic: self.now, unix_ms: 1000 }
    }

    pub(super) fn start(&mut self, id: u8) {
        let server = |id| ServerId::new(id).unwrap();
        let quorum = Quorum::majority_of((1..=self.voters).map(server));
        let peer = PeerSettings {
            tick: TICK,
            window_entries: self.window_entries,
            lag_bytes_max: LAG_BYTES_MAX,
            force_bootstrap: self.forced.contains(&id),
            observers: (self.voters + 1..=self.voters + 2).map(server).collect(),
            ..PeerSettings::new(server(id), quorum)
        };
        let settings = ReplicaSettings {
            peer,
            session_timeouts: SessionTimeouts::from_tick(TICK),
            handshake_timeout: Duration::from_secs(1),
            snapshot_txns: 1_000_000,
            snapshot_bytes: 1 << 40,
            read_only_mode: self.read_only_mode,
            local_sessions: self.local_sessions,
        };
        let replica = Replica::new(settings, self.disks[&id].recovery(), self.now());
        self.members.insert(id, Some(Member { replica, sent: Vec::new(), closed: Vec::new() }));
        self.carry_out(id);
        for other in self.up() {
            if other != id {
                self.queue.push_back((id, Input::Reachable(server(other), true)));
                self.queue.push_back((other, Input::Reachable(server(id), true)));
            }
        }
        self.settle();
    }

    /// As kill -9 would: everything but the disk is gone.
    pub(super) fn kill(&mut self, id: u8) {
        self.members.insert(id, None);
        self.queue.retain(|(to, _)| *to != id);
        let broken: Vec<_> = self.links.iter().filter(|(_, (a, b))| *a == id || *b == id).collect();
        let broken: Vec<_> =
            broken.into_iter().map(|(link, (a, b))| (*link, if *a == id { *b } else { *a })).collect();
        for (link, survivor) in broken {
            self.links.remove(&link);
            self.queue.push_back((survivor, Input::LinkClosed(link)));
        }
        for other in self.up() {
            self.queue.push_back((other, Input::Reachable(ServerId::new(id).unwrap(), false)));
        }
        self.settle();
    }

    pub(super) fn up(&self) -> Vec<u8> {
        self.members.iter().filter(|(_, member)| member.is_some()).map(|(id, _)| *id).collect()
    }

    pub(super) fn member(&mut self, id: u8) -> &mut Member {
        self.members.get_mut(&id).unwrap().as_mut().expect("it is up")
    }

    pub(super) fn give(&mut self, id: u8, input: Input) {
        let now = self.now();
        if let Some(Some(member)) = self.members.get_mut(&id) {
            member.replica.handle(now, input);
            self.carry_out(id);
        }
    }

    pub(super) fn settle(&mut self) {
        while let Some((to, input)) = self.queue.pop_front() {
            self.give(to, input);
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let due = self.up().into_iter().filter(|id| !self.suspended.contains(id)).filter_map(|id| {
                let deadline = self.members[&id].as_ref()?.replica.poll_timeout()?;
                (deadline <= end).then_some((deadline, id))
            });
            let Some((deadline, id)) = due.min() else { break };
            self.now = self.now.max(deadline);
            let now = self.now();
            self.member(id).replica.handle_timeout(now);
            self.carry_out(id);
            self.settle();
        }
        self.now = end;
    }

    fn carry_out(&mut self, id: u8) {
        let mut durable = None;
        while let Some(output) =
            self.members.get_mut(&id).and_then(Option::as_mut).and_then(|member| member.replica.poll_output())
        {
            let disk = self.disks.get_mut(&id).unwrap();
            match output {
                Output::Append(entry) => {
                    durable = Some(entry.zxid);
                    disk.log.push(entry);
                }
                Output::SetAcceptedEpoch(epoch) => {
                    disk.accepted = epoch;
                    self.say(id, Input::AcceptedEpochDurable(epoch));
                }
                Output::SetCurrentEpoch(epoch) => {
                    disk.current = epoch;
                    if let Some(zxid) = durable.take() {
                        self.say(id, Input::Durable(zxid));
                    }
                    self.say(id, Input::CurrentEpochDurable(epoch));
                }
                Output::Truncate { zxid, is_reload } => {
                    disk.log.retain(|entry| entry.zxid <= zxid);
                    disk.committed = disk.committed.min(zxid);
                    // Those before it are kept, and so is the log behind them.
                    disk.snapshot = disk.snapshot.take().filter(|(named, _)| *named <= zxid);
                    if is_reload {
                        self.queue.push_back((id, Input::Reloaded(Box::new(disk.recovery()))));
                    }
                }
                Output::InstallSnapshot { zxid, body } => {
                    disk.log.clear();
                    disk.committed = zxid;
                    disk.snapshot = Some((zxid, body));
                    self.say(id, Input::Durable(zxid));
                }
                Output::ReadLog { link, after } => {
                    let is_known = after == Zxid::ZERO && disk.snapshot.is_none()
                        || disk.log.iter().any(|entry| entry.zxid == after);
                    let entries = disk.log.iter().filter(|entry| entry.zxid > after).cloned().collect();
                    self.queue.push_back((id, Input::LogRead { link, entries: is_known.then_some(entries) }));
                }
                Output::SendVote(to, message) if !self.is_cut(id, to.get()) => {
                    self.queue
                        .push_back((to.get(), Input::Notification(ServerId::new(id).unwrap(), message)));
                }
                Output::SendVote(..) => {}
                Output::Dial { attempt, server } => self.dial(id, attempt, server.get()),
                Output::Send(link, packet) => self.send(id, link, Input::Packet(link, packet)),
                Output::SendSnapshot { link, zxid, body } => {
                    self.send(id, link, Input::Packet(link, crate::zab::Packet::Snap(zxid)));
                    self.send(id, link, Input::SnapshotReceived(link, body));
                }
                Output::CloseLink(link) => {
                    if let Some((a, b)) = self.links.remove(&link) {
                        let other = if a == id { b } else { a };
                        self.queue.push_back((other, Input::LinkClosed(link)));
                    }
                }
                Output::Reply(connection, frame) | Output::Notify(connection, frame) => {
                    self.member(id).sent.push((connection, frame.to_vec()));
                }
                Output::Close(connection, reason) => self.member(id).closed.push((connection, reason)),
                Output::RecordCommitted(entry) => {
                    self.disks.get_mut(&id).unwrap().committed = entry.zxid;
                }
                Output::BeginSnapshot(_) | Output::SnapshotSlice(_) | Output::FinishSnapshot { .. } => {}
            }
        }
        if let Some(zxid) = durable {
            self.say(id, Input::Durable(zxid));
        }
    }

    /// The disk of a member says that something is done.
    fn say(&mut self, id: u8, input: Input) {
        match self.hanging.get_mut(&id) {
            Some(said) if !matches!(input, Input::AcceptedEpochDurable(_)) => said.push(input),
            Some(_) | None => self.queue.push_back((id, input)),
        }
    }

    /// The disk of a member takes what it is given, and does nothing of it but to note which epoch is accepted.
    pub(super) fn hang(&mut self, id: u8) {
        self.hanging.insert(id, Vec::new());
    }

    /// It does all of it.
    pub(super) fn go_on(&mut self, id: u8) {
        let said = self.hanging.remove(&id).unwrap_or_default();
        self.queue.extend(said.into_iter().map(|input| (id, input)));
        self.settle();
    }

    /// How often members have connected to their leaders.
    pub(super) const fn dials(&self) -> u64 {
        self.next_link
    }

    /// A connection from a stranger, who says this at once.
    pub(super) fn intrude(&mut self, id: u8, packets: Vec<crate::zab::Packet>) {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let now = self.now();
        self.member(id).replica.handle(now, Input::Accepted(link));
        // Before anything is carried out that it comes to: the driver takes many inputs at a time.
        for packet in packets {
            self.member(id).replica.handle(now, Input::Packet(link, packet));
        }
        self.carry_out(id);
        self.settle();
    }

    fn is_cut(&self, one: u8, other: u8) -> bool {
        self.cut_off.contains(&one) || self.cut_off.contains(&other)
    }

    fn dial(&mut self, from: u8, attempt: u64, to: u8) {
        if self.is_cut(from, to) || self.members[&to].is_none() {
            return self.queue.push_back((from, Input::Dialled { attempt, link: None }));
        }
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.links.insert(link, (from, to));
        self.queue.push_back((to, Input::Accepted(link)));
        self.queue.push_back((from, Input::Dialled { attempt, link: Some(link) }));
    }

    fn send(&mut self, from: u8, link: LinkId, input: Input) {
        let Some((a, b)) = self.links.get(&link).copied() else { return };
        let to = if a == from { b } else { a };
        if !self.is_cut(a, b) {
            self.queue.push_back((to, input));
        }
    }

    pub(super) fn leads(&self, id: u8) -> bool {
        self.members[&id].as_ref().is_some_and(|member| member.replica.peer().is_leading())
    }

    pub(super) fn leader(&self) -> u8 {
        let leaders: Vec<_> = self.up().into_iter().filter(|id| self.leads(*id)).collect();
        assert_eq!(leaders.len(), 1, "one leads: {leaders:?}");
        leaders[0]
    }

    pub(super) fn followers(&self) -> Vec<u8> {
        let leader = self.leader();
        self.up().into_iter().filter(|id| *id != leader).collect()
    }

    /// Opens a session at a member, over its connection 1.
    pub(super) fn open(&mut self, id: u8) -> SessionId {
        self.open_as(id, SessionId::NONE)
    }

    pub(super) fn open_as(&mut self, id: u8, session: SessionId) -> SessionId {
        self.connect(id, session, false).expect("it is served").session
    }

    pub(super) fn connect(
        &mut self,
        id: u8,
        session: SessionId,
        is_read_only_enough: bool,
    ) -> Option<ConnectResponse> {
        self.give(id, Input::Disconnected(ConnectionId(1)));
        self.give(id, Input::Connected(ConnectionId(1)));
        let request = ConnectRequest {
            last_zxid_seen: self.seen,
            timeout_ms: 500,
            session,
            password: SessionPassword::for_session(session),
            read_only: Some(is_read_only_enough),
        };
        let mut frame = Vec::new();
        request.encode(&mut frame);
        self.member(id).sent.clear();
        self.give(id, Input::Frame(ConnectionId(1), frame.into()));
        self.settle();
        let (_, reply) = self.member(id).sent.pop()?;
        Some(ConnectResponse::decode(&reply[4..]).unwrap())
    }

    pub(super) fn send_request(&mut self, id: u8, request: &Request) {
        self.member(id).sent.clear();
        self.give_request(id, request);
    }

    /// Sends a request behind those that are not answered yet.
    pub(super) fn give_request(&mut self, id: u8, request: &Request) {
        let mut frame = Vec::new();
        request.encode(Xid(7), &mut frame);
        self.give(id, Input::Frame(ConnectionId(1), frame.into()));
    }

    pub(super) fn ask(&mut self, id: u8, request: &Request) -> Result<Response, OpError> {
        self.send_request(id, request);
        self.settle();
        self.answer(id, request)
    }

    pub(super) fn answer(&mut self, id: u8, request: &Request) -> Result<Response, OpError> {
        let (_, reply) = self.member(id).sent.pop().expect("an answer");
        let mut reader = Reader::new(&reply[4..]);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        match header.error {
            Some(error) => Err(error),
            None => Ok(Response::decode(request.op_code(), &mut reader).unwrap()),
        }
    }

    pub(super) fn create(&mut self, id: u8, path: &str) {
        let create = Request::Create(CreateRequest::open(path, "x", CreateMode::Persistent));
        self.ask(id, &create).unwrap();
    }

    pub(super) fn all_agree(&mut self) {
        self.advance(TICK * 20);
        let trees: Vec<_> = self
            .members
            .values()
            .flatten()
            .map(|member| (member.replica.is_serving(), member.replica.tree().clone()))
            .collect();
        assert!(trees.iter().all(|(is_serving, tree)| *is_serving && *tree == trees[0].1));
    }

    fn syncs_of(&mut self, id: u8) -> [u64; 3] {
        self.member(id).replica.counts().syncs
    }
}

#[test]
fn three_members_without_a_history_elect_and_write_at_each() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    for id in 1..=3 {
        ensemble.open(id);
        ensemble.create(id, &format!("/from-{id}"));
        ensemble.ask(id, &Request::Sync { path: "/".into() }).unwrap();
        ensemble.ask(id, &exists("/from-1", false)).unwrap();
    }
    ensemble.all_agree();
    assert_eq!(ensemble.leader(), leader, "nothing that could unseat it happened");
    assert_eq!(ensemble.member(1).replica.epochs(), (Epoch(1), Epoch(1)));
}

#[test]
fn a_failed_write_at_a_follower_gets_its_error_and_a_multi_its_results() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let follower = ensemble.followers()[0];
    ensemble.open(follower);
    assert_eq!(ensemble.ask(follower, &delete("/none")), Err(OpError::NoNode));
    let ops = vec![
        MultiOp::Create2(CreateRequest::open("/a", "", CreateMode::Persistent)),
        MultiOp::Delete { path: "/none".into(), version: -1 },
        MultiOp::Check { path: "/".into(), version: -1 },
    ];
    let Ok(Response::Multi(results)) = ensemble.ask(follower, &Request::Multi(ops)) else { panic!() };
    let errors = [None, Some(OpError::NoNode), Some(OpError::RuntimeInconsistency)];
    assert_eq!(results, errors.map(OpResult::Error));
}

#[test]
fn the_leader_dies_and_nothing_is_lost_and_sessions_move() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    let session = ensemble.open(leader);
    ensemble.create(leader, "/kept");
    ensemble.kill(leader);
    let next = ensemble.leader();
    assert_eq!(ensemble.open_as(next, session), session);
    let follower = ensemble.followers()[0];
    assert_eq!(ensemble.open_as(follower, session), session, "the leader is asked");
    ensemble.ask(follower, &exists("/kept", false)).unwrap();
    ensemble.create(follower, "/more");
    ensemble.start(leader);
    ensemble.all_agree();
    assert_eq!(ensemble.syncs_of(leader), [1, 0, 0], "it was brought up by what it lacked");
}

#[test]
fn what_only_a_dead_leader_had_logged_is_undone() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    ensemble.open(leader);
    ensemble.create(leader, "/kept");
    ensemble.cut_off.push(leader);
    let lost = Request::Create(CreateRequest::open("/lost", "", CreateMode::Persistent));
    ensemble.send_request(leader, &lost);
    ensemble.settle();
    assert_eq!(ensemble.member(leader).sent.len(), 0, "nobody else holds it");
    ensemble.kill(leader);
    ensemble.cut_off.clear();
    let next = ensemble.leader();
    ensemble.open(next);
    ensemble.create(next, "/after");
    ensemble.start(leader);
    ensemble.all_agree();
    assert_eq!(ensemble.syncs_of(leader), [0, 1, 0]);
    assert!(ensemble.member(leader).replica.tree().node("/lost").is_none());
}

#[test]
fn who_lacks_more_than_the_window_gets_the_log_or_the_tree() {
    let mut ensemble = Ensemble::with_window(3, 5);
    ensemble.advance(TICK);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    ensemble.kill(follower);
    ensemble.open(leader);
    (0..20).for_each(|number| ensemble.create(leader, &format!("/{number}")));
    ensemble.start(follower);
    ensemble.all_agree();
    assert_eq!(ensemble.syncs_of(follower), [1, 0, 0], "from the log");

    ensemble.kill(follower);
    ensemble.disks.insert(follower, DiskState::default());
    let first = ensemble.disks[&leader].log[0].clone();
    ensemble.disks.get_mut(&leader).unwrap().log.retain(|entry| *entry != first);
    ensemble.disks.get_mut(&leader).unwrap().snapshot = Some((Zxid::ZERO, Bytes::new()));
    ensemble.open(leader);
    (20..40).for_each(|number| ensemble.create(leader, &format!("/{number}")));
    ensemble.start(follower);
    ensemble.all_agree();
    assert_eq!(ensemble.syncs_of(follower), [0, 0, 1], "the log does not reach back");
    assert!(ensemble.disks[&follower].snapshot.is_some());
}

#[test]
fn a_leader_without_a_quorum_steps_down_and_answers_no_sync() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    ensemble.open(leader);
    ensemble.cut_off.push(leader);
    let sync = Request::Sync { path: "/".into() };
    ensemble.send_request(leader, &sync);
    ensemble.settle();
    assert_eq!(ensemble.member(leader).sent.len(), 0, "it does not know whether it still leads");
    ensemble.advance(TICK * 10);
    assert_eq!(ensemble.member(leader).replica.peer().state(), ServerState::Looking);
    assert_eq!(ensemble.member(leader).closed, [(ConnectionId(1), CloseReason::NotServing)]);
    ensemble.cut_off.clear();
    ensemble.all_agree();
}

/// What waits in its sockets must not be answered: others may have taken over, and may have expired whoever asks.
#[test]
fn a_leader_that_wakes_steps_down_before_it_answers() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let leader = ensemble.leader();
    ensemble.open(leader);
    ensemble.suspended.push(leader);
    ensemble.cut_off.push(leader);
    ensemble.advance(TICK * 10);
    ensemble.send_request(leader, &Request::Ping);
    ensemble.settle();
    assert_eq!(ensemble.member(leader).sent.len(), 0);
    assert_eq!(ensemble.member(leader).closed, [(ConnectionId(1), CloseReason::NotServing)]);
    ensemble.suspended.clear();
    ensemble.cut_off.clear();
    ensemble.all_agree();
}

#[test]
fn sessions_at_followers_are_kept_alive_by_their_pings_and_expire_without() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let follower = ensemble.followers()[0];
    let session = ensemble.open(follower);
    let create = CreateRequest::open("/mine", "", CreateMode::Ephemeral);
    ensemble.ask(follower, &Request::Create(create)).unwrap();
    for _ in 0..20 {
        ensemble.advance(Duration::from_millis(250));
        ensemble.ask(follower, &Request::Ping).unwrap();
    }
    let leader = ensemble.leader();
    assert!(ensemble.member(leader).replica.tree().sessions().contains(session));
    ensemble.advance(Duration::from_millis(500) + TICK * 3);
    assert!(!ensemble.member(leader).replica.tree().sessions().contains(session));
    assert_eq!(ensemble.member(follower).closed, [(ConnectionId(1), CloseReason::SessionExpired)]);
    assert!(ensemble.member(follower).replica.tree().node("/mine").is_none());
}

#[test]
fn a_session_that_moved_is_served_at_its_new_place_only() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (leader, followers) = (ensemble.leader(), ensemble.followers());
    let session = ensemble.open(followers[0]);
    assert_eq!(ensemble.open_as(followers[1], session), session);
    let create = Request::Create(CreateRequest::open("/late", "", CreateMode::Persistent));
    ensemble.send_request(followers[0], &create);
    ensemble.settle();
    assert_eq!(ensemble.member(followers[0]).closed, [(ConnectionId(1), CloseReason::SessionMoved)]);
    assert!(ensemble.member(leader).replica.tree().node("/late").is_none());
    ensemble.create(followers[1], "/in-time");
}

#[test]
fn a_member_without_a_quorum_serves_reads_to_those_who_ask_for_no_more() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (leader, followers) = (ensemble.leader(), ensemble.followers());
    let session = ensemble.open(leader);
    ensemble.create(leader, "/kept");
    ensemble.all_agree();
    ensemble.kill(leader);
    ensemble.kill(followers[0]);
    ensemble.kill(followers[1]);
    ensemble.read_only_mode = true;
    ensemble.start(followers[0]);
    assert_eq!(ensemble.connect(followers[0], session, true), None, "it looks for a leader first");
    ensemble.advance(Duration::from_secs(3));
    assert_eq!(ensemble.connect(followers[0], session, false), None);
    assert_eq!(ensemble.connect(followers[0], session, true), None, "it may be over by now");
    let response = ensemble.connect(followers[0], SessionId::NONE, true).unwrap();
    assert_eq!(response.read_only, Some(true));
    let again = ensemble.connect(followers[0], response.session, true).unwrap();
    assert_eq!((again.session, again.read_only), (response.session, Some(true)));
    // What was committed before it stopped was written down nowhere; the snapshot is all that is known to be.
    ensemble.ask(followers[0], &exists("/zookeeper", false)).unwrap();
    assert_eq!(ensemble.ask(followers[0], &exists("/kept", false)), Err(OpError::NoNode));
    for request in [set("/", "x", -1), Request::Sync { path: "/".into() }] {
        assert_eq!(ensemble.ask(followers[0], &request), Err(OpError::NotReadOnly));
    }
    ensemble.member(followers[0]).closed.clear();
    ensemble.start(leader);
    assert_eq!(ensemble.member(followers[0]).closed, [(ConnectionId(1), CloseReason::NotServing)]);
    ensemble.all_agree();
}

#[test]
fn a_member_that_starts_without_a_quorum_shows_what_it_knew_to_be_committed_and_no_more() {
    let mut ensemble = Ensemble::of(3);
    ensemble.read_only_mode = true;
    (1..=3).for_each(|id| ensemble.kill(id));
    (1..=3).for_each(|id| ensemble.start(id));
    ensemble.advance(TICK);
    let (leader, followers) = (ensemble.leader(), ensemble.followers());
    ensemble.open(leader);
    ensemble.create(leader, "/known");
    // Once a second it is written down.
    ensemble.advance(Duration::from_secs(1));
    let known = ensemble.disks[&leader].committed;
    assert_eq!(known, ensemble.member(leader).replica.tree().last_zxid());
    // Only the leader logs this.
    ensemble.open(leader);
    ensemble.cut_off.extend(&followers);
    let create = Request::Create(CreateRequest::open("/unknown", "x", CreateMode::Persistent));
    ensemble.send_request(leader, &create);
    let of_two = ensemble.disks[&followers[0]].log.last().unwrap().zxid;
    assert!(ensemble.disks[&leader].log.last().unwrap().zxid > of_two);
    (1..=3).for_each(|id| ensemble.kill(id));
    ensemble.cut_off.clear();
    assert_eq!(ensemble.disks[&leader].committed, known);
    ensemble.start(leader);
    ensemble.advance(Duration::from_secs(3));
    assert!(ensemble.member(leader).replica.is_read_only());

    ensemble.seen = known;
    ensemble.connect(leader, SessionId::NONE, true).expect("it has what the client has seen");
    ensemble.ask(leader, &exists("/known", false)).unwrap();
    assert_eq!(ensemble.ask(leader, &exists("/unknown", false)), Err(OpError::NoNode));
    ensemble.seen = known.next().unwrap();
    assert_eq!(ensemble.connect(leader, SessionId::NONE, true), None);
    ensemble.seen = Zxid::ZERO;

    // And it goes on from there as from anything else.
    ensemble.start(followers[0]);
    ensemble.all_agree();
    let leader = ensemble.leader();
    ensemble.open(leader);
    ensemble.ask(leader, &exists("/unknown", false)).unwrap();
}

/// That it is gone would be believed for ever.
#[test]
fn a_leader_that_may_have_been_replaced_calls_no_session_expired() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let old = ensemble.leader();
    ensemble.cut_off.push(old);
    ensemble.suspended.push(old);
    ensemble.advance(TICK * 10);
    let next = ensemble.up().into_iter().find(|id| *id != old && ensemble.leads(*id)).expect("another leads");
    let session = ensemble.open(next);
    // As if it had heard of its followers until now.
    ensemble.now -= TICK * 10;
    assert_eq!(ensemble.connect(old, session, false), None, "it does not know");
    ensemble.now += TICK * 10;
    ensemble.cut_off.clear();
    ensemble.suspended.clear();
    ensemble.advance(TICK * 3);
    assert_eq!(ensemble.open_as(old, session), session);
}

/// What a learner passes on says that the client is there, before the next ping is answered.
#[test]
fn a_write_that_a_learner_passes_on_keeps_its_session_alive() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    let session = ensemble.open(follower);
    // Of five ticks.
    ensemble.advance(TICK * 4);
    ensemble.create(follower, "/there");
    ensemble.cut_off.push(follower);
    let is_known =
        |ensemble: &mut Ensemble| ensemble.member(leader).replica.tree().sessions().contains(session);
    ensemble.advance(TICK * 4);
    assert!(is_known(&mut ensemble), "it was heard of four ticks ago");
    ensemble.advance(TICK * 4);
    assert!(!is_known(&mut ensemble));
}

/// The leader's own txns have the number 0, and so may a client's request.
#[test]
fn a_request_that_has_the_number_of_the_leaders_txn_is_not_taken_for_it() {
    let mut ensemble = Ensemble::of(3);
    ensemble.advance(TICK);
    let (leader, follower) = (ensemble.leader(), ensemble.followers()[0]);
    ensemble.open(follower);
    // The leader expires the session; the follower does not know it yet.
    let is_closing = |(to, input): &(u8, Input)| {
        *to == follower && matches!(input, Input::Packet(_, crate::zab::Packet::Proposal(_)))
    };
    while !ensemble.queue.iter().any(is_closing) {
        ensemble.settle();
        ensemble.now += Duration::from_millis(10);
        let now = ensemble.now();
        ensemble.member(leader).replica.handle_timeout(now);
        ensemble.carry_out(leader);
    }
    let mut frame = Vec::new();
    Request::Create(CreateRequest::open("/late", "", CreateMode::Persistent)).encode(Xid(0), &mut frame);
    ensemble.give(follower, Input::Frame(ConnectionId(1), frame.into()));
    ensemble.settle();
    assert_eq!(ensemble.member(follower).closed, [(ConnectionId(1), CloseReason::SessionExpired)]);
    assert!(ensemble.member(follower).replica.tree().node("/late").is_none());
}

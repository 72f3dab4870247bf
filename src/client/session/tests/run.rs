//! A session that runs in virtual time, with a test for its servers.

use super::*;

pub(super) const SESSION: SessionId = SessionId(0x0100_0000_0000_0007);
pub(super) const PASSWORD: SessionPassword = SessionPassword([7; 16]);
pub(super) const TIMEOUT: Duration = Duration::from_secs(9);
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_CAP: Duration = Duration::from_secs(3);

/// A session in virtual time, and what it wanted done and is not looked at yet.
pub(super) struct Run {
    pub(super) session: Session,
    pub(super) started: Instant,
    pub(super) now: Instant,
    pub(super) outputs: Vec<Output>,
    pub(super) greeting: Option<ConnectRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientStateName {
    Connecting,
    Connected,
    Expired,
    Closed,
}

impl Run {
    pub(super) fn new() -> Self {
        let now = clock::now();
        let settings = ClientSettings {
            request_timeout: REQUEST_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            close_timeout: CLOSE_TIMEOUT,
            backoff_base: BACKOFF_BASE,
            backoff_cap: BACKOFF_CAP,
            ..ClientSettings::for_servers(["zk1:2181", "zk2:2181", "zk3:2181"])
        };
        let session = Session::new(settings, 7, now);
        Self { session, started: now, now, outputs: Vec::new(), greeting: None }
    }

    /// One that is connected and idle.
    pub(super) fn serving() -> Self {
        let mut run = Self::new();
        run.connect();
        run.outputs.clear();
        run
    }

    pub(super) fn input(&mut self, input: Input) {
        self.session.handle(input, self.now);
        self.outputs.extend(std::iter::from_fn(|| self.session.poll_output()));
    }

    pub(super) fn advance_to_timeout(&mut self) {
        self.now = self.session.poll_timeout().expect("something is due").max(self.now);
        self.input(Input::Tick);
    }

    /// Dials until a server answers the phone, and takes the greeting.
    pub(super) fn dial_and_open(&mut self) {
        while !matches!(self.session.phase, Phase::Dialing { .. }) {
            self.advance_to_timeout();
        }
        self.outputs.clear();
        self.input(Input::Opened);
        let Some(Output::Send(frame)) = self.outputs.pop() else { panic!("no greeting") };
        self.greeting = Some(ConnectRequest::decode(&frame[4..]).unwrap());
    }

    pub(super) fn accept(&mut self, session: SessionId) {
        let timeout_ms = i32::try_from(TIMEOUT.as_millis()).unwrap();
        let response = ConnectResponse { timeout_ms, session, password: PASSWORD, read_only: Some(false) };
        self.frame(|out| response.encode(out));
    }

    pub(super) fn connect(&mut self) -> Vec<ClientStateName> {
        self.dial_and_open();
        self.accept(SESSION);
        self.states()
    }

    pub(super) fn frame(&mut self, content: impl FnOnce(&mut Vec<u8>)) {
        let mut frame = Vec::new();
        content(&mut frame);
        self.input(Input::Frame(frame.into()));
    }

    pub(super) fn submit(&mut self, ticket: u64, request: Request) {
        self.submit_for(ticket, request, None);
    }

    pub(super) fn watch(&mut self, ticket: u64, request: Request) {
        self.submit_for(ticket, request, Some(WatcherId(ticket)));
    }

    pub(super) fn submit_for(&mut self, ticket: u64, request: Request, watcher: Option<WatcherId>) {
        let deadline = self.now + REQUEST_TIMEOUT;
        self.input(Input::Submit { ticket: Ticket(ticket), request, watcher, deadline });
    }

    pub(super) fn reply(&mut self, xid: i32, zxid: i64, error: Option<OpError>, response: &Response) {
        let header = ReplyHeader { xid: Xid(xid), zxid: Zxid::from_raw(zxid), error };
        self.frame(|out| {
            header.encode(out);
            response.encode(out);
        });
    }

    /// A reply with the right xid and any record.
    pub(super) fn reply_to_first(&mut self, error: i32, record: &[u8]) {
        let xid = self.session.pending.front().map_or(1, |pending| pending.xid.0);
        self.frame(|out| {
            out.put_int(xid);
            out.put_long(3);
            out.put_int(error);
            out.extend_from_slice(record);
        });
    }

    pub(super) fn event(&mut self, kind: EventKind, path: &str) {
        self.event_of(-1, kind, path);
    }

    /// An event of a txn, which servers since 3.9 tell.
    pub(super) fn event_of(&mut self, zxid: i64, kind: EventKind, path: &str) {
        self.frame(|out| {
            ReplyHeader { xid: Xid::NOTIFICATION, zxid: Zxid::from_raw(zxid), error: None }.encode(out);
            WatchedEvent { kind, path: path.into() }.encode(out);
        });
    }

    /// What was sent since the last look.
    pub(super) fn sent(&mut self) -> Vec<(Xid, Request)> {
        let mut stream = BytesMut::new();
        self.outputs.retain(|output| {
            let Output::Send(bytes) = output else { return true };
            stream.extend_from_slice(bytes);
            false
        });
        let frames = std::iter::from_fn(|| split_frame(&mut stream, FRAME_BYTES_MAX).unwrap());
        frames
            .map(|frame| {
                let mut reader = Reader::new(&frame);
                let header = RequestHeader::decode(&mut reader).unwrap();
                let op = OpCode::from_code(header.op_code).unwrap();
                (header.xid, Request::decode(op, &mut reader).unwrap().unwrap())
            })
            .collect()
    }

    pub(super) fn sent_xids(&mut self) -> Vec<i32> {
        self.sent().into_iter().map(|(xid, _)| xid.0).collect()
    }

    /// What was completed since the last look.
    pub(super) fn completed(&mut self) -> Vec<(Ticket, Result<Reply, ClientError>)> {
        let (completed, rest) =
            self.outputs.drain(..).partition(|output| matches!(output, Output::Complete(..)));
        self.outputs = rest;
        let completed: Vec<Output> = completed;
        completed
            .into_iter()
            .filter_map(|output| {
                if let Output::Complete(ticket, result) = output { Some((ticket, result)) } else { None }
            })
            .collect()
    }

    pub(super) fn completed_count(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Complete(..))).count()
    }

    pub(super) fn has_hung_up(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::HangUp(_)))
    }

    pub(super) fn states(&self) -> Vec<ClientStateName> {
        let name = |output: &Output| {
            let Output::State(state) = output else { return None };
            Some(match state {
                ClientState::Connecting { .. } => ClientStateName::Connecting,
                ClientState::Connected { .. } => ClientStateName::Connected,
                ClientState::Expired { .. } => ClientStateName::Expired,
                ClientState::Closed => ClientStateName::Closed,
            })
        };
        self.outputs.iter().filter_map(name).collect()
    }
}

pub(super) fn get(path: &str) -> Request {
    Request::GetData { path: path.into(), watch: false }
}

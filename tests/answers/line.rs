//! A line between a sidecar and the member: frames take their time, each way, and it can be cut.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rollcall::client::{ByteStream, Dialer};
use rollcall::clock;
use rollcall::wire::{FRAME_BYTES_MAX, split_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use crate::member::{ClientEvent, Frames, Member};

/// How long bytes take, each way.
pub(crate) const LATENCY: Duration = Duration::from_millis(1);
/// Bytes that are under way at most.
const PIPE_BYTES: usize = 1 << 20;

/// One sidecar's way to the member.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    member: Member,
    is_cut: watch::Sender<bool>,
    /// Frames that the member may still send before the connection ends.
    frames_left: Arc<AtomicUsize>,
    /// Events that are still to be lost.
    events_withheld: Arc<AtomicUsize>,
}

impl Line {
    pub(crate) fn to(member: &Member) -> Self {
        let frames_left = Arc::new(AtomicUsize::new(usize::MAX));
        let is_cut = watch::Sender::new(false);
        Self { member: member.clone(), is_cut, frames_left, events_withheld: Arc::default() }
    }

    /// Ends its connections, and refuses others.
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Ends the connection behind the frames that the member sends next, this many of them.
    pub(crate) fn cut_behind(&self, frames: usize) {
        self.frames_left.store(frames, Ordering::Relaxed);
    }

    /// Loses the event that the member sends next, and nothing else: no member may do that, and TCP does not.
    pub(crate) fn withhold_event(&self) {
        self.events_withheld.store(1, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.send_replace(false);
    }

    /// What a client dials by.
    pub(crate) fn dialer(&self) -> Dialer {
        let line = self.clone();
        Dialer::new(move |_server| {
            let line = line.clone();
            Box::pin(async move { line.dial().await })
        })
    }

    async fn dial(self) -> io::Result<Box<dyn ByteStream>> {
        sleep(2 * LATENCY).await;
        let is_cut = self.is_cut.subscribe();
        if *is_cut.borrow() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(PIPE_BYTES);
        tokio::spawn(self.serve(far, is_cut));
        Ok(Box::new(near))
    }

    /// Carries the frames of one connection until it is closed by either end, or cut.
    async fn serve(self, far: DuplexStream, mut is_cut: watch::Receiver<bool>) {
        let (reader, writer) = split(far);
        let (id, outgoing) = self.member.connect();
        tokio::select! {
            _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            () = carry_in(reader, |frame| self.member.tell(ClientEvent::Frame(id, frame))) => {}
            () = self.carry_out(outgoing, writer) => {}
        }
        self.member.tell(ClientEvent::Disconnected(id));
    }

    async fn carry_out(&self, mut frames: Frames, mut writer: WriteHalf<DuplexStream>) {
        while let Some((sent_at, frame)) = frames.recv().await {
            if !takes_one(&self.frames_left) {
                // The next connection is whole.
                self.frames_left.store(usize::MAX, Ordering::Relaxed);
                return;
            }
            if is_event(&frame) && takes_one(&self.events_withheld) {
                continue;
            }
            sleep_until((sent_at + LATENCY).into()).await;
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    }
}

async fn carry_in(mut reader: ReadHalf<DuplexStream>, deliver: impl Fn(Bytes)) {
    let (under_way, mut arriving) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let read = async move {
        let mut buffer = BytesMut::new();
        while reader.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            while let Some(frame) =
                split_frame(&mut buffer, FRAME_BYTES_MAX).expect("our client sends frames")
            {
                under_way.send((clock::now() + LATENCY, frame)).expect("it is carried on below");
            }
        }
    };
    let arrive = async {
        while let Some((due, frame)) = arriving.recv().await {
            sleep_until(due.into()).await;
            deliver(frame);
        }
    };
    tokio::join!(read, arrive);
}

/// Whether there was one left, which is taken.
fn takes_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Whether a frame with its length is no reply: its xid is -1.
fn is_event(frame: &[u8]) -> bool {
    frame.get(4..8) == Some(&(-1_i32).to_be_bytes())
}

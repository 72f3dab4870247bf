//! One link between a learner and its leader: packets in, packets out, nothing decided.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::outbox::{Inbox, Outgoing, Queue};
use super::progress::Progress;
use crate::ensemble::peers::PeerEvent;
use crate::tree::{ScanError, SnapshotScanner};
use crate::zab::{LinkId, Packet, PacketError, SNAPSHOT_END, split_packet};

/// What a link has to know.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    /// The other end, for logs.
    pub(super) name: String,
    /// Whether this member is the learner, to whom snapshots are sent.
    pub(super) is_dialled: bool,
    /// The longest snapshot.
    pub(super) snapshot_bytes_max: u64,
    pub(super) events: mpsc::Sender<PeerEvent>,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum EndReason {
    #[error("the other end closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Snapshot(#[from] ScanError),
    #[error("the snapshot does not end as it should")]
    SnapshotEnd,
    #[error("this member stops")]
    Stopped,
}

/// How long the other end may take to read what is queued when the link is closed from this side.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// What is read at a time.
const READ_BYTES: usize = 64 << 10;
/// With less room, more is made.
const READ_BYTES_MIN: usize = 4 << 10;
/// The same for snapshots.
const SNAPSHOT_READ_BYTES: usize = 1 << 20;
const SNAPSHOT_READ_BYTES_MIN: usize = 64 << 10;
/// Packets are written together up to this many bytes.
const WRITE_BYTES: usize = 256 << 10;
/// Packets taken off the queue at a time.
const BATCH_MAX: usize = 256;

impl Link {
    /// Serves the link until either side closes it, and tells the driver of the end. `buffer` holds what was read already.
    pub(super) async fn run(self, stream: impl AsyncRead + AsyncWrite, buffer: BytesMut, inbox: Inbox) {
        let (reader, writer) = tokio::io::split(stream);
        let Inbox { outgoing, queue, aborted } = inbox;
        let reader = self.read_packets(reader, buffer, &queue);
        let writer = self.write_packets(writer, outgoing, queue.clone());
        let overdue = async {
            // The driver either aborts the link or drops its end.
            if aborted.await.is_err() {
                tokio::time::sleep(FLUSH_TIME).await;
            }
        };
        tokio::pin!(reader, overdue);
        let is_broken = tokio::select! {
            reason = &mut reader => {
                self.log_end(&reason);
                true
            }
            written = writer => match written {
                Ok(()) => false,
                Err(error) => {
                    debug!(link = self.id.0, peer = %self.name, %error, "link lost");
                    true
                }
            },
            () = &mut overdue => true,
        };
        if !is_broken {
            // Everything is written. Closed with anything unread, the socket might take some of it back.
            tokio::select! {
                _reason = &mut reader => {}
                () = &mut overdue => {}
            }
        }
    }

    fn log_end(&self, reason: &EndReason) {
        let (link, peer) = (self.id.0, &self.name);
        match reason {
            EndReason::Closed | EndReason::Io(_) | EndReason::Stopped => {
                debug!(link, %peer, %reason, "link lost");
            }
            EndReason::Packet(_) | EndReason::Snapshot(_) | EndReason::SnapshotEnd => {
                warn!(link, %peer, %reason, "closing a link for what came over it");
            }
        }
    }

    async fn read_packets(
        &self,
        mut reader: ReadHalf<impl AsyncRead>,
        mut buffer: BytesMut,
        queue: &Queue,
    ) -> EndReason {
        loop {
            match self.pass_on(&mut reader, &mut buffer, queue).await {
                Ok(Flow::On) => {}
                Ok(Flow::Closing) => return discard(reader, buffer).await,
                Err(reason) => return reason,
            }
        }
    }

    /// Passes on the packets that are there, then reads more.
    async fn pass_on(
        &self,
        reader: &mut ReadHalf<impl AsyncRead>,
        buffer: &mut BytesMut,
        queue: &Queue,
    ) -> Result<Flow, EndReason> {
        while let Some(packet) = split_packet(buffer)? {
            if !queue.has_room_for(&packet).await {
                return Ok(Flow::Closing);
            }
            let is_snapshot = self.is_dialled && matches!(packet, Packet::Snap(_));
            self.tell(PeerEvent::Packet(self.id, packet)).await?;
            if is_snapshot {
                let body = self.read_snapshot(reader, buffer).await?;
                self.tell(PeerEvent::SnapshotReceived(self.id, body)).await?;
            }
        }
        read_more(reader, buffer, READ_BYTES_MIN, READ_BYTES).await?;
        Ok(Flow::On)
    }

    async fn read_snapshot(
        &self,
        reader: &mut ReadHalf<impl AsyncRead>,
        buffer: &mut BytesMut,
    ) -> Result<Bytes, EndReason> {
        let mut scanner = SnapshotScanner::new(self.snapshot_bytes_max);
        let mut progress = Progress::new("receiving a snapshot", self.id, &self.name, None);
        let mut scanned = 0;
        let end = loop {
            if let Some(consumed) = scanner.scan(&buffer[scanned..])? {
                break scanned + consumed;
            }
            scanned = buffer.len();
            if progress.report(scanned) {
                self.tell(PeerEvent::Progress(self.id)).await?;
            }
            read_more(reader, buffer, SNAPSHOT_READ_BYTES_MIN, SNAPSHOT_READ_BYTES).await?;
        };
        while buffer.len() < end + SNAPSHOT_END.len() {
            read_more(reader, buffer, READ_BYTES_MIN, READ_BYTES).await?;
        }
        if !buffer[end..].starts_with(SNAPSHOT_END) {
            return Err(EndReason::SnapshotEnd);
        }
        info!(link = self.id.0, peer = %self.name, bytes = end, "received a snapshot");
        let body = buffer.split_to(end).freeze();
        buffer.advance(SNAPSHOT_END.len());
        // Copied, so that what follows does not keep the whole snapshot in memory.
        *buffer = BytesMut::from(&buffer[..]);
        Ok(body)
    }

    async fn tell(&self, event: PeerEvent) -> Result<(), EndReason> {
        self.events.send(event).await.map_err(|_gone| EndReason::Stopped)
    }

    async fn write_packets(
        &self,
        mut writer: WriteHalf<impl AsyncWrite>,
        mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
        queue: Arc<Queue>,
    ) -> io::Result<()> {
        let mut taken = Vec::with_capacity(BATCH_MAX);
        let mut batch = Batch::default();
        while outgoing.recv_many(&mut taken, BATCH_MAX).await > 0 {
            for next in taken.drain(..) {
                match next {
                    Outgoing::Packet { packet, weight } => batch.push(&packet, weight),
                    Outgoing::Raw(bytes) => {
                        batch.write(&mut writer, &queue).await?;
                        self.write_raw(&mut writer, bytes).await?;
                    }
                }
                if batch.bytes.len() >= WRITE_BYTES {
                    batch.write(&mut writer, &queue).await?;
                }
            }
            batch.write(&mut writer, &queue).await?;
            writer.flush().await?;
        }
        writer.shutdown().await
    }

    async fn write_raw(&self, writer: &mut WriteHalf<impl AsyncWrite>, mut bytes: Bytes) -> io::Result<()> {
        let mut progress = Progress::new("sending a snapshot", self.id, &self.name, Some(bytes.len()));
        let total = bytes.len();
        while bytes.has_remaining() {
            writer.write_buf(&mut bytes).await?;
            if progress.report(total - bytes.len()) {
                // Without the driver there is nobody to tell, and the link ends.
                let _ = self.tell(PeerEvent::Progress(self.id)).await;
            }
        }
        Ok(())
    }
}

/// What to do after some packets.
enum Flow {
    On,
    /// The driver has closed the link.
    Closing,
}

/// Packets that are written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// What they count as.
    weight: usize,
}

impl Batch {
    fn push(&mut self, packet: &Packet, weight: usize) {
        packet.encode(&mut self.bytes);
        self.weight += weight;
    }

    async fn write(&mut self, writer: &mut WriteHalf<impl AsyncWrite>, queue: &Queue) -> io::Result<()> {
        writer.write_all(&self.bytes).await?;
        queue.outgoing_bytes.fetch_sub(std::mem::take(&mut self.weight), Ordering::Relaxed);
        self.bytes.clear();
        // A long packet is no reason to keep its memory.
        self.bytes.shrink_to(2 * WRITE_BYTES);
        Ok(())
    }
}

/// Reads at least a byte, with room for `bytes` when there is less than `bytes_min`.
async fn read_more(
    reader: &mut ReadHalf<impl AsyncRead>,
    buffer: &mut BytesMut,
    bytes_min: usize,
    bytes: usize,
) -> Result<(), EndReason> {
    if buffer.capacity() - buffer.len() < bytes_min {
        buffer.reserve(bytes);
    }
    match reader.read_buf(buffer).await? {
        0 => Err(EndReason::Closed),
        _ => Ok(()),
    }
}

/// Reads on until the other end has closed the link, too.
async fn discard(mut reader: ReadHalf<impl AsyncRead>, mut buffer: BytesMut) -> EndReason {
    loop {
        buffer.clear();
        if let Err(reason) = read_more(&mut reader, &mut buffer, READ_BYTES_MIN, READ_BYTES).await {
            return reason;
        }
    }
}

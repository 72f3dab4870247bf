//! The driver's end of a link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::id::Zxid;
use crate::zab::{Packet, SNAPSHOT_END};

/// What is queued for a link. Dropping it closes the link once all of it is written, or the other end has had time enough
/// to read it.
#[derive(Debug)]
pub(in crate::ensemble) struct LinkOutbox {
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Whether what is sent counts: not what brings a learner up to date, all of which is queued at once, and in memory anyway.
    is_counting: bool,
    queue: Arc<Queue>,
    bytes_max: usize,
    /// Tells the link that it ends at once; that this is gone tells it to end once everything is written.
    abort: Option<oneshot::Sender<()>>,
}

/// The link's end of it.
pub(super) struct Inbox {
    pub(super) outgoing: mpsc::UnboundedReceiver<Outgoing>,
    pub(super) queue: Arc<Queue>,
    pub(super) aborted: oneshot::Receiver<()>,
}

/// What is under way in both directions.
#[derive(Debug)]
pub(super) struct Queue {
    /// Bytes that wait to be written, without snapshots.
    pub(super) outgoing_bytes: AtomicUsize,
    /// What may be read before the driver has seen what was read before.
    incoming: Semaphore,
}

#[derive(Debug)]
pub(super) enum Outgoing {
    Packet {
        packet: Packet,
        weight: usize,
    },
    /// Parts of a snapshot.
    Raw(Bytes),
}

/// Whether there was room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ensemble) enum Queued {
    Yes,
    /// The other end does not read; the link ends.
    Overflow,
}

/// What a packet that waits takes in memory beside its bytes.
const PACKET_BYTES: usize = 128;
/// Packets that were read and that the driver has not seen yet may have this many bytes, but for a single one that is
/// longer. Beyond, the link is not read, so that TCP slows the other end down.
const INCOMING_BYTES_MAX: usize = 16 << 20;
/// What is counted of them.
const UNIT_BYTES: usize = 1 << 10;
const UNITS_MAX: usize = INCOMING_BYTES_MAX / UNIT_BYTES;

impl LinkOutbox {
    /// A queue of so many bytes; to a learner nothing counts before NEWLEADER.
    pub(super) fn new(bytes_max: usize, is_to_learner: bool) -> (Self, Inbox) {
        let (queued, outgoing) = mpsc::unbounded_channel();
        let (abort, aborted) = oneshot::channel();
        let queue =
            Arc::new(Queue { outgoing_bytes: AtomicUsize::new(0), incoming: Semaphore::new(UNITS_MAX) });
        let inbox = Inbox { outgoing, queue: queue.clone(), aborted };
        let is_counting = !is_to_learner;
        (Self { outgoing: queued, is_counting, queue, bytes_max, abort: Some(abort) }, inbox)
    }

    /// Queues a packet. After an overflow the link ends, and nothing is queued any more.
    pub(in crate::ensemble) fn send(&mut self, packet: Packet) -> Queued {
        if self.abort.is_none() {
            return Queued::Yes;
        }
        let bytes = if self.is_counting { weight(&packet) } else { 0 };
        self.is_counting |= matches!(packet, Packet::NewLeader { .. });
        let before = self.queue.outgoing_bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single packet always finds room, however long it is.
        if before > 0 && before + bytes > self.bytes_max {
            self.abort();
            return Queued::Overflow;
        }
        // A link that has ended says so to the driver by itself.
        let _ = self.outgoing.send(Outgoing::Packet { packet, weight: bytes });
        Queued::Yes
    }

    /// Queues a snapshot, with the packet before it and the mark behind it. It is not counted: the tree is in memory anyway.
    pub(in crate::ensemble) fn send_snapshot(&mut self, zxid: Zxid, body: Bytes) -> Queued {
        let queued = self.send(Packet::Snap(zxid));
        if queued == Queued::Yes && self.abort.is_some() {
            // As above.
            let _ = self.outgoing.send(Outgoing::Raw(body));
            let _ = self.outgoing.send(Outgoing::Raw(Bytes::from_static(SNAPSHOT_END)));
        }
        queued
    }

    /// Lets the link read on after the driver has seen this packet.
    pub(in crate::ensemble) fn release(&self, packet: &Packet) {
        self.queue.incoming.add_permits(units(packet) as usize);
    }

    fn abort(&mut self) {
        if let Some(abort) = self.abort.take() {
            // As above.
            let _ = abort.send(());
        }
    }
}

impl Drop for LinkOutbox {
    fn drop(&mut self) {
        // The reader need not wait for the driver any more: what it reads is no longer looked at.
        self.queue.incoming.close();
    }
}

impl Queue {
    /// Waits until there is room for another packet that was read; false when the driver has closed the link.
    pub(super) async fn has_room_for(&self, packet: &Packet) -> bool {
        match self.incoming.acquire_many(units(packet)).await {
            Ok(permits) => {
                permits.forget();
                true
            }
            Err(_closed) => false,
        }
    }
}

/// What a packet counts as while it waits to be written.
pub(super) fn weight(packet: &Packet) -> usize {
    packet.bytes() + PACKET_BYTES
}

/// What a packet counts as while it waits to be seen.
fn units(packet: &Packet) -> u32 {
    let units = (packet.bytes() / UNIT_BYTES + 1).min(UNITS_MAX);
    u32::try_from(units).expect("the bound is below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    /// All of it is queued before any of it can be written.
    #[test]
    fn what_brings_a_learner_up_to_date_is_never_too_much() {
        let (mut outbox, _inbox) = LinkOutbox::new(1_000, true);
        let proposal = || Packet::Commit(Zxid::new(Epoch(1), 1));
        for _ in 0..1_000 {
            assert_eq!(outbox.send(proposal()), Queued::Yes);
        }
        let zxid = Zxid::new(Epoch(1), 0);
        assert_eq!(outbox.send(Packet::NewLeader { zxid, config: Bytes::new() }), Queued::Yes);
        let queued = (0..1_000).take_while(|_| outbox.send(proposal()) == Queued::Yes).count();
        assert!(queued < 10, "{queued} were queued for one that does not read");
    }
}

//! One end of a link as a pure machine: items are queued, leave in numbered batches when the stream can take them,
//! stay in the ring until acknowledged, and are sent again after a reset. Both sides of a link use it.
//!
//! An item is encoded once, when it is queued, behind the items before it. A batch is therefore one buffer, whatever
//! its number of items.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::ring::Ring;

/// Bounds of one end of a link.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A batch closes at this many items or bytes, whichever comes first.
    pub batch_items: usize,
    pub batch_bytes: usize,
    /// Queued bytes beyond which items that may be dropped are refused.
    pub soft_bytes: usize,
    /// Queued bytes beyond which every item is refused and the link has to start anew.
    pub hard_bytes: usize,
    /// Sent and unacknowledged bytes kept for a reset.
    pub ring_bytes: usize,
    /// How long a backend keeps a broken link before the gateway counts as down.
    pub grace: Duration,
    /// Least time between two batches that are not full. A frame costs both ends about as much as ten items, however
    /// many it carries. After an idle interval, an item leaves at once.
    pub interval: Duration,
    /// How long an acknowledgement waits for a batch.
    pub acknowledge: Duration,
    /// How long deferred items, such as joined and left sessions, wait for a batch.
    pub deferral: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_items: 1024,
            batch_bytes: 256 << 10,
            soft_bytes: 4 << 20,
            hard_bytes: 16 << 20,
            ring_bytes: 8 << 20,
            grace: Duration::from_secs(5),
            interval: Duration::from_millis(2),
            acknowledge: Duration::from_millis(20),
            deferral: Duration::from_millis(20),
        }
    }
}

/// The bound for this item is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link is full")]
pub struct Full;

/// The next frame for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outgoing {
    Batch { sequence: u64, ack: u64, batch: Batch },
    Ack(u64),
}

/// Encoded items and their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) items: Bytes,
    pub(crate) count: usize,
}

/// How an arriving batch relates to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    /// It has arrived before and was sent again after a reset.
    Duplicate,
    /// At least one batch before it is missing: the peer is faulty.
    Gap,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    limits: Limits,
    /// Full batches, and the one that is being filled.
    waiting: VecDeque<OpenBatch>,
    waiting_bytes: usize,
    sent: Ring<Batch>,
    /// Number of the next batch to take from the ring; one above the newest if none has to be sent again.
    cursor: u64,
    received: u64,
    acked: u64,
}

#[derive(Debug, Default)]
struct OpenBatch {
    items: BytesMut,
    count: usize,
}

impl Pipe {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: Ring::new(limits.ring_bytes),
            cursor: 1,
            received: 0,
            acked: 0,
        }
    }

    /// Queues an item that must arrive, of about this many bytes; `encode` appends it as it stands in a batch.
    ///
    /// # Errors
    /// [`Full`]: the link has to start anew, because the item would be lost silently.
    pub(crate) fn push(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Full> {
        self.push_below(self.limits.hard_bytes, bytes, encode)
    }

    /// Queues an item that may be dropped.
    ///
    /// # Errors
    /// [`Full`]: it was dropped.
    pub(crate) fn offer(&mut self, bytes: usize, encode: impl FnOnce(&mut BytesMut)) -> Result<(), Full> {
        self.push_below(self.limits.soft_bytes, bytes, encode)
    }

    fn push_below(
        &mut self,
        bound: usize,
        bytes: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<(), Full> {
        if self.waiting_bytes + bytes > bound {
            return Err(Full);
        }
        let Limits { batch_items, batch_bytes, .. } = self.limits;
        let has_room = |last: &OpenBatch| last.count < batch_items && last.items.len() + bytes <= batch_bytes;
        if !self.waiting.back().is_some_and(has_room) {
            self.waiting.push_back(OpenBatch::default());
        }
        if let Some(last) = self.waiting.back_mut() {
            let before = last.items.len();
            encode(&mut last.items);
            last.count += 1;
            self.waiting_bytes += last.items.len() - before;
        }
        Ok(())
    }

    /// Whether a batch is queued or has to be sent again.
    pub(crate) fn has_batch(&self) -> bool {
        !self.waiting.is_empty() || self.has_retransmission()
    }

    /// Whether the next batch is full or was sent before, so that waiting cannot fill it.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() > 1 || self.has_retransmission()
    }

    fn has_retransmission(&self) -> bool {
        self.cursor <= self.sent.last()
    }

    /// Whether a batch has arrived that is not acknowledged yet.
    pub(crate) fn ack_pending(&self) -> bool {
        self.acked < self.received
    }

    /// Call when the stream can take a frame, until `None`.
    pub(crate) fn next(&mut self) -> Option<Outgoing> {
        if !self.has_retransmission()
            && let Some(OpenBatch { items, count }) = self.waiting.pop_front()
        {
            let bytes = items.len();
            self.waiting_bytes -= bytes;
            self.sent.push(Batch { items: items.freeze(), count }, bytes);
        }
        if let Some(batch) = self.sent.get(self.cursor).cloned() {
            let sequence = self.cursor;
            self.cursor += 1;
            self.acked = self.received;
            return Some(Outgoing::Batch { sequence, ack: self.received, batch });
        }
        if self.ack_pending() {
            self.acked = self.received;
            return Some(Outgoing::Ack(self.received));
        }
        None
    }

    pub(crate) fn arrived(&mut self, sequence: u64, ack: u64) -> Arrival {
        self.sent.acknowledge(ack);
        if sequence <= self.received {
            return Arrival::Duplicate;
        }
        if sequence > self.received + 1 {
            return Arrival::Gap;
        }
        self.received = sequence;
        Arrival::New
    }

    pub(crate) fn acknowledged(&mut self, ack: u64) {
        self.sent.acknowledge(ack);
    }

    pub(crate) fn can_resume(&self, peer_received: u64) -> bool {
        self.sent.can_resume(peer_received)
    }

    /// A new stream begins, and the peer has everything up to `peer_received`. Later batches are sent again. Call
    /// only if [`Pipe::can_resume`] allows it.
    pub(crate) fn resume(&mut self, peer_received: u64) {
        self.sent.acknowledge(peer_received);
        self.cursor = peer_received + 1;
        self.acked = self.received;
    }

    /// Highest batch received, for the hello of the next stream.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether there is room for keyframes that replace dropped messages.
    pub(crate) fn has_headroom(&self) -> bool {
        self.waiting_bytes <= self.limits.soft_bytes / 4
    }

    #[cfg(test)]
    fn kept_bytes(&self) -> usize {
        self.sent.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> Limits {
        Limits {
            batch_items: 3,
            batch_bytes: 30,
            soft_bytes: 50,
            hard_bytes: 100,
            ring_bytes: 60,
            ..Limits::default()
        }
    }

    /// Appends `size` bytes of this value.
    fn item(value: u8, size: usize) -> impl FnOnce(&mut BytesMut) {
        move |out| out.extend_from_slice(&vec![value; size])
    }

    fn batch(sequence: u64, ack: u64, items: &[u8], count: usize) -> Option<Outgoing> {
        let batch = Batch { items: Bytes::copy_from_slice(items), count };
        Some(Outgoing::Batch { sequence, ack, batch })
    }

    #[test]
    fn waiting_items_leave_in_full_batches() {
        let mut pipe = Pipe::new(small());
        for n in 0..4 {
            pipe.push(2, item(n, 2)).unwrap();
        }
        assert!(pipe.is_full());
        assert_eq!(pipe.next(), batch(1, 0, &[0, 0, 1, 1, 2, 2], 3));
        assert!(pipe.has_batch() && !pipe.is_full());
        assert_eq!(pipe.next(), batch(2, 0, &[3, 3], 1));
        assert_eq!(pipe.next(), None);
    }

    #[test]
    fn item_larger_than_a_batch_is_sent_alone() {
        let mut pipe = Pipe::new(small());
        pipe.push(1, item(1, 1)).unwrap();
        pipe.push(40, item(2, 40)).unwrap();
        assert_eq!(pipe.next(), batch(1, 0, &[1], 1));
        assert_eq!(pipe.next(), batch(2, 0, &[2; 40], 1));
    }

    #[test]
    fn droppable_items_are_refused_before_reliable_ones() {
        let mut pipe = Pipe::new(small());
        pipe.offer(45, item(1, 45)).unwrap();
        assert_eq!(pipe.offer(10, item(2, 10)), Err(Full));
        pipe.push(50, item(3, 50)).unwrap();
        assert_eq!(pipe.push(10, item(4, 10)), Err(Full));
    }

    #[test]
    fn ack_is_sent_once_with_a_batch_or_alone() {
        let mut pipe = Pipe::new(small());
        assert_eq!(pipe.arrived(1, 0), Arrival::New);
        assert!(pipe.ack_pending() && !pipe.has_batch());
        assert_eq!(pipe.next(), Some(Outgoing::Ack(1)));
        assert_eq!(pipe.next(), None);
        assert_eq!(pipe.arrived(2, 0), Arrival::New);
        pipe.push(1, item(7, 1)).unwrap();
        assert_eq!(pipe.next(), batch(1, 2, &[7], 1));
        assert!(!pipe.ack_pending());
        assert_eq!(pipe.next(), None);
    }

    #[test]
    fn gap_and_duplicate_batches_are_distinguished() {
        let mut pipe = Pipe::new(small());
        assert_eq!(pipe.arrived(1, 0), Arrival::New);
        assert_eq!(pipe.arrived(1, 0), Arrival::Duplicate);
        assert_eq!(pipe.arrived(3, 0), Arrival::Gap);
    }

    /// A step of two ends with frames on their way between them.
    #[derive(Debug, Clone)]
    enum Step {
        Push,
        /// The stream takes a frame of end 0 or 1.
        Transmit(usize),
        /// A frame arrives at end 0 or 1.
        Receive(usize),
        /// The stream breaks: frames on their way are lost, and both ends compare counts.
        Reset,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            3 => (0..2usize).prop_map(Step::Transmit),
            3 => (0..2usize).prop_map(Step::Receive),
            1 => Just(Step::Reset),
        ]
    }

    struct Pair {
        ends: [Pipe; 2],
        in_flight: [VecDeque<Outgoing>; 2],
        delivered: Vec<u32>,
    }

    impl Pair {
        fn transmit(&mut self, from: usize) -> bool {
            let frame = self.ends[from].next();
            let some = frame.is_some();
            self.in_flight[1 - from].extend(frame);
            some
        }

        fn receive(&mut self, at: usize) -> bool {
            let Some(frame) = self.in_flight[at].pop_front() else { return false };
            match frame {
                Outgoing::Ack(ack) => self.ends[at].acknowledged(ack),
                Outgoing::Batch { sequence, ack, batch } => match self.ends[at].arrived(sequence, ack) {
                    Arrival::New => {
                        let items = batch.items.chunks_exact(4).map(|it| it.try_into().unwrap());
                        self.delivered.extend(items.map(u32::from_le_bytes));
                    }
                    Arrival::Duplicate => {}
                    Arrival::Gap => panic!("a stream is in order"),
                },
            }
            true
        }

        fn reset(&mut self) {
            self.in_flight = Default::default();
            for (here, there) in [(0, 1), (1, 0)] {
                let received = self.ends[there].received();
                assert!(self.ends[here].can_resume(received), "the ring is large enough in this test");
                self.ends[here].resume(received);
            }
        }
    }

    proptest! {
        #[test]
        fn resets_lose_and_repeat_no_item(steps in prop::collection::vec(step(), 0..400)) {
            let limits = Limits { ring_bytes: 1 << 20, hard_bytes: 1 << 20, ..small() };
            let mut pair = Pair {
                ends: [Pipe::new(limits), Pipe::new(limits)],
                in_flight: Default::default(),
                delivered: Vec::new(),
            };
            let mut pushed = 0u32;
            for step in steps {
                match step {
                    Step::Push => {
                        pair.ends[0].push(4, |out| out.extend_from_slice(&pushed.to_le_bytes())).unwrap();
                        pushed += 1;
                    }
                    Step::Transmit(from) => { pair.transmit(from); }
                    Step::Receive(at) => { pair.receive(at); }
                    Step::Reset => pair.reset(),
                }
            }
            pair.reset();
            while pair.transmit(0) | pair.transmit(1) | pair.receive(0) | pair.receive(1) {}
            prop_assert_eq!(pair.delivered, (0..pushed).collect::<Vec<_>>());
            prop_assert_eq!(pair.ends[0].kept_bytes(), 0, "everything is acknowledged in the end");
        }
    }
}

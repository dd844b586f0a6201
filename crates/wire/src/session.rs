//! The reliable log. Both sides count reliable messages without a number on the wire, keep sent messages until they
//! are acknowledged, and send them again after a resume. Client and server use the same types.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::message::{Kind, Message};

/// Whether messages of this kind and opcode are counted (`docs/protocol.md`, section 10).
pub const fn is_reliable(kind: Kind, opcode: u16) -> bool {
    let attaching = opcode >= 0x0200 && opcode <= 0x02ff;
    match kind {
        Kind::State => false,
        Kind::Event => opcode >= 0x0100 && !attaching,
        Kind::Request | Kind::Reply => !attaching,
    }
}

impl<B: AsRef<[u8]>> Message<B> {
    pub fn is_reliable(&self) -> bool {
        is_reliable(self.kind(), self.opcode)
    }
}

/// Limits of the unacknowledged messages of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub messages: usize,
    pub bytes: usize,
}

impl Bounds {
    pub const CLIENT: Self = Self { messages: 256, bytes: 64 * 1024 };
    pub const SERVER: Self = Self { messages: 1_024, bytes: 512 * 1024 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The peer is too slow. The message was not logged.
    #[error("{messages} messages and {bytes} bytes are not acknowledged")]
    Overflow { messages: usize, bytes: usize },
    /// The peer acknowledged messages that were never sent.
    #[error("{received} acknowledged, {sent} sent")]
    NeverSent { received: u64, sent: u64 },
    /// The peer requests messages that it acknowledged before.
    #[error("resume from {received}, but {acknowledged} were acknowledged")]
    AlreadyAcknowledged { received: u64, acknowledged: u64 },
}

impl SessionError {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Overflow { .. } => "log_overflow",
            Self::NeverSent { .. } => "ack_never_sent",
            Self::AlreadyAcknowledged { .. } => "resume_already_acknowledged",
        }
    }
}

/// Sent messages that the peer has not acknowledged. Bound: `Bounds`. Overflow: the message is refused and the
/// session ends.
#[derive(Debug, Clone)]
pub struct Outbox {
    log: VecDeque<Bytes>,
    bytes: usize,
    acknowledged: u64,
    bounds: Bounds,
}

impl Outbox {
    pub fn new(bounds: Bounds) -> Self {
        Self { log: VecDeque::new(), bytes: 0, acknowledged: 0, bounds }
    }

    /// Continues the log of another holder of the session. `sent` includes the messages of `unacknowledged`.
    pub fn restore(bounds: Bounds, sent: u64, unacknowledged: impl IntoIterator<Item = Bytes>) -> Self {
        let log: VecDeque<Bytes> = unacknowledged.into_iter().collect();
        let bytes = log.iter().map(Bytes::len).sum();
        let acknowledged = sent.saturating_sub(log.len() as u64);
        Self { log, bytes, acknowledged, bounds }
    }

    /// Logs an encoded reliable message and returns its number.
    pub fn push(&mut self, message: Bytes) -> Result<u64, SessionError> {
        if !self.has_room(message.len()) {
            return Err(SessionError::Overflow { messages: self.log.len(), bytes: self.bytes });
        }
        self.bytes += message.len();
        self.log.push_back(message);
        Ok(self.sent())
    }

    /// Releases memory that a longer log needed.
    pub fn shrink(&mut self) {
        self.log.shrink_to_fit();
    }

    /// Whether the bounds allow another message of this size.
    pub fn has_room(&self, size: usize) -> bool {
        self.log.len() < self.bounds.messages && self.bytes + size <= self.bounds.bytes
    }

    /// Removes messages up to `received`. Ignores an acknowledgement older than the last one.
    pub fn acknowledge(&mut self, received: u64) -> Result<(), SessionError> {
        let sent = self.sent();
        if received > sent {
            return Err(SessionError::NeverSent { received, sent });
        }
        while self.acknowledged < received {
            self.bytes -= self.log.pop_front().map_or(0, |message| message.len());
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// After a resume: the messages to send again, in order, before new ones.
    pub fn resume_from(&mut self, received: u64) -> Result<impl Iterator<Item = &Bytes>, SessionError> {
        if received < self.acknowledged {
            return Err(SessionError::AlreadyAcknowledged { received, acknowledged: self.acknowledged });
        }
        self.acknowledge(received)?;
        Ok(self.log.iter())
    }

    /// Clears the log and sets the count to 0, after a resume without the log.
    pub fn restart(&mut self) {
        *self = Self::new(self.bounds);
    }

    /// The message with this number, if it is unacknowledged.
    pub fn get(&self, number: u64) -> Option<&Bytes> {
        let index = number.checked_sub(self.acknowledged + 1)?;
        self.log.get(usize::try_from(index).ok()?)
    }

    /// Number of the last sent message.
    pub fn sent(&self) -> u64 {
        self.acknowledged + self.log.len() as u64
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Unacknowledged messages in order. The first one has the number `acknowledged() + 1`.
    pub fn unacknowledged(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.log.iter()
    }
}

/// An `Ack` is due after this many reliable messages, or this long after the first of them.
pub const ACK_AFTER: u64 = 32;
pub const ACK_WITHIN: Duration = Duration::from_millis(500);

/// Counts the reliable messages of the peer.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    received: u64,
    acknowledged: u64,
    oldest: Option<Instant>,
}

impl Inbox {
    pub fn restore(received: u64) -> Self {
        Self { received, acknowledged: received, oldest: None }
    }

    /// Counts a received reliable message.
    pub fn receive(&mut self, now: Instant) {
        self.received += 1;
        self.oldest.get_or_insert(now);
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether an `Ack` must be sent now.
    pub fn ack_due(&self, now: Instant) -> bool {
        self.received - self.acknowledged >= ACK_AFTER || self.deadline().is_some_and(|at| at <= now)
    }

    /// Whether to send an `Ack` now. With `has_output` the `Ack` shares a record with other messages, so it is sent
    /// earlier.
    pub fn should_send_ack(&self, now: Instant, has_output: bool) -> bool {
        self.ack_due(now) || (has_output && self.can_piggyback_ack(now))
    }

    fn can_piggyback_ack(&self, now: Instant) -> bool {
        self.received - self.acknowledged >= ACK_AFTER / 2
            || self.oldest.is_some_and(|at| now >= at + ACK_WITHIN / 2)
    }

    /// Latest time for the next `Ack`. `None` if there is nothing to acknowledge.
    pub fn deadline(&self) -> Option<Instant> {
        self.oldest.map(|at| at + ACK_WITHIN)
    }

    /// Returns the count for an `Ack`, `Confirm` or `SessionReady` that is sent now.
    pub fn acknowledge(&mut self) -> u64 {
        self.acknowledged = self.received;
        self.oldest = None;
        self.received
    }

    /// Sets the count to 0. Both sides count reliable messages from 0 after a resume without the log.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::opcode;

    fn message(byte: u8) -> Bytes {
        Bytes::from(vec![byte])
    }

    #[test]
    fn is_reliable_follows_numbering_rule() {
        for (kind, opcode, numbered) in [
            (Kind::Request, opcode::SPEAK, true),
            (Kind::Reply, opcode::SPEAK, true),
            (Kind::Reply, opcode::ERROR, true),
            (Kind::Event, opcode::ERROR, false),
            (Kind::Event, opcode::ACK, false),
            (Kind::Event, 0x0100, true),
            (Kind::Event, 0x01ff, true),
            (Kind::Event, opcode::REDIRECT, false),
            (Kind::Request, opcode::LOGOUT, false),
            (Kind::Reply, opcode::CONFIRM, false),
            (Kind::Event, 0x0300, true),
            (Kind::Event, 0x9000, true),
            (Kind::State, opcode::CELL, false),
        ] {
            assert_eq!(is_reliable(kind, opcode), numbered, "{kind:?} {opcode:#06x}");
        }
    }

    #[test]
    fn invalid_acknowledgement_is_refused() {
        let mut outbox = Outbox::new(Bounds::CLIENT);
        for byte in 0..5 {
            outbox.push(message(byte)).unwrap();
        }
        assert_eq!(outbox.acknowledge(6), Err(SessionError::NeverSent { received: 6, sent: 5 }));
        outbox.acknowledge(3).unwrap();
        outbox.acknowledge(2).unwrap();
        assert_eq!(outbox.acknowledged(), 3);
        assert_eq!(
            outbox.resume_from(2).err(),
            Some(SessionError::AlreadyAcknowledged { received: 2, acknowledged: 3 })
        );
        assert_eq!(outbox.resume_from(4).unwrap().collect::<Vec<_>>(), [&message(4)]);
        assert_eq!(outbox.acknowledge(u64::MAX).unwrap_err().label(), "ack_never_sent");
    }

    #[test]
    fn outbox_is_bounded_by_count_and_bytes() {
        let mut outbox = Outbox::new(Bounds { messages: 2, bytes: 10 });
        outbox.push(Bytes::from_static(b"12345678")).unwrap();
        assert!(outbox.push(Bytes::from_static(b"123")).is_err());
        outbox.push(message(1)).unwrap();
        assert_eq!(outbox.push(message(1)), Err(SessionError::Overflow { messages: 2, bytes: 9 }));
        outbox.acknowledge(1).unwrap();
        assert_eq!(outbox.push(message(1)), Ok(3));
        assert_eq!(outbox.bytes(), 2);
    }

    #[test]
    fn acks_are_due_by_count_or_time() {
        let (mut inbox, start) = (Inbox::default(), Instant::now());
        assert_eq!(inbox.deadline(), None);
        inbox.receive(start);
        assert!(!inbox.ack_due(start) && !inbox.can_piggyback_ack(start));
        assert!(inbox.ack_due(start + ACK_WITHIN) && inbox.can_piggyback_ack(start + ACK_WITHIN / 2));
        (1..ACK_AFTER).for_each(|_| inbox.receive(start));
        assert!(inbox.ack_due(start));
        assert!(inbox.should_send_ack(start, false) && inbox.should_send_ack(start, true));
        assert_eq!(inbox.acknowledge(), ACK_AFTER);
        (0..ACK_AFTER / 2).for_each(|_| inbox.receive(start));
        assert!(!inbox.should_send_ack(start, false) && inbox.should_send_ack(start, true));
        assert_eq!(inbox.acknowledge(), ACK_AFTER + ACK_AFTER / 2);
        assert!(!inbox.ack_due(start + ACK_WITHIN));
    }

    proptest! {
        /// After a resume the peer has every message once and in order, whatever the connection lost.
        #[test]
        fn log_delivers_each_message_once_across_resumes(steps in proptest::collection::vec((0u8..4, any::<u8>()), 1..200)) {
            let mut outbox = Outbox::new(Bounds::SERVER);
            let mut inbox = Inbox::default();
            let (mut sent, mut seen, mut in_flight) = (Vec::new(), Vec::new(), VecDeque::new());
            let now = Instant::now();
            for (step, byte) in steps {
                match step {
                    0 => {
                        outbox.push(message(byte)).unwrap();
                        sent.push(message(byte));
                        in_flight.push_back(message(byte));
                    }
                    1 => if let Some(message) = in_flight.pop_front() {
                        inbox.receive(now);
                        seen.push(message);
                    }
                    2 => outbox.acknowledge(inbox.acknowledge()).unwrap(),
                    _ => in_flight = outbox.resume_from(inbox.received()).unwrap().cloned().collect(),
                }
            }
            seen.extend(outbox.resume_from(inbox.received()).unwrap().cloned());
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn restored_outbox_keeps_its_counters(pushed in 0usize..50, acknowledged in 0u64..50) {
            let mut outbox = Outbox::new(Bounds::SERVER);
            (0..pushed).for_each(|n| { outbox.push(message(n as u8)).unwrap(); });
            let _ = outbox.acknowledge(acknowledged);
            let moved = Outbox::restore(Bounds::SERVER, outbox.sent(), outbox.unacknowledged().cloned());
            prop_assert_eq!(moved.sent(), outbox.sent());
            prop_assert_eq!(moved.acknowledged(), outbox.acknowledged());
            prop_assert_eq!(moved.bytes(), outbox.bytes());
        }
    }
}

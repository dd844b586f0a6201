//! The sending half of a session: what waits to be sent, in order, and how it becomes records.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use shardkeep_wire::{
    Head, Message, Side, WireError, opcode,
    payload::Ack,
    record::Writer,
    session::{Bounds, Inbox, Outbox},
};

use crate::{
    counters::{Counters, add, count},
    raw::{Connection, key_update},
};

/// Counts of both directions, and what is not sent yet. Survives connections.
pub(super) struct SessionQueues {
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// Encoded messages in order. Bound: the outbox's, and a few control messages.
    queue: VecDeque<Bytes>,
    /// The newest state messages. Bound: distinct opcode, class and key, of which a client has a handful.
    states: Vec<Message>,
}

impl SessionQueues {
    pub(super) fn new() -> Self {
        Self {
            outbox: Outbox::new(Bounds::CLIENT),
            inbox: Inbox::default(),
            queue: VecDeque::new(),
            states: Vec::new(),
        }
    }

    /// Whether another message of any size may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.has_room(Side::Client.max_plaintext())
    }

    pub(super) fn enqueue(&mut self, message: Message) -> Result<(), WireError> {
        if let Head::State { class, key } = message.head {
            let same =
                |other: &Message| other.opcode == message.opcode && other.head == Head::State { class, key };
            self.states.retain(|other| !same(other));
            self.states.push(message);
            return Ok(());
        }
        let bytes = message.to_bytes();
        if message.is_reliable() {
            self.outbox.push(bytes.clone())?;
        }
        self.queue.push_back(bytes);
        Ok(())
    }

    /// After a resume with the log intact: queues the messages that the server has not received, before any new
    /// message. Returns their number.
    pub(super) fn replay(&mut self, received: u64) -> Result<usize, WireError> {
        self.queue = self.outbox.resume_from(received)?.cloned().collect();
        Ok(self.queue.len())
    }

    /// After a resume without the log: both counts start again, and the queue is emptied.
    pub(super) fn restart(&mut self) {
        self.outbox.restart();
        self.inbox.restart();
        self.queue.clear();
    }

    /// Turns the queued messages into sealed records, unless the connection still has bytes to write. Returns true if
    /// a record was added.
    pub(super) fn fill(
        &mut self,
        connection: &mut Connection,
        keys: &mut KeyAge,
        counters: &Counters,
    ) -> Result<bool, WireError> {
        let Some(crypt) = &mut connection.crypt else { return Ok(false) };
        if !connection.outbound.is_empty() {
            return Ok(false);
        }
        let now = Instant::now();
        if self.inbox.should_send_ack(now, !self.queue.is_empty()) {
            let received = self.inbox.acknowledge();
            self.queue.push_front(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        while !self.queue.is_empty() || !self.states.is_empty() || keys.update_requested {
            let mut writer = Writer::begin(&mut connection.outbound, Side::Client);
            while let Some(message) = self.queue.front() {
                if writer.push_encoded(message).is_err() {
                    break;
                }
                self.queue.pop_front();
                count(&counters.sent_messages);
            }
            self.states.retain(|state| {
                let pushed = writer.push(state).is_ok();
                add(&counters.sent_messages, pushed.into());
                !pushed
            });
            let update =
                (keys.update_requested || crypt.sealer.update_due()) && writer.push(&key_update()).is_ok();
            writer.seal(&mut crypt.sealer)?;
            if update {
                crypt.sealer.update()?;
                keys.renewed(now);
                count(&counters.key_updates);
            }
        }
        add(&counters.sent_bytes, connection.outbound.len());
        Ok(!connection.outbound.is_empty())
    }
}

/// How old the sending key is.
pub(super) struct KeyAge {
    pub(super) since: Instant,
    /// The next record ends with a `KeyUpdate`.
    pub(super) update_requested: bool,
}

impl KeyAge {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, update_requested: false }
    }

    fn renewed(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}

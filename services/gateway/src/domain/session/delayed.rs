//! State messages of a client that came faster than their rate allows. Each supersedes the one before, so only the
//! newest of an opcode is kept, until the rate allows it.

use std::time::Instant;

use shardkeep_link::ClientMessage;
use shardkeep_types::BackendKind;

/// Most opcodes with a delayed message. Overflow: the message that is due first is dropped.
const MAX_DELAYED: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct DelayedState(Vec<Delayed>);

#[derive(Debug)]
struct Delayed {
    due: Instant,
    backend: BackendKind,
    message: ClientMessage,
}

impl DelayedState {
    pub(crate) fn put(&mut self, backend: BackendKind, message: ClientMessage, due: Instant) {
        if let Some(older) = self.0.iter_mut().find(|older| older.message.opcode == message.opcode) {
            // The rate allows one message when the older one is due.
            older.message = message;
            return;
        }
        if self.0.len() >= MAX_DELAYED {
            let first = (0..self.0.len()).min_by_key(|at| self.0[*at].due);
            first.map(|at| self.0.swap_remove(at));
        }
        self.0.push(Delayed { due, backend, message });
    }

    /// A newer message of the opcode has been delivered.
    pub(crate) fn supersede(&mut self, opcode: u16) {
        if !self.0.is_empty() {
            self.0.retain(|delayed| delayed.message.opcode != opcode);
        }
    }

    /// Takes out a message that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(BackendKind, ClientMessage)> {
        let at = self.0.iter().position(|delayed| now >= delayed.due)?;
        let Delayed { backend, message, .. } = self.0.swap_remove(at);
        Some((backend, message))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|delayed| delayed.due).min()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use shardkeep_link::MessageKind;

    use super::*;

    fn state(opcode: u16, text: &'static str) -> ClientMessage {
        let payload = Bytes::from_static(text.as_bytes());
        ClientMessage { opcode, kind: MessageKind::State, request: 0, payload }
    }

    #[test]
    fn delayed_state_is_superseded_and_taken_when_due() {
        let (mut delayed, now) = (DelayedState::default(), Instant::now());
        let due = now + Duration::from_millis(30);
        delayed.put(BackendKind::ZONE, state(1, "old"), due);
        delayed.put(BackendKind::ZONE, state(1, "new"), due + Duration::from_secs(1));
        delayed.put(BackendKind::ZONE, state(2, "other"), due);
        delayed.supersede(2);
        assert_eq!((delayed.take_due(now), delayed.deadline()), (None, Some(due)));
        assert_eq!(delayed.take_due(due), Some((BackendKind::ZONE, state(1, "new"))));
        assert_eq!((delayed.take_due(due), delayed.deadline()), (None, None));
    }

    #[test]
    fn delayed_state_over_limit_drops_the_first_due() {
        let (mut delayed, now) = (DelayedState::default(), Instant::now());
        for opcode in 0..=MAX_DELAYED as u16 {
            delayed.put(BackendKind::ZONE, state(opcode, "x"), now + Duration::from_secs(opcode.into()));
        }
        assert_eq!(delayed.deadline(), Some(now + Duration::from_secs(1)));
    }
}

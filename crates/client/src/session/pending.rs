//! Requests that wait for their reply, in the order they were made.

use std::collections::BTreeMap;

use bytes::Bytes;
use shardkeep_wire::{Head, Message, opcode};
use tokio::sync::oneshot;

use crate::ClientError;

/// Most requests in flight, and most bytes of their payloads. Both are small enough to send all requests again at once.
/// Overflow: the driver accepts no command until a request is answered.
const MAX_REQUESTS: usize = 200;
const MAX_BYTES: usize = 48 * 1024;

#[derive(Default)]
pub(super) struct PendingRequests {
    /// By the request's place in the order. The request number on the wire is the low 32 bits of the place.
    waiting: BTreeMap<u64, PendingRequest>,
    bytes: usize,
    last: u64,
}

struct PendingRequest {
    opcode: u16,
    payload: Bytes,
    answer: oneshot::Sender<Result<Message, ClientError>>,
}

impl PendingRequests {
    /// Gives a request its number.
    pub(super) fn add(
        &mut self,
        opcode: u16,
        payload: Bytes,
        answer: oneshot::Sender<Result<Message, ClientError>>,
    ) -> Message {
        self.last += 1;
        if number(self.last) == 0 {
            self.last += 1;
        }
        self.bytes += payload.len();
        self.waiting.insert(self.last, PendingRequest { opcode, payload: payload.clone(), answer });
        Message::new(opcode, Head::Request(number(self.last)), payload)
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_REQUESTS || self.bytes >= MAX_BYTES
    }

    /// Gives a reply to the caller that waits for it. Returns false if the caller has timed out.
    pub(super) fn answer(&mut self, request: u32, reply: Message) -> bool {
        let sequence = self.waiting.keys().copied().find(|sequence| number(*sequence) == request);
        let Some(waiting) = sequence.and_then(|sequence| self.waiting.remove(&sequence)) else {
            return false;
        };
        self.bytes -= waiting.payload.len();
        let result = match reply.opcode {
            opcode::ERROR => Err(match reply.decode::<shardkeep_wire::payload::Error>() {
                Ok(error) => ClientError::Refused(error.into()),
                Err(error) => error.into(),
            }),
            _ => Ok(reply),
        };
        waiting.answer.send(result).is_ok()
    }

    /// Forgets requests that were given up. Their replies may still come.
    pub(super) fn prune(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        self.bytes = self.waiting.values().map(|waiting| waiting.payload.len()).sum();
    }

    /// Every request without a reply, to be sent again with the same number.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Message> {
        self.waiting.iter().map(|(sequence, waiting)| {
            Message::new(waiting.opcode, Head::Request(number(*sequence)), waiting.payload.clone())
        })
    }
}

fn number(sequence: u64) -> u32 {
    sequence as u32
}

#[cfg(test)]
mod tests {
    use shardkeep_wire::{
        payload::{Error, ErrorCode},
        session::{Bounds, Outbox},
    };

    use super::*;

    #[test]
    fn reply_completes_its_request() {
        let mut pending = PendingRequests { last: u64::from(u32::MAX) - 1, ..PendingRequests::default() };
        let (first, mut first_reply) = oneshot::channel();
        let (second, mut second_reply) = oneshot::channel();
        assert_eq!(pending.add(7, Bytes::from_static(b"a"), first).head, Head::Request(u32::MAX));
        assert_eq!(pending.add(8, Bytes::from_static(b"b"), second).head, Head::Request(1));
        let order: Vec<_> = pending.unanswered().map(|message| message.opcode).collect();
        assert_eq!(order, [7, 8]);

        assert!(pending.answer(1, Message::new(8, Head::Reply(1), Bytes::new())));
        assert!(second_reply.try_recv().unwrap().is_ok());
        let refused = Message::error_reply(u32::MAX, &Error::of(ErrorCode::Refused, ""));
        assert!(pending.answer(u32::MAX, refused.clone()));
        assert!(matches!(first_reply.try_recv().unwrap(), Err(ClientError::Refused(_))));
        assert!(!pending.answer(u32::MAX, refused));
        assert_eq!(pending.bytes, 0);
    }

    #[test]
    fn abandoned_request_is_pruned() {
        let mut pending = PendingRequests::default();
        let (answer, reply) = oneshot::channel();
        pending.add(7, Bytes::new(), answer);
        drop(reply);
        pending.prune();
        assert_eq!(pending.unanswered().count(), 0);
    }

    #[test]
    fn full_pending_requests_fit_into_the_log() {
        let mut pending = PendingRequests::default();
        let mut replies = Vec::new();
        while !pending.is_full() {
            let (answer, reply) = oneshot::channel();
            pending.add(7, Bytes::from(vec![0; 8_000]), answer);
            replies.push(reply);
        }
        let mut log = Outbox::new(Bounds::CLIENT);
        pending.unanswered().for_each(|request| assert!(log.push(request.to_bytes()).is_ok()));
    }
}

//! What a client says, judged and sorted: the opcode table first, then the rate, then the place it goes to. Nothing
//! here waits; what has to leave the session is collected in [`Outputs`].

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use metrics::counter;
use shardkeep_cluster::link::{ClientMessage, MessageKind};
use shardkeep_types::BackendKind;
use shardkeep_wire::{
    Fault, Head, Kind, Message, WireError,
    limit::TokenBucket,
    message::{self, MessageError},
    opcode::{self, Phase, Route, Violation},
    payload::{Ack, ErrorCode},
    range::{FIRST_STUDIO, Range, Ranges},
};

use super::{Inner, RETRY, Routed};
use crate::metrics::{FAULTS, HOT};

/// What a record made the session do.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Messages per backend instance, in order.
    pub(crate) deliver: Vec<(Arc<str>, Vec<ClientMessage>)>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    #[default]
    GoOn,
    /// The record was the last under the client's present key.
    KeyUpdate,
    Logout,
}

impl Inner {
    /// Takes a record's messages in.
    ///
    /// # Errors
    /// What ends the connection: malformed bytes, or one strike too many.
    pub(crate) fn receive(
        &mut self,
        record: &[u8],
        ranges: &Ranges,
        now: Instant,
    ) -> Result<Outputs, WireError> {
        let mut outputs = Outputs::default();
        let mut count = 0;
        for message in message::parse_all(record) {
            let message = message?;
            if outputs.outcome == Outcome::KeyUpdate {
                // `KeyUpdate` is the last message of its record.
                return Err(MessageError::Truncated.into());
            }
            count += 1;
            if message.is_reliable() {
                self.inbox.receive(now);
            }
            if let Err(error) = self.take(&message, ranges, now, &mut outputs) {
                self.blame(&message, error, now)?;
            }
        }
        HOT.messages_in.increment(count);
        Ok(outputs)
    }

    fn take(
        &mut self,
        message: &Message<&[u8]>,
        ranges: &Ranges,
        now: Instant,
        outputs: &mut Outputs,
    ) -> Result<(), WireError> {
        let kind = message.kind();
        if message.opcode >= FIRST_STUDIO {
            let range = ranges.lookup(message.opcode).ok_or(Violation::UnknownOpcode(message.opcode))?;
            self.allow_range(range, kind, message.payload.len(), now)?;
            self.route(range.backend, message, now, outputs);
            return Ok(());
        }
        let rule = opcode::check(Phase::Session, message.opcode, kind, message.payload.len())?;
        self.limiter.allow(rule, now)?;
        match rule.route {
            Route::Transport => self.transport(message, outputs)?,
            Route::Backend(backend) => self.route(backend, message, now, outputs),
            Route::Gateway | Route::Login => outputs.outcome = Outcome::Logout,
        }
        Ok(())
    }

    fn transport(&mut self, message: &Message<&[u8]>, outputs: &mut Outputs) -> Result<(), WireError> {
        match message.opcode {
            opcode::ACK => self.out.acknowledge(message.decode::<Ack>()?.received)?,
            opcode::PING => {
                let pong = Message::new(opcode::PONG, Head::Event, message.payload).to_bytes();
                if !self.out.control(pong) {
                    self.end(super::Ending::new(ErrorCode::TooSlow, "the connection takes nothing"));
                }
            }
            opcode::KEY_UPDATE => outputs.outcome = Outcome::KeyUpdate,
            _ => {}
        }
        Ok(())
    }

    fn allow_range(&mut self, range: &Range, kind: Kind, size: usize, now: Instant) -> Result<(), Violation> {
        const NAME: &str = "studio";
        if kind == Kind::Reply {
            return Err(Violation::WrongKind { name: NAME, kind });
        }
        if size > range.max_payload {
            return Err(Violation::TooLarge { name: NAME, size, limit: range.max_payload });
        }
        let bucket: &mut TokenBucket = self.range_limits.entry(range.first).or_default();
        bucket
            .take(range.per_second, range.burst, now)
            .map_err(|retry_after| Violation::TooFast { name: NAME, retry_after })
    }

    fn route(&mut self, backend: BackendKind, message: &Message<&[u8]>, now: Instant, outputs: &mut Outputs) {
        let request = message.head.request();
        if let Some(request) = request.filter(|request| !self.ask(*request, backend, now)) {
            return self.refuse(request, ErrorCode::TooFast, "too many requests wait for their reply", RETRY);
        }
        match self.bindings.route(backend, for_backend(message)) {
            Routed::To(instance, message) => match outputs.deliver.last_mut() {
                Some((last, messages)) if Arc::ptr_eq(last, instance) => messages.push(message),
                _ => outputs.deliver.push((instance.clone(), vec![message])),
            },
            Routed::Held => {}
            Routed::Unbound(message) => {
                self.refuse_all(&[message], ErrorCode::Refused, "not in the world yet");
            }
            Routed::Overflow(message) => {
                self.refuse_all(&[message], ErrorCode::Unavailable, "too much waits for a hand-over");
            }
        }
    }

    /// Counts what the client did wrong and tells it; an error ends the connection.
    fn blame(&mut self, message: &Message<&[u8]>, error: WireError, now: Instant) -> Result<(), WireError> {
        counter!(FAULTS, "label" => error.label()).increment(1);
        if error.fault() == Fault::Fatal || self.strikes.add(now) {
            return Err(error);
        }
        if let (Head::Request(request), Some(code)) = (message.head, error.code()) {
            let wait = match &error {
                WireError::Violation(Violation::TooFast { retry_after, .. }) => *retry_after,
                _ => std::time::Duration::ZERO,
            };
            self.refuse(request, code, &error.to_string(), wait);
        }
        Ok(())
    }
}

/// The message as links carry it. The payload is copied: it is small, and the buffer it lies in is used again.
fn for_backend(message: &Message<&[u8]>) -> ClientMessage {
    let kind = match message.kind() {
        Kind::Request => MessageKind::Request,
        Kind::Reply => MessageKind::Reply,
        Kind::Event => MessageKind::Event,
        Kind::State => MessageKind::State,
    };
    ClientMessage {
        opcode: message.opcode,
        kind,
        request: message.head.request().map_or(0, Into::into),
        payload: Bytes::copy_from_slice(message.payload),
    }
}

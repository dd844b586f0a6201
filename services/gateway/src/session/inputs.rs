//! What a client says, judged and sorted: the opcode table first, then the rate, then the place it goes to. Nothing
//! here waits, and what goes to a backend is copied once, from the client's record into the link's next batch.

use std::time::Instant;

use bytes::Bytes;
use metrics::counter;
use shardkeep_link::{ClientMessage, ClientView, MessageKind};
use shardkeep_types::{BackendKind, Epoch};
use shardkeep_wire::{
    Fault, Head, Kind, Message, WireError,
    message::{self, MessageError},
    opcode::{self, Phase, Route, Violation},
    payload::{Ack, ErrorCode},
    range::{FIRST_STUDIO, Range, Ranges},
};

use super::{Inner, RETRY, Target};
use crate::{
    costs::{COSTS, CostSample},
    metrics::{FAULTS, HOT},
};

/// The way to backends, as far as an input needs it.
pub(crate) trait Deliver {
    /// False: the backend can not take it now.
    fn deliver(&self, instance: &str, epoch: Epoch, message: ClientView<'_>) -> bool;
}

/// What a record made the session do.
#[derive(Default)]
pub(crate) struct Outputs {
    /// The record was the last under the client's present key.
    pub(crate) key_update: bool,
    pub(crate) logout: bool,
    /// What was done, if its time is taken.
    pub(crate) sample: Option<CostSample>,
}

impl Inner {
    /// Takes a record's messages in, and hands those for backends on.
    ///
    /// # Errors
    /// What ends the connection: malformed bytes, or one strike too many.
    pub(crate) fn receive(
        &mut self,
        record: &[u8],
        ranges: &Ranges,
        now: Instant,
        backends: &impl Deliver,
    ) -> Result<Outputs, WireError> {
        let mut outputs = Outputs::default();
        let (mut count, mut sample) = (0, COSTS.sample());
        for message in message::parse_all(record) {
            let message = message?;
            if outputs.key_update {
                // `KeyUpdate` is the last message of its record.
                return Err(MessageError::Truncated.into());
            }
            count += 1;
            COSTS.received(message.opcode, message.payload.len());
            if let Some(sample) = &mut sample {
                sample.add(message.opcode, message.payload.len());
            }
            if message.is_reliable() {
                self.inbox.receive(now);
            }
            if let Err(error) = self.take(&message, ranges, now, backends, &mut outputs) {
                self.count_fault(&message, error, now)?;
            }
        }
        HOT.messages_in.increment(count);
        outputs.sample = sample;
        Ok(outputs)
    }

    fn take(
        &mut self,
        message: &Message<&[u8]>,
        ranges: &Ranges,
        now: Instant,
        backends: &impl Deliver,
        outputs: &mut Outputs,
    ) -> Result<(), WireError> {
        let kind = message.kind();
        if message.opcode >= FIRST_STUDIO {
            let range = ranges.lookup(message.opcode).ok_or(Violation::UnknownOpcode(message.opcode))?;
            self.allow_range(range, kind, message.payload.len(), now)?;
            self.route(range.backend, message, now, backends);
            return Ok(());
        }
        let rule = opcode::check(Phase::Session, message.opcode, kind, message.payload.len())?;
        self.limiter.allow(rule, now)?;
        match rule.route {
            Route::Transport => self.transport(message, outputs)?,
            Route::Backend(backend) => self.route(backend, message, now, backends),
            Route::Gateway | Route::Login => outputs.logout = true,
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
            opcode::KEY_UPDATE => outputs.key_update = true,
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
        self.range_bucket(range.first)
            .take(range.per_second, range.burst, now)
            .map_err(|retry_after| Violation::TooFast { name: NAME, retry_after })
    }

    fn route(
        &mut self,
        backend: BackendKind,
        message: &Message<&[u8]>,
        now: Instant,
        backends: &impl Deliver,
    ) {
        let request = message.head.request();
        if let Some(request) = request.filter(|request| !self.track_request(*request, backend, now)) {
            return self.refuse(request, ErrorCode::TooFast, "too many requests wait for their reply", RETRY);
        }
        let message = for_backend(message);
        let (code, why) = match self.bindings.target(backend) {
            Target::To(instance) if backends.deliver(instance, self.epoch, message) => return,
            Target::To(_) => (ErrorCode::Unavailable, "the server cannot be reached now"),
            Target::Pending => match self.bindings.hold(backend, owned(message)) {
                Ok(()) => return,
                Err(_) => (ErrorCode::Unavailable, "too much waits for a hand-over"),
            },
            Target::Unbound => (ErrorCode::Refused, "not in the world yet"),
        };
        if let Some(request) = request.filter(|_| message.kind == MessageKind::Request) {
            self.refuse(request, code, why, RETRY);
        }
    }

    /// Counts what the client did wrong and tells it; an error ends the connection.
    fn count_fault(
        &mut self,
        message: &Message<&[u8]>,
        error: WireError,
        now: Instant,
    ) -> Result<(), WireError> {
        counter!(FAULTS, "label" => error.label()).increment(1);
        if error.fault() == Fault::Fatal {
            return Err(error);
        }
        if let (Head::Request(request), Some(code)) = (message.head, error.code()) {
            let wait = match &error {
                WireError::Violation(Violation::TooFast { retry_after, .. }) => *retry_after,
                _ => std::time::Duration::ZERO,
            };
            self.refuse(request, code, &error.to_string(), wait);
        }
        if self.strikes.add(now) { Err(error) } else { Ok(()) }
    }
}

/// The message as links carry it, still where the client's record lies.
fn for_backend<'a>(message: &Message<&'a [u8]>) -> ClientView<'a> {
    let kind = match message.kind() {
        Kind::Request => MessageKind::Request,
        Kind::Reply => MessageKind::Reply,
        Kind::Event => MessageKind::Event,
        Kind::State => MessageKind::State,
    };
    let request = message.head.request().map_or(0, Into::into);
    ClientView { opcode: message.opcode, kind, request, payload: message.payload }
}

/// A copy that can be held.
fn owned(message: ClientView<'_>) -> ClientMessage {
    let ClientView { opcode, kind, request, payload } = message;
    ClientMessage { opcode, kind, request, payload: Bytes::copy_from_slice(payload) }
}

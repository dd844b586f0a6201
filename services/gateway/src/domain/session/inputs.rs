//! Judges each message of a client: the opcode table first, then its rate. Each violation is a strike, and
//! too many strikes close the connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shardkeep_link::{ClientMessage, ClientView, MessageKind};
use shardkeep_types::{BackendKind, Epoch};
use shardkeep_wire::{
    Kind, Message,
    limit::{Limiter, Strikes, TokenBucket},
    opcode::{self, Phase, Route, Violation},
    range::{FIRST_STUDIO, Range, Ranges},
};

/// The way to backends, as far as a client's message needs it.
pub(crate) trait Deliver {
    /// Returns false if the backend cannot take the message now.
    fn deliver(&self, instance: &str, epoch: Epoch, message: ClientView<'_>) -> bool;
}

/// Where an allowed message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Transport,
    Backend(BackendKind),
    /// A state message above its rate: it may go after this time, unless a newer one supersedes it.
    Delay(BackendKind, Duration),
    Logout,
}

#[derive(Default)]
pub(crate) struct Judge {
    limiter: Limiter,
    /// By the first opcode of the range. A client talks to few kinds of studio backends, so a list is enough.
    range_limits: Vec<(u16, TokenBucket)>,
    strikes: Strikes,
}

impl Judge {
    /// # Errors
    /// When the opcode table or the backend's range does not allow the message.
    pub(crate) fn judge(
        &mut self,
        message: &Message<&[u8]>,
        ranges: &Ranges,
        now: Instant,
    ) -> Result<Verdict, Violation> {
        let kind = message.kind();
        let (backend, rate) = if message.opcode >= FIRST_STUDIO {
            let range = ranges.lookup(message.opcode).ok_or(Violation::UnknownOpcode(message.opcode))?;
            (range.backend, self.allow_range(range, kind, message.payload.len(), now))
        } else {
            let rule = opcode::check(Phase::Session, message.opcode, kind, message.payload.len())?;
            let rate = self.limiter.allow(rule, now);
            match rule.route {
                Route::Backend(backend) => (backend, rate),
                Route::Transport => return rate.map(|()| Verdict::Transport),
                Route::Gateway | Route::Login => return rate.map(|()| Verdict::Logout),
            }
        };
        match rate {
            Ok(()) => Ok(Verdict::Backend(backend)),
            Err(Violation::TooFast { retry_after, .. })
                if kind == Kind::State && retry_after < Duration::MAX =>
            {
                Ok(Verdict::Delay(backend, retry_after))
            }
            Err(violation) => Err(violation),
        }
    }

    /// Uses up the rate of a delayed state message that is due.
    pub(crate) fn spend(&mut self, opcode: u16, ranges: &Ranges, now: Instant) {
        // Other messages may have used up the bucket while this one was delayed. Then taking from the bucket fails,
        // and the message is delivered all the same.
        if let Some(range) = ranges.lookup(opcode) {
            let _ = self.range_bucket(range.first).take(range.per_second, range.burst, now);
        } else if let Some(rule) = opcode::lookup(opcode) {
            let _ = self.limiter.allow(rule, now);
        }
    }

    /// Counts a strike. Returns true if it is one too many.
    pub(crate) fn strike(&mut self, now: Instant) -> bool {
        self.strikes.add(now)
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

    fn range_bucket(&mut self, first: u16) -> &mut TokenBucket {
        let at = self.range_limits.iter().position(|(of, _)| *of == first).unwrap_or_else(|| {
            self.range_limits.push((first, TokenBucket::default()));
            self.range_limits.len() - 1
        });
        &mut self.range_limits[at].1
    }
}

/// The message as links carry it, with its payload where the client's record has it.
pub(crate) fn for_backend<'a>(message: &Message<&'a [u8]>) -> ClientView<'a> {
    let kind = match message.kind() {
        Kind::Request => MessageKind::Request,
        Kind::Reply => MessageKind::Reply,
        Kind::Event => MessageKind::Event,
        Kind::State => MessageKind::State,
    };
    let request = message.head.request().map_or(0, Into::into);
    ClientView { opcode: message.opcode, kind, request, payload: message.payload }
}

/// A copy that can be kept.
pub(crate) fn owned(message: ClientView<'_>) -> ClientMessage {
    let ClientView { opcode, kind, request, payload } = message;
    ClientMessage { opcode, kind, request, payload: Bytes::copy_from_slice(payload) }
}

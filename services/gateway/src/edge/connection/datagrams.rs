//! State in datagrams: the player's own avatar. Each message is complete, and only the newest counts. A datagram does not
//! wait for lost packets before it. A lost datagram is not repeated, unless no newer message follows: then a record repeats
//! it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shardkeep_auth::session::SessionKeys;
use shardkeep_lanes::Stream;
use shardkeep_wire::{
    datagram::{DatagramSealer, OVERHEAD},
    opcode,
    seal::{SealError, Suite},
};

use crate::metrics::HOT;

/// A message that no other has superseded for this long is repeated in a record. It is longer than five ticks of a zone, so
/// that messages about a moving avatar are not repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(300);

pub(crate) struct Datagrams {
    sealer: DatagramSealer,
    /// The message that was sent last, and when. There is only one opcode, with one class and key.
    last: Option<(Bytes, Instant)>,
}

impl Datagrams {
    /// `None`: the lane has no datagrams, or the client takes none.
    pub(super) fn new(
        stream: &Stream,
        suite: Suite,
        keys: &SessionKeys,
    ) -> Result<Option<Box<Self>>, SealError> {
        if stream.max_datagram().is_none() {
            return Ok(None);
        }
        let sealer = DatagramSealer::new(suite, keys.datagrams.clone())?;
        Ok(Some(Box::new(Self { sealer, last: None })))
    }

    /// Whether state of this opcode may be lost.
    pub(crate) fn carry(opcode: u16) -> bool {
        opcode == opcode::AVATAR
    }

    /// Sends this message. Returns false if it has to go in a record.
    pub(crate) fn send(&mut self, stream: &Stream, message: &Bytes, now: Instant) -> bool {
        self.last = None;
        if stream.max_datagram().is_none_or(|most| OVERHEAD + message.len() > most) {
            return false;
        }
        let Ok(datagram) = self.sealer.seal(message) else { return false };
        let length = datagram.len() as u64;
        let sent = stream.send_datagram(datagram);
        if sent {
            HOT.datagrams_out.increment(1);
            HOT.bytes_out.increment(length);
            self.last = Some((message.clone(), now));
        }
        sent
    }

    /// The message that has to be repeated in a record now.
    pub(crate) fn due_repeat(&mut self, now: Instant) -> Option<Bytes> {
        self.last.take_if(|(_, sent)| now >= *sent + REPEAT_AFTER).map(|(message, _)| message)
    }

    /// When the last message may have to be repeated.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, sent)| *sent + REPEAT_AFTER)
    }

    /// Changes the key together with the server's key for records.
    pub(crate) fn update_key(&mut self) {
        self.sealer.update();
    }
}

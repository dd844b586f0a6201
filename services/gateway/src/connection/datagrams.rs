//! State in datagrams: the player's own avatar, of which each message says everything and the newest is all that
//! counts. It does not wait behind what was lost on the way, and is not sent again when it is lost itself, unless it
//! was the last word: then it follows in a record.

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

/// A message that nothing has superseded for so long is repeated in a record. Longer than five ticks of a zone, so that
/// of somebody who moves nothing is said twice.
const REPEAT_AFTER: Duration = Duration::from_millis(300);

pub(crate) struct Datagrams {
    sealer: DatagramSealer,
    /// Sent last, and when. One message at most: there is one opcode, of one class and key.
    last: Option<(Bytes, Instant)>,
}

impl Datagrams {
    /// `None`: the lane has none, or the client takes none.
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

    /// Sends this message. False: it has to go in a record.
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

    /// What is to be repeated in a record now.
    pub(crate) fn due_repeat(&mut self, now: Instant) -> Option<Bytes> {
        self.last.take_if(|(_, sent)| now >= *sent + REPEAT_AFTER).map(|(message, _)| message)
    }

    /// When something may have to be repeated.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, sent)| *sent + REPEAT_AFTER)
    }

    /// The server's key for records changes: this one changes with it.
    pub(crate) fn update_key(&mut self) {
        self.sealer.update();
    }
}

//! Avatars that may become this zone's: offered by a neighbour, and not yet committed.

use std::time::{Duration, Instant};

use shardkeep_link::ClientMessage;
use shardkeep_types::{Epoch, SessionId};

use crate::domain::{
    payload::{Admission, LatestState, OfferedAvatar, StoredAvatar},
    players::hold,
};

/// After this time without a settlement the zone asks the database, and then again.
const LOAD_AFTER: Duration = Duration::from_secs(2);
/// The zone forgets an offer after this time without an outcome.
const OFFER_LIFETIME: Duration = Duration::from_secs(120);

/// An avatar that may become this zone's.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Epoch before the hand-over.
    epoch: Epoch,
    /// `None` when the zone had forgotten the offer before the settlement. Then the database has the character.
    offered: Option<Box<OfferedAvatar>>,
    inputs: Vec<ClientMessage>,
    forwarded: u32,
    since: Instant,
    load_at: Instant,
}

impl Arrival {
    pub(crate) fn new(epoch: Epoch, offered: Option<Box<OfferedAvatar>>, now: Instant) -> Self {
        Self { epoch, offered, inputs: Vec::new(), forwarded: 0, since: now, load_at: now + LOAD_AFTER }
    }

    pub(crate) fn is_for(&self, session: SessionId) -> bool {
        self.offered.as_ref().is_some_and(|offered| offered.admission.session == session)
    }

    /// Epoch before the hand-over.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn is_offered(&self) -> bool {
        self.offered.is_some()
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= OFFER_LIFETIME
    }

    /// Whether no settlement has come in time, so that the zone asks the database.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.load_at <= now
    }

    /// The zone asks the database.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.load_at = now + LOAD_AFTER;
    }

    /// Completes the state of the avatar from the database, whose possessions are newer than those of the offer. Returns
    /// whether the state is complete.
    pub(crate) fn complete(&mut self, row: &StoredAvatar) -> bool {
        if let Some(offered) = &mut self.offered {
            offered.admission.entering.possessions = row.entering.possessions.clone();
            return true;
        }
        let Some(session) = row.session else { return false };
        // The epoch of the session follows when its gateway binds it.
        let admission = Admission {
            session,
            session_epoch: Epoch(0),
            account: row.account,
            entering: row.entering.clone(),
        };
        self.offered = Some(Box::new(OfferedAvatar { from: String::new(), gateway: None, admission }));
        true
    }

    /// The state has changed since the offer.
    pub(crate) fn update(&mut self, latest: &LatestState) {
        if let Some(offered) = &mut self.offered {
            latest.update(&mut offered.admission.entering);
        }
    }

    /// The avatar, the inputs that wait for it, and how many inputs its last zone has forwarded.
    pub(crate) fn into_parts(self) -> Option<(Box<OfferedAvatar>, Vec<ClientMessage>, u32)> {
        Some((self.offered?, self.inputs, self.forwarded))
    }

    pub(crate) fn hold(&mut self, inputs: Vec<ClientMessage>) {
        hold(&mut self.inputs, inputs);
    }

    /// Keeps forwarded inputs that are new.
    pub(crate) fn add_forwarded(&mut self, inputs: Vec<ClientMessage>, from: u32) {
        let new = new_inputs(inputs, from, &mut self.forwarded);
        hold(&mut self.inputs, new);
    }
}

/// The new ones among forwarded inputs. `from` is the number of inputs forwarded before them.
pub(crate) fn new_inputs(inputs: Vec<ClientMessage>, from: u32, received: &mut u32) -> Vec<ClientMessage> {
    let known = usize::try_from(received.saturating_sub(from)).unwrap_or(usize::MAX);
    let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
    *received = (*received).max(from.saturating_add(count));
    inputs.into_iter().skip(known).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shardkeep_link::MessageKind;

    use super::*;

    fn input(request: u64) -> ClientMessage {
        ClientMessage { opcode: 0x1020, kind: MessageKind::Request, request, payload: Bytes::new() }
    }

    #[test]
    fn repeated_settlement_forwards_no_input_twice() {
        let mut received = 0;
        let numbers = |inputs: Vec<ClientMessage>| inputs.iter().map(|it| it.request).collect::<Vec<_>>();
        assert_eq!(numbers(new_inputs(vec![input(1), input(2)], 0, &mut received)), [1, 2]);
        assert_eq!(numbers(new_inputs(vec![input(1), input(2)], 0, &mut received)), [0u64; 0]);
        assert_eq!(numbers(new_inputs(vec![input(2), input(3)], 1, &mut received)), [3]);
        assert_eq!(received, 3);
    }
}

//! Sessions whose avatar this zone has handed over, and the inputs that it forwards to the target.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;
use shardkeep_link::ClientMessage;
use shardkeep_rpc::{link, zone::SettleRequest};
use shardkeep_types::{CharacterId, Epoch};

use crate::players::Destination;

/// How long the zone forwards inputs of a session after the hand-over.
const FORWARD_FOR: Duration = Duration::from_secs(60);

/// A session whose avatar was handed over.
#[derive(Debug)]
pub(crate) struct HandedOver {
    character: CharacterId,
    epoch: Epoch,
    to: Arc<Destination>,
    forwarded: u32,
    since: Instant,
}

impl HandedOver {
    /// `epoch` is that before the hand-over.
    pub(super) fn new(character: CharacterId, epoch: Epoch, to: Arc<Destination>, now: Instant) -> Self {
        Self { character, epoch, to, forwarded: 0, since: now }
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > FORWARD_FOR
    }

    /// Whether the character has left this zone after it had this epoch.
    pub(crate) fn left_after(&self, character: CharacterId, epoch: Epoch) -> bool {
        self.character == character && epoch <= self.epoch
    }

    /// The target, and the call that forwards these inputs.
    pub(crate) fn forward(&mut self, inputs: Vec<ClientMessage>) -> (Arc<Destination>, SettleRequest) {
        let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        let settle = settlement(self.character, self.epoch, true, inputs, self.forwarded);
        self.forwarded = self.forwarded.saturating_add(count);
        (self.to.clone(), settle)
    }
}

pub(super) fn settlement(
    character: CharacterId,
    epoch: Epoch,
    committed: bool,
    inputs: Vec<ClientMessage>,
    from: u32,
) -> SettleRequest {
    let pending_inputs =
        inputs.into_iter().map(|input| link::ClientMessage::from(input).encode_to_vec()).collect();
    SettleRequest { character: character.0, epoch: epoch.0, committed, pending_inputs, pending_from: from }
}

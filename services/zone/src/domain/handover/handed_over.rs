//! Sessions whose avatar this zone has handed over, and the inputs that it forwards to the target.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_link::ClientMessage;
use shardkeep_types::{CharacterId, Epoch};

use crate::domain::payload::{Destination, LatestState, Settlement};

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
    pub(crate) fn new(character: CharacterId, epoch: Epoch, to: Arc<Destination>, now: Instant) -> Self {
        Self { character, epoch, to, forwarded: 0, since: now }
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > FORWARD_FOR
    }

    /// Whether the character has left this zone after it had this epoch.
    pub(crate) fn left_after(&self, character: CharacterId, epoch: Epoch) -> bool {
        self.character == character && epoch <= self.epoch
    }

    /// The target, and the settlement that forwards these inputs.
    pub(crate) fn forward(
        &mut self,
        inputs: Vec<ClientMessage>,
        latest: Option<LatestState>,
    ) -> (Arc<Destination>, Settlement) {
        let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        let (character, epoch, from) = (self.character, self.epoch, self.forwarded);
        self.forwarded = self.forwarded.saturating_add(count);
        (self.to.clone(), Settlement { character, epoch, committed: true, inputs, from, latest })
    }
}

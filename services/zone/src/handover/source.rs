//! The source of a hand-over: executes the steps that the state machine in `state` decides.

use std::{sync::Arc, time::Duration};

use shardkeep_rpc::{dbcache::TransferRequest, zone::OfferRequest};
use shardkeep_sim::{EnteringAvatar, Input};
use shardkeep_types::{BackendKind, CellId, CharacterId, Epoch};

use crate::{
    convert,
    handover::{
        handed_over::{HandedOver, settlement},
        state::{Source, SourceEvent, SourceStep},
    },
    metrics,
    players::{Destination, OutgoingHandover, PlayerPhase},
    shard::Shard,
};

/// The pause after a failed hand-over.
const HANDOVER_RETRY_PAUSE: Duration = Duration::from_millis(500);
impl Shard {
    /// Hands over an avatar that is in a cell of another zone, if nothing prevents it.
    pub(crate) fn begin_handover(&mut self, character: CharacterId, cell: CellId) {
        let Some(owner) = self.table.owner(cell).filter(|sector| !sector.grpc_address.is_empty()) else {
            return;
        };
        let to = Destination {
            name: owner.zone.clone(),
            incarnation: owner.incarnation,
            grpc_address: owner.grpc_address.clone(),
        };
        let is_me = to.name == self.me.name && to.incarnation == self.me.incarnation;
        let paused = self.handover_retry_at.get(&character).is_some_and(|until| *until > self.now);
        // While the database does not answer, this zone simulates the avatar across the border.
        let committing = self.sim.is_committing(character);
        if is_me || paused || committing || !self.background_calls.database.is_reachable() {
            return;
        }
        let now = self.now;
        if let Some(player) = self.players.get_mut(character).filter(|player| player.is_playing()) {
            player.phase = PlayerPhase::HandingOver(OutgoingHandover {
                state: Source::Quiescing,
                to: Arc::new(to),
                since: now,
            });
            self.apply(Input::Freeze { character });
            self.continue_leaving(character);
        }
    }

    pub(crate) fn handover_event(&mut self, character: CharacterId, epoch: Epoch, event: SourceEvent) {
        let Some(player) = self.players.get_mut(character).filter(|player| player.epoch == epoch) else {
            return;
        };
        let PlayerPhase::HandingOver(handover) = &mut player.phase else { return };
        let (state, steps) = handover.state.transition(event);
        if let Some(state) = state {
            handover.state = state;
        }
        let (to, since) = (handover.to.clone(), handover.since);
        if state.is_none() {
            let outcome = match event {
                SourceEvent::Committed(_) => "committed",
                SourceEvent::Lost => "lost",
                _ => "refused",
            };
            metrics::handed_over(outcome, self.now.saturating_duration_since(since));
        }
        for step in steps {
            self.handover_step(character, epoch, &to, step);
        }
    }

    fn handover_step(
        &mut self,
        character: CharacterId,
        epoch: Epoch,
        to: &Arc<Destination>,
        step: SourceStep,
    ) {
        match step {
            SourceStep::Offer => self.offer(character, to),
            SourceStep::Transfer => {
                let transfer = TransferRequest {
                    character: character.0,
                    epoch: epoch.0,
                    from_zone: self.me.name.clone(),
                    from_incarnation: self.me.incarnation,
                    to_zone: to.name.clone(),
                    to_incarnation: to.incarnation,
                    soft: self.next_soft_state(character),
                };
                self.background_calls.transfer(transfer);
            }
            SourceStep::Thaw => self.thaw(character),
            SourceStep::Bind(epoch) => {
                if let Some(player) = self.players.get(character)
                    && let Some(gateway) = &player.gateway
                {
                    self.hub.bind(gateway, player.session, BackendKind::ZONE, &to.name, epoch);
                }
            }
            SourceStep::Settle { committed } => {
                let Some(player) = self.players.get_mut(character) else { return };
                // After a thaw this zone processes the inputs.
                let inputs = if committed { player.take_held_inputs() } else { Vec::new() };
                let mut handed_over = HandedOver::new(character, epoch, to.clone(), self.now);
                if committed {
                    let (_, settle) = handed_over.forward(inputs);
                    self.handed_over.insert(player.session, handed_over);
                    self.background_calls.settle(to, settle);
                } else {
                    self.background_calls.settle(to, settlement(character, epoch, false, inputs, 0));
                }
            }
            SourceStep::Forget => {
                self.remove_player(character);
            }
        }
    }

    fn thaw(&mut self, character: CharacterId) {
        self.handover_retry_at.insert(character, self.now + HANDOVER_RETRY_PAUSE);
        self.apply(Input::Thaw { character });
        let Some(player) = self.players.get_mut(character) else { return };
        player.phase = PlayerPhase::Playing;
        for message in player.take_held_inputs() {
            self.message(character, &message);
        }
    }

    fn offer(&mut self, character: CharacterId, to: &Destination) {
        let (Some(avatar), Some(player)) = (self.sim.avatar(character), self.players.get(character)) else {
            return;
        };
        let own = avatar.own;
        let velocity = (i32::from(own.velocity.0), i32::from(own.velocity.1));
        let entering = EnteringAvatar {
            character,
            name: player.name.clone(),
            epoch: player.epoch,
            position: own.position,
            velocity,
            facing: own.facing,
            health: own.health,
            last_input: own.last_input,
            cooldown_ms: avatar.cooldown_ms,
            possessions: avatar.possessions.clone(),
        };
        let session = player.session.as_bytes();
        let offer = OfferRequest {
            from: Some((&self.me).into()),
            session: session.to_vec(),
            session_epoch: player.session_epoch.0,
            account: player.account.0,
            epoch: player.epoch.0,
            character: Some(convert::character(&entering, player.account.0, self.world.0, session)),
            vx_mm_s: velocity.0,
            vy_mm_s: velocity.1,
            last_input: own.last_input,
            cooldown_ms: u32::try_from(avatar.cooldown_ms).unwrap_or(u32::MAX),
            gateway: player.gateway.as_deref().unwrap_or_default().to_owned(),
        };
        self.background_calls.offer(to, offer);
    }
}

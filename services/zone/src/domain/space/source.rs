//! The source of a hand-over: executes the steps that the state machine in `state` decides.

use std::{sync::Arc, time::Duration};

use shardkeep_sim::{EnteringAvatar, Input};
use shardkeep_types::{CellId, CharacterId, Epoch, Position};

use super::Space;
use crate::{
    domain::{
        effect::{Answer, CommandError, Effect},
        handover::{HandedOver, Source, SourceEvent, SourceStep},
        payload::{Admission, Destination, LatestState, OfferedAvatar, ReplyTo, Settlement},
        players::{OutgoingHandover, PlayerPhase},
    },
    metrics,
};

/// The pause after a failed hand-over.
const HANDOVER_RETRY_PAUSE: Duration = Duration::from_millis(500);
impl Space {
    /// Hands over an avatar that is in a cell of another zone, if nothing prevents it.
    pub(super) fn begin_handover(&mut self, character: CharacterId, cell: CellId) {
        let Some(to) = self.table.destination(cell) else { return };
        let paused = self.handover_retry_at.get(&character).is_some_and(|until| *until > self.now);
        // While the database does not answer, this zone simulates the avatar across the border.
        let committing = self.sim.is_committing(character);
        if self.is_here(&to) || paused || committing || !self.surroundings.database_answers {
            return;
        }
        self.leave_for(character, to, None, None);
    }

    /// Moves an avatar to a place in another space, of this zone or of another one. The caller gets an answer when the
    /// avatar is there, or stays here.
    pub(super) fn begin_journey(
        &mut self,
        character: CharacterId,
        place: Position,
        teleport: Option<ReplyTo>,
    ) -> Result<(), CommandError> {
        let absent =
            CommandError::Invalid("no zone owns this place: there is no such space, or it ends before it");
        let to = self.table.destination(place.cell()).ok_or(absent)?;
        if !self.surroundings.database_answers {
            return Err(CommandError::Unavailable("the database does not answer: try again"));
        }
        self.leave_for(character, to, Some(place), teleport);
        Ok(())
    }

    pub(super) fn is_here(&self, to: &Destination) -> bool {
        to.space == self.id() && to.name == self.me.name && to.incarnation == self.me.incarnation
    }

    fn leave_for(
        &mut self,
        character: CharacterId,
        to: Destination,
        place: Option<Position>,
        teleport: Option<ReplyTo>,
    ) {
        let now = self.now;
        if let Some(player) = self.players.get_mut(character).filter(|player| player.is_playing()) {
            player.phase = PlayerPhase::HandingOver(OutgoingHandover {
                state: Source::Quiescing,
                to: Arc::new(to),
                since: now,
                place,
                teleport,
            });
            self.apply(Input::Suspend { character });
            self.continue_leaving(character);
        }
    }

    /// The place in another space to which the avatar is on its way.
    fn journey(&self, character: CharacterId) -> Option<Position> {
        match &self.players.get(character)?.phase {
            PlayerPhase::HandingOver(handover) => handover.place,
            _ => None,
        }
    }

    pub(super) fn handover_event(&mut self, character: CharacterId, epoch: Epoch, event: SourceEvent) {
        let Some(player) = self.players.get_mut(character).filter(|player| player.epoch == epoch) else {
            return;
        };
        let PlayerPhase::HandingOver(handover) = &mut player.phase else { return };
        let (state, steps) = handover.state.transition(event);
        if let Some(state) = state {
            handover.state = state;
        }
        let (to, since, teleport) = (handover.to.clone(), handover.since, handover.teleport);
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
        if let Some(reply) = teleport.filter(|_| state.is_none()) {
            let refused =
                || CommandError::Unavailable("the zone of that place did not take the avatar: try again");
            let arrived = matches!(event, SourceEvent::Committed(_));
            self.reply_to(reply, Answer::Done(arrived.then_some(()).ok_or_else(refused)));
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
                let journey = self.journey(character);
                if let Some(mut state) = self.next_soft_state(character) {
                    state.position = journey.unwrap_or(state.position);
                    self.effects.push(Effect::Transfer { to: to.clone(), state });
                }
            }
            SourceStep::Thaw => self.thaw(character),
            SourceStep::Bind(epoch) => {
                if let Some(player) = self.players.get(character)
                    && let Some(gateway) = player.gateway.clone()
                {
                    let (session, zone) = (player.session, to.name.clone());
                    self.effects.push(Effect::Bind { gateway, session, zone, epoch });
                }
            }
            SourceStep::Settle { committed } => {
                let latest = self.latest_state(character);
                let Some(player) = self.players.get_mut(character) else { return };
                // After a thaw this zone processes the inputs.
                let inputs = if committed { player.take_held_inputs() } else { Vec::new() };
                let mut handed_over = HandedOver::new(character, epoch, to.clone(), self.now);
                let settlement = if committed {
                    let (_, settlement) = handed_over.forward(inputs, latest);
                    self.handed_over.insert(player.session, handed_over);
                    settlement
                } else {
                    Settlement { character, epoch, committed: false, inputs, from: 0, latest: None }
                };
                self.effects.push(Effect::Settle { to: to.clone(), settlement });
            }
            SourceStep::Forget => {
                self.remove_player(character);
            }
        }
    }

    pub(super) fn latest_state(&self, character: CharacterId) -> Option<LatestState> {
        let avatar = self.sim.avatar(character)?;
        let (mut own, mut velocity) = (avatar.own, avatar.desired_velocity);
        if let Some(place) = self.journey(character) {
            (own.position, velocity) = (place, (0, 0));
        }
        Some(LatestState {
            position: own.position,
            velocity,
            facing: own.facing,
            health: own.health,
            last_input: own.last_input,
            cooldown_ms: avatar.cooldown_ms,
        })
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

    fn offer(&mut self, character: CharacterId, to: &Arc<Destination>) {
        let (Some(avatar), Some(player)) = (self.sim.avatar(character), self.players.get(character)) else {
            return;
        };
        let (mut own, mut velocity) = (avatar.own, avatar.desired_velocity);
        if let Some(place) = self.journey(character) {
            (own.position, velocity) = (place, (0, 0));
        }
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
        let admission = Admission {
            session: player.session,
            session_epoch: player.session_epoch,
            account: player.account,
            entering,
        };
        let (from, gateway) = (self.me.name.clone(), player.gateway.clone());
        let offered = Box::new(OfferedAvatar { from, gateway, admission });
        self.effects.push(Effect::Offer { to: to.clone(), offered });
    }
}

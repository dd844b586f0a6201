//! The target of a hand-over: admits avatars that the world brings or a neighbour offers.

use shardkeep_link::ClientMessage;
use shardkeep_sim::Input;
use shardkeep_types::{CharacterId, Epoch, Position, Term};

use super::Space;
use crate::{
    domain::{
        effect::{CommandError, Effect},
        handover::{Arrival, Ownership, TargetEvent, TargetStep, decide_target_step, new_inputs},
        payload::{Admission, OfferedAvatar, Settlement, StoredAvatar},
        players::{Player, PlayerPhase},
    },
    metrics,
};

impl Space {
    /// Admits an avatar that this zone owns in the database.
    pub(super) fn admit(&mut self, mut admission: Admission, term: Term) -> Result<Position, CommandError> {
        let Admission { entering, .. } = &admission;
        let (character, epoch) = (entering.character, entering.epoch);
        if term < self.table.term {
            return Err(CommandError::Precondition("the world has a later term".to_owned()));
        }
        if self.surroundings.draining {
            return Err(CommandError::Unavailable("this zone is draining"));
        }
        if let Some(player) = self.players.get_mut(character) {
            if player.epoch > epoch {
                let reason = format!("it stands here with epoch {}", player.epoch);
                return Err(CommandError::Precondition(reason));
            }
            if player.epoch == epoch && !player.is_playing() {
                return Err(CommandError::Unavailable("the avatar is leaving this zone: try again"));
            }
            if player.epoch == epoch && player.session == admission.session {
                player.session_epoch = player.session_epoch.max(admission.session_epoch);
                let at = self.sim.avatar(character).map(|avatar| avatar.own.position);
                return Ok(at.unwrap_or(entering.position));
            }
        } else if self.zone_avatars() >= self.config.max_avatars {
            return Err(CommandError::Full("this zone is full"));
        }
        self.arrivals.remove(&character);
        self.recall_avatar(&mut admission.entering);
        let entering = &admission.entering;
        let at = self.sim.map().nearest_walkable(entering.position.point());
        let at = at.in_space(self.sim.space(), entering.position.layer);
        metrics::admitted("world");
        self.enter(admission, Vec::new(), 0);
        Ok(at)
    }

    /// The avatars in all spaces of this zone.
    fn zone_avatars(&self) -> usize {
        self.players.len() + self.surroundings.avatars_elsewhere
    }

    fn enter(&mut self, admission: Admission, inputs: Vec<ClientMessage>, forwarded: u32) {
        let Admission { session, session_epoch, account, entering } = admission;
        let character = entering.character;
        let mut player = Player::new(
            character,
            entering.name.clone(),
            entering.epoch,
            session,
            session_epoch,
            account,
            self.now,
        );
        player.forwarded = forwarded;
        self.handed_over.remove(&session);
        self.handover_retry_at.remove(&character);
        if let Some(replaced) = self.players.insert(player) {
            let answer = CommandError::Precondition("the avatar was admitted again".to_owned());
            self.answer_evictions(replaced, &Err(answer));
        }
        self.presence.changed(character);
        let epoch = entering.epoch;
        self.effects.push(Effect::Entered { session, character, epoch });
        self.apply(Input::Enter(Box::new(entering)));
        for message in inputs {
            self.message(character, &message);
        }
        if let Some(binding) = self.bindings.take(session) {
            self.bound(session, &binding);
        }
    }

    /// A neighbour offers an avatar.
    pub(super) fn offered(&mut self, offered: OfferedAvatar) -> Result<(), String> {
        let OfferedAvatar { admission: Admission { entering, .. }, from, .. } = &offered;
        let (character, epoch, cell) = (entering.character, entering.epoch, entering.position.cell());
        if self.surroundings.draining {
            return Err("this zone is draining".into());
        }
        if self.zone_avatars() + self.arrivals.len() >= self.config.max_avatars {
            return Err("this zone is full".into());
        }
        let owned_here = self.table.of(&self.me, self.sim.space()).any(|sector| sector.cells.contains(cell));
        if !owned_here {
            return Err(format!("cell {cell} is not this zone's"));
        }
        match self.players.get(character).map(|player| player.epoch) {
            Some(current) if current >= epoch => {
                return Err(format!("it stands here with epoch {current}, offered by {from} with {epoch}"));
            }
            // A left-over from before the neighbour owned it.
            Some(current) => self.drop_lost_avatar(character, current),
            None => {}
        }
        self.arrivals.insert(character, Arrival::new(epoch, Some(Box::new(offered)), self.now));
        Ok(())
    }

    /// The neighbour reports the outcome of a hand-over.
    pub(super) fn settled(&mut self, settlement: Settlement) {
        let Settlement { character, epoch, committed, inputs, from, latest } = settlement;
        if let Some(arrival) = self.arrivals.get_mut(&character).filter(|arrival| arrival.epoch() == epoch) {
            arrival.add_forwarded(inputs, from);
            if let Some(latest) = latest {
                arrival.update(&latest);
            }
            if arrival.is_offered() {
                self.target_step(character, decide_target_step(epoch, TargetEvent::Settled { committed }));
            }
            return;
        }
        match self.players.get_mut(character) {
            Some(player) if player.epoch == epoch.next() => {
                let inputs = new_inputs(inputs, from, &mut player.forwarded);
                match player.phase {
                    PlayerPhase::HandingOver(_) => player.hold(inputs),
                    _ => inputs.iter().for_each(|message| self.message(character, message)),
                }
            }
            Some(_) => {}
            // The zone has forgotten the offer. The database has the character.
            None if committed => {
                let mut arrival = Arrival::new(epoch, None, self.now);
                arrival.add_forwarded(inputs, from);
                self.arrivals.insert(character, arrival);
                self.effects.push(Effect::Load(character));
            }
            None => {}
        }
    }

    /// Drops expired offers and asks the database about overdue ones.
    pub(super) fn advance_arrivals(&mut self) {
        let now = self.now;
        self.arrivals.retain(|character, arrival| {
            let keep = !arrival.is_expired(now);
            if !keep {
                tracing::warn!(%character, "an offered avatar never came");
            }
            keep
        });
        let overdue = self.arrivals.iter().filter(|(_, arrival)| arrival.is_overdue(now));
        let overdue: Vec<_> = overdue.map(|(&character, arrival)| (character, arrival.epoch())).collect();
        for (character, epoch) in overdue {
            self.target_step(character, decide_target_step(epoch, TargetEvent::Overdue));
        }
    }

    /// The database has answered, or not: then the zone asks again later.
    pub(super) fn loaded(&mut self, character: CharacterId, row: Option<&StoredAvatar>) {
        let Some(row) = row else { return };
        let Some(arrival) = self.arrivals.get_mut(&character) else {
            self.reconcile_player(character, row);
            return;
        };
        let epoch = row.entering.epoch;
        let ownership = Ownership { owned_here: row.is_owned_by(&self.me), epoch };
        let step = decide_target_step(arrival.epoch(), TargetEvent::Loaded(ownership));
        if matches!(step, TargetStep::Enter { .. }) && !arrival.complete(row) {
            self.arrivals.remove(&character);
            return;
        }
        self.target_step(character, step);
    }

    /// Compares an avatar of this zone with the database. Another zone may own it now, or a neighbour may have rewarded it.
    fn reconcile_player(&mut self, character: CharacterId, row: &StoredAvatar) {
        let Some(epoch) = self.players.get(character).map(|player| player.epoch) else { return };
        let last_action = self.sim.possessions(character).map(|own| own.last_action);
        let stored = &row.entering;
        if stored.epoch > epoch {
            self.drop_lost_avatar(character, epoch);
        } else if stored.epoch == epoch
            && row.is_owned_by(&self.me)
            && !self.sim.is_committing(character)
            && last_action.is_some_and(|it| it <= stored.possessions.last_action)
        {
            let possessions = stored.possessions.clone();
            self.apply(Input::Possessions { character, possessions });
        }
    }

    fn target_step(&mut self, character: CharacterId, step: TargetStep) {
        match step {
            TargetStep::Load => {
                if let Some(arrival) = self.arrivals.get_mut(&character) {
                    arrival.asked(self.now);
                }
                self.effects.push(Effect::Load(character));
            }
            TargetStep::Wait => {}
            TargetStep::Drop => {
                self.arrivals.remove(&character);
            }
            TargetStep::Enter { epoch, bind } => self.take_over(character, epoch, bind),
        }
    }

    fn take_over(&mut self, character: CharacterId, epoch: Epoch, bind: bool) {
        let Some(arrival) = self.arrivals.remove(&character) else { return };
        let Some((offered, inputs, forwarded)) = arrival.into_parts() else { return };
        let OfferedAvatar { mut admission, gateway, .. } = *offered;
        let session = admission.session;
        admission.entering.epoch = epoch;
        metrics::admitted(if bind { "orphaned offer" } else { "neighbour" });
        self.enter(admission, inputs, forwarded);
        if let Some(gateway) = gateway.filter(|_| bind) {
            let zone = self.me.name.clone();
            self.effects.push(Effect::Bind { gateway, session, zone, epoch });
        }
    }
}

//! The target of a hand-over: admits avatars that the world brings or a neighbour offers.

use shardkeep_link::{ClientMessage, GatewayId};
use shardkeep_rpc::{dbcache::Character, session_id};
use shardkeep_sim::Input;
use shardkeep_types::{AccountId, BackendKind, CharacterId, Epoch, Position, Term};
use tonic::Status;

use crate::{
    command::{Admission, OfferedAvatar, Settlement},
    convert,
    handover::{
        arrival::{Arrival, LOAD_AFTER, OFFER_LIFETIME, new_inputs},
        state::{Ownership, TargetEvent, TargetStep, decide_target_step},
    },
    metrics,
    players::{Player, PlayerPhase},
    shard::Shard,
};

impl Shard {
    /// Admits an avatar that this zone owns in the database.
    pub(crate) fn admit(&mut self, admission: Admission, term: Term) -> Result<Position, Status> {
        let Admission { entering, .. } = &admission;
        let (character, epoch) = (entering.character, entering.epoch);
        if term < self.table.term {
            return Err(Status::failed_precondition("the world has a later term"));
        }
        if self.draining.is_some() {
            return Err(Status::unavailable("this zone is draining"));
        }
        if let Some(player) = self.players.get_mut(character) {
            if player.epoch > epoch {
                return Err(Status::failed_precondition(format!(
                    "it stands here with epoch {}",
                    player.epoch
                )));
            }
            if player.epoch == epoch && !player.is_playing() {
                return Err(Status::unavailable("the avatar is leaving this zone: try again"));
            }
            if player.epoch == epoch && player.session == admission.session {
                player.session_epoch = player.session_epoch.max(admission.session_epoch);
                let at = self.sim.avatar(character).map(|avatar| avatar.own.position);
                return Ok(at.unwrap_or(entering.position));
            }
        } else if self.players.len() >= self.config.max_avatars {
            return Err(Status::resource_exhausted("this zone is full"));
        }
        self.arrivals.remove(&character);
        let at = self.sim.map().nearest_walkable(entering.position.point());
        let at = at.in_space(self.sim.space(), entering.position.layer);
        metrics::admitted("world");
        self.enter(admission, Vec::new(), 0);
        Ok(at)
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
        self.players.insert(player);
        self.presence.changed(character);
        self.apply(Input::Enter(Box::new(entering)));
        for message in inputs {
            self.message(character, &message);
        }
        if let Some(binding) = self.bindings.take(session) {
            self.bound(session, &binding);
        }
    }

    /// A neighbour offers an avatar.
    pub(crate) fn offered(&mut self, offered: OfferedAvatar) -> Result<(), String> {
        let OfferedAvatar { admission: Admission { entering, .. }, from, .. } = &offered;
        let (character, epoch, cell) = (entering.character, entering.epoch, entering.position.cell());
        if self.draining.is_some() {
            return Err("this zone is draining".into());
        }
        if self.players.len() + self.arrivals.len() >= self.config.max_avatars {
            return Err("this zone is full".into());
        }
        let owned_here = self.table.of(&self.me).any(|sector| sector.cells.contains(cell));
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
    pub(crate) fn settled(&mut self, settlement: Settlement) {
        let Settlement { character, epoch, committed, inputs, from } = settlement;
        if let Some(arrival) = self.arrivals.get_mut(&character).filter(|arrival| arrival.epoch == epoch) {
            arrival.add_forwarded(inputs, from);
            if arrival.offered.is_some() {
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
                self.background_calls.load(character);
            }
            None => {}
        }
    }

    /// Drops expired offers and asks the database about overdue ones.
    pub(crate) fn advance_arrivals(&mut self) {
        let now = self.now;
        self.arrivals.retain(|character, arrival| {
            let keep = now.saturating_duration_since(arrival.since) < OFFER_LIFETIME;
            if !keep {
                tracing::warn!(%character, "an offered avatar never came");
            }
            keep
        });
        let overdue: Vec<_> = self.arrivals.iter().filter(|(_, arrival)| arrival.load_at <= now).collect();
        let overdue: Vec<_> =
            overdue.into_iter().map(|(&character, arrival)| (character, arrival.epoch)).collect();
        for (character, epoch) in overdue {
            self.target_step(character, decide_target_step(epoch, TargetEvent::Overdue));
        }
    }

    /// The database has answered, or not: then the zone asks again later.
    pub(crate) fn loaded(&mut self, character: CharacterId, row: Option<&Character>) {
        let Some(row) = row else { return };
        let Some(arrival) = self.arrivals.get_mut(&character) else {
            self.reconcile_player(character, row);
            return;
        };
        let owned_here = row.owner == self.me.name && row.owner_incarnation == self.me.incarnation;
        let ownership = Ownership { owned_here, epoch: Epoch(row.epoch) };
        let step = decide_target_step(arrival.epoch, TargetEvent::Loaded(ownership));
        // The possessions in the database are newer than those of the offer.
        if let TargetStep::Enter { .. } = step {
            match (&mut arrival.offered, admission_from_row(row)) {
                (Some(offered), _) => {
                    offered.admission.entering.possessions = convert::possessions(row);
                }
                (none, Some(admission)) => {
                    *none = Some(Box::new(OfferedAvatar {
                        from: String::new(),
                        gateway: String::new(),
                        admission,
                    }));
                }
                (None, None) => {
                    self.arrivals.remove(&character);
                    return;
                }
            }
        }
        self.target_step(character, step);
    }

    /// Compares an avatar of this zone with the database. Another zone may own it now, or a neighbour may have rewarded it.
    fn reconcile_player(&mut self, character: CharacterId, row: &Character) {
        let Some(epoch) = self.players.get(character).map(|player| player.epoch) else { return };
        let last_action = self.sim.possessions(character).map(|own| own.last_action);
        let owned_here = row.owner == self.me.name && row.owner_incarnation == self.me.incarnation;
        if Epoch(row.epoch) > epoch {
            self.drop_lost_avatar(character, epoch);
        } else if Epoch(row.epoch) == epoch
            && owned_here
            && !self.sim.is_committing(character)
            && last_action.is_some_and(|it| it <= row.last_action)
        {
            let possessions = convert::possessions(row);
            self.apply(Input::Possessions { character, possessions });
        }
    }

    fn target_step(&mut self, character: CharacterId, step: TargetStep) {
        match step {
            TargetStep::Load => {
                if let Some(arrival) = self.arrivals.get_mut(&character) {
                    arrival.load_at = self.now + LOAD_AFTER;
                }
                self.background_calls.load(character);
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
        let Some(offered) = arrival.offered else { return };
        let OfferedAvatar { mut admission, gateway, .. } = *offered;
        let session = admission.session;
        admission.entering.epoch = epoch;
        metrics::admitted(if bind { "orphaned offer" } else { "neighbour" });
        self.enter(admission, arrival.inputs, arrival.forwarded);
        if bind && !gateway.is_empty() {
            self.hub.bind(&GatewayId::from(gateway), session, BackendKind::ZONE, &self.me.name, epoch);
        }
    }
}

/// An admission from the database alone. The session's epoch follows when its gateway binds it.
fn admission_from_row(row: &Character) -> Option<Admission> {
    Some(Admission {
        session: session_id(&row.session).ok()?,
        session_epoch: Epoch(0),
        account: AccountId(row.account),
        entering: convert::entering(row).ok()?,
    })
}

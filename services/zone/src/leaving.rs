//! Avatars on their way out: handed over to another zone, or saved and let go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_cluster::link::ClientMessage;
use shardkeep_rpc::{
    dbcache::{ReleaseRequest, SaveSoftRequest, SoftState, TransferRequest},
    link,
    zone::{OfferRequest, SettleRequest},
};
use shardkeep_sim::{Entering, Input};
use shardkeep_types::{BackendKind, CellId, CharacterId, Epoch};
use shardkeep_wire::payload::ErrorCode;
use tonic::Status;

use crate::{
    convert,
    handover::{Source, SourceEvent, SourceStep},
    metrics,
    players::{Destination, Evicted, Leaving, Player, Standing, answer_all},
    shard::Shard,
};

/// After a hand-over that did not come about.
const HANDOVER_PAUSE: Duration = Duration::from_millis(500);
/// How long inputs that still come for a session that went elsewhere are sent after it.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Most avatars in one call.
const SAVE_BATCH: usize = 1_024;

/// A session whose avatar was handed over.
#[derive(Debug)]
pub(crate) struct Moved {
    character: CharacterId,
    epoch: Epoch,
    to: Arc<Destination>,
    forwarded: u32,
    since: Instant,
}

impl Moved {
    pub(crate) fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > REMEMBERED
    }

    /// Where these inputs go, and the call that takes them there.
    pub(crate) fn forward(&mut self, inputs: Vec<ClientMessage>) -> (Arc<Destination>, SettleRequest) {
        let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        let settle = settlement(self.character, self.epoch, true, inputs, self.forwarded);
        self.forwarded = self.forwarded.saturating_add(count);
        (self.to.clone(), settle)
    }
}

fn settlement(
    character: CharacterId,
    epoch: Epoch,
    committed: bool,
    inputs: Vec<ClientMessage>,
    from: u32,
) -> SettleRequest {
    use prost::Message;
    let pending_inputs =
        inputs.into_iter().map(|input| link::ClientMessage::from(input).encode_to_vec()).collect();
    SettleRequest { character: character.0, epoch: epoch.0, committed, pending_inputs, pending_from: from }
}

impl Shard {
    /// The avatar stands in a cell of another zone: hand it over, if that can be done now.
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
        let paused = self.not_before.get(&character).is_some_and(|until| *until > self.now);
        // While the database is away the avatar is simulated here, across the border.
        if is_me || paused || !self.works.database.is_reachable() {
            return;
        }
        let now = self.now;
        if let Some(player) = self.players.get_mut(character).filter(|player| player.is_playing()) {
            player.standing =
                Standing::HandingOver(Leaving { state: Source::Quiescing, to: Arc::new(to), since: now });
            self.inputs.push(Input::Freeze { character });
        }
    }

    /// Save it and let it go. Repeated calls change nothing.
    pub(crate) fn begin_release(&mut self, character: CharacterId, reason: &str) {
        let Some(player) = self.players.get_mut(character).filter(|player| player.is_playing()) else {
            return;
        };
        player.standing = Standing::Releasing { reason: reason.to_owned(), sent: false, waiting: Vec::new() };
        self.inputs.push(Input::Freeze { character });
    }

    pub(crate) fn evict(&mut self, character: CharacterId, epoch: Epoch, reason: &str, reply: Evicted) {
        let moved = self.moved.values().any(|moved| moved.character == character);
        let answer = match self.players.get(character) {
            None if moved => Err(Status::failed_precondition("handed over to another zone")),
            None if self.arrivals.contains_key(&character) => Err(Status::unavailable("just coming over")),
            None => Ok(()),
            Some(player) if epoch != Epoch(0) && player.epoch > epoch => {
                Err(Status::failed_precondition(format!("it stands here with epoch {}", player.epoch)))
            }
            Some(player) if matches!(player.standing, Standing::HandingOver(_)) => {
                Err(Status::unavailable("just being handed over"))
            }
            Some(_) => {
                self.begin_release(character, reason);
                if let Some(Standing::Releasing { waiting, .. }) =
                    self.players.get_mut(character).map(|player| &mut player.standing)
                {
                    waiting.push(reply);
                }
                return;
            }
        };
        // The caller may have gone; it will ask again.
        let _ = reply.send(answer);
    }

    /// Goes on with whatever waited for hard actions to come back.
    pub(crate) fn advance_leaving(&mut self) {
        let quiet = |shard: &Self, character| {
            let frozen = shard.sim.avatar(character).is_some_and(|avatar| avatar.frozen);
            frozen && !shard.sim.is_committing(character)
        };
        let ready: Vec<CharacterId> = self
            .players
            .iter()
            .filter(|player| match &player.standing {
                Standing::HandingOver(leaving) => leaving.state == Source::Quiescing,
                Standing::Releasing { sent, .. } => !sent,
                Standing::Playing => false,
            })
            .map(|player| player.character)
            .filter(|&character| quiet(self, character))
            .collect();
        for character in ready {
            match self.players.get(character).map(|player| (&player.standing, player.epoch)) {
                Some((Standing::HandingOver(_), epoch)) => {
                    self.handover_event(character, epoch, SourceEvent::Idle);
                }
                Some((Standing::Releasing { .. }, _)) => self.release(character),
                _ => {}
            }
        }
        self.release_abandoned();
        self.drain();
    }

    fn release(&mut self, character: CharacterId) {
        let Some(soft) = self.soft_state(character) else { return };
        let Some(player) = self.players.get_mut(character) else { return };
        if let Standing::Releasing { sent, .. } = &mut player.standing {
            *sent = true;
        }
        let epoch = player.epoch.0;
        self.works.release(ReleaseRequest { character: character.0, epoch, soft: Some(soft) });
    }

    fn release_abandoned(&mut self) {
        let (now, after) = (self.now, self.config.abandoned_after);
        let abandoned: Vec<_> = self
            .players
            .iter()
            .filter(|player| player.is_playing() && player.gateway.is_none())
            .filter(|player| now.saturating_duration_since(player.unbound_since) > after)
            .map(|player| player.character)
            .collect();
        for character in abandoned {
            self.begin_release(character, "no gateway speaks for it");
        }
    }

    /// A draining zone hopes for a while that the world gives its sectors to others; what is left then is saved
    /// and let go.
    fn drain(&mut self) {
        let Some(since) = self.draining else { return };
        if self.now.saturating_duration_since(since) < self.config.handover_patience {
            return;
        }
        let left: Vec<_> =
            self.players.iter().filter(|player| player.is_playing()).map(|it| it.character).collect();
        for character in left {
            self.begin_release(character, "the zone is closing");
        }
    }

    pub(crate) fn released(&mut self, character: CharacterId, epoch: Epoch) {
        let here = self.players.get(character).is_some_and(|player| {
            player.epoch == epoch && matches!(player.standing, Standing::Releasing { .. })
        });
        if !here {
            return;
        }
        let Some(player) = self.forget(character) else { return };
        if let Standing::Releasing { reason, .. } = &player.standing {
            tracing::info!(%character, reason, "the avatar has left the world");
        }
        if self.draining.is_some()
            && let Some(gateway) = &player.gateway
        {
            self.hub.close(gateway, player.session, ErrorCode::Draining as u32, "the zone is closing");
        }
        answer_all(player, &Ok(()));
    }

    /// The avatar is not this zone's any more.
    pub(crate) fn forget(&mut self, character: CharacterId) -> Option<Player> {
        self.inputs.push(Input::Leave { character });
        self.presence.gone(character);
        self.players.remove(character)
    }

    /// The database says that another zone owns it.
    pub(crate) fn lose(&mut self, character: CharacterId, epoch: Epoch) {
        if self.players.get(character).is_some_and(|player| player.epoch == epoch) {
            tracing::warn!(%character, %epoch, "another zone owns the avatar by now");
            metrics::ownership_lost();
            if let Some(player) = self.forget(character) {
                answer_all(player, &Ok(()));
            }
        }
    }

    pub(crate) fn handover_event(&mut self, character: CharacterId, epoch: Epoch, event: SourceEvent) {
        let Some(player) = self.players.get_mut(character).filter(|player| player.epoch == epoch) else {
            return;
        };
        let Standing::HandingOver(leaving) = &mut player.standing else { return };
        let (state, steps) = leaving.state.on(event);
        if let Some(state) = state {
            leaving.state = state;
        }
        let (to, since) = (leaving.to.clone(), leaving.since);
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
                    soft: self.soft_state(character),
                };
                self.works.transfer(transfer);
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
                // After a thaw the inputs are served here.
                let inputs = if committed { player.take_held() } else { Vec::new() };
                let mut moved = Moved { character, epoch, to: to.clone(), forwarded: 0, since: self.now };
                if committed {
                    let (_, settle) = moved.forward(inputs);
                    self.moved.insert(player.session, moved);
                    self.works.settle(to, settle);
                } else {
                    self.works.settle(to, settlement(character, epoch, false, inputs, 0));
                }
            }
            SourceStep::Forget => {
                self.forget(character);
            }
        }
    }

    fn thaw(&mut self, character: CharacterId) {
        self.not_before.insert(character, self.now + HANDOVER_PAUSE);
        self.inputs.push(Input::Thaw { character });
        let Some(player) = self.players.get_mut(character) else { return };
        player.standing = Standing::Playing;
        for message in player.take_held() {
            self.message(character, &message);
        }
    }

    fn offer(&mut self, character: CharacterId, to: &Destination) {
        let (Some(avatar), Some(player)) = (self.sim.avatar(character), self.players.get(character)) else {
            return;
        };
        let own = avatar.own;
        let velocity = (i32::from(own.velocity.0), i32::from(own.velocity.1));
        let entering = Entering {
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
            pending_inputs: Vec::new(),
            gateway: player.gateway.as_deref().unwrap_or_default().to_owned(),
        };
        self.works.offer(to, offer);
    }

    fn soft_state(&self, character: CharacterId) -> Option<SoftState> {
        let avatar = self.sim.avatar(character)?;
        let player = self.players.get(character)?;
        Some(SoftState {
            character: character.0,
            epoch: player.epoch.0,
            position: Some(avatar.own.position.into()),
            facing: avatar.own.facing.into(),
            health: avatar.own.health,
        })
    }

    /// Changed positions and health go to the database, one call at a time; what fails goes again with the next.
    pub(crate) fn save_soft_state(&mut self) {
        if self.now < self.next_save || self.saving {
            return;
        }
        self.next_save = self.now + self.config.save_interval;
        let playing = self.players.iter().filter(|player| player.is_playing());
        let changed = playing.filter_map(|player| {
            let state = self.soft_state(player.character)?;
            (player.saved.as_ref() != Some(&state)).then_some(state)
        });
        let states: Vec<SoftState> = changed.take(SAVE_BATCH).collect();
        if states.is_empty() {
            return;
        }
        if states.len() == SAVE_BATCH {
            self.next_save = self.now;
        }
        for state in &states {
            if let Some(player) = self.players.get_mut(state.character.into()) {
                player.saved = Some(*state);
            }
        }
        self.saving = true;
        self.works.save(SaveSoftRequest { states });
    }

    pub(crate) fn saved(&mut self, states: &[(CharacterId, Epoch)], stale: Option<&[u64]>) {
        self.saving = false;
        match stale {
            Some(stale) => {
                let stale = states.iter().filter(|(character, _)| stale.contains(&character.0));
                for &(character, epoch) in stale {
                    self.lose(character, epoch);
                }
            }
            None => {
                for (character, _) in states {
                    if let Some(player) = self.players.get_mut(*character) {
                        player.saved = None;
                    }
                }
            }
        }
    }
}

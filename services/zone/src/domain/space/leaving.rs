//! Releases avatars: the zone saves them, or has lost them to another zone.

use std::time::Duration;

use shardkeep_sim::Input;
use shardkeep_types::{CharacterId, Epoch};
use shardkeep_wire::payload::ErrorCode;

use super::Space;
use crate::{
    domain::{
        effect::{Answer, CommandError, Effect},
        handover::{Source, SourceEvent},
        payload::ReplyTo,
        players::{Player, PlayerPhase},
    },
    metrics,
};

/// How long an avatar waits for its hard actions before a hand-over is given up.
const QUIESCE_WITHIN: Duration = Duration::from_secs(1);

/// How many avatars begin to leave a closing space in one tick.
const LEAVING_PER_TICK: usize = 16;

impl Space {
    /// Begins to save and release an avatar. Repeated calls have no effect.
    pub(super) fn begin_release(&mut self, character: CharacterId, reason: &str) {
        let Some(player) = self.players.get_mut(character).filter(|player| player.is_playing()) else {
            return;
        };
        player.phase = PlayerPhase::Releasing { reason: reason.to_owned(), sent: false, waiting: Vec::new() };
        self.apply(Input::Freeze { character });
        self.continue_leaving(character);
    }

    pub(super) fn evict(&mut self, character: CharacterId, epoch: Epoch, reason: &str, reply: ReplyTo) {
        // The avatar may have returned and left again since the epoch that the caller knows.
        let handed_over =
            self.handed_over.values().any(|handed_over| handed_over.left_after(character, epoch));
        let answer = match self.players.get(character) {
            None if handed_over => Err(CommandError::Precondition("handed over to another zone".to_owned())),
            None if self.arrivals.contains_key(&character) => {
                Err(CommandError::Unavailable("just coming over"))
            }
            None => Ok(()),
            Some(player) if epoch != Epoch(0) && player.epoch > epoch => {
                Err(CommandError::Precondition(format!("it stands here with epoch {}", player.epoch)))
            }
            Some(player) if matches!(player.phase, PlayerPhase::HandingOver(_)) => {
                Err(CommandError::Unavailable("just being handed over"))
            }
            Some(_) => {
                self.begin_release(character, reason);
                if let Some(PlayerPhase::Releasing { waiting, .. }) =
                    self.players.get_mut(character).map(|player| &mut player.phase)
                {
                    waiting.push(reply);
                }
                return;
            }
        };
        self.reply_to(reply, Answer::Done(answer));
    }

    /// Continues hand-overs and releases that waited for hard actions.
    pub(super) fn advance_leaving(&mut self) {
        let leaving = self.players.iter().filter(|player| is_waiting(player));
        let leaving: Vec<CharacterId> = leaving.map(|player| player.character).collect();
        leaving.into_iter().for_each(|character| self.continue_leaving(character));
        self.release_abandoned();
        self.leave_closing_space();
        self.drain();
    }

    /// Moves the avatars of a closing space to the start of space 1, some in each tick.
    fn leave_closing_space(&mut self) {
        let Some(exit) = self.exit else { return };
        let now = self.now;
        let may_leave = self.players.iter().filter(|player| {
            let paused = self.handover_retry_at.get(&player.character).is_some_and(|until| *until > now);
            player.is_playing() && !paused
        });
        let leaving: Vec<_> = may_leave.map(|player| player.character).take(LEAVING_PER_TICK).collect();
        for character in leaving {
            // An error means that space 1 has no owner now. A later tick tries again.
            if self.begin_journey(character, exit, None).is_err() {
                return;
            }
        }
    }

    /// Continues the hand-over or release of an avatar, as soon as no hard action of it is pending.
    pub(super) fn continue_leaving(&mut self, character: CharacterId) {
        let is_quiescent = self.sim.avatar(character).is_some_and(|avatar| avatar.held)
            && !self.sim.is_committing(character);
        let Some(player) = self.players.get(character).filter(|player| is_waiting(player)) else { return };
        let epoch = player.epoch;
        match &player.phase {
            PlayerPhase::HandingOver(_) if is_quiescent => {
                self.handover_event(character, epoch, SourceEvent::Idle);
            }
            // The database does not answer. The avatar plays on here.
            PlayerPhase::HandingOver(handover) if handover.since + QUIESCE_WITHIN < self.now => {
                self.handover_event(character, epoch, SourceEvent::Refused);
            }
            PlayerPhase::Releasing { .. } if is_quiescent => self.release(character),
            _ => {}
        }
    }

    fn release(&mut self, character: CharacterId) {
        let Some(soft) = self.next_soft_state(character) else { return };
        let Some(player) = self.players.get_mut(character) else { return };
        if let PlayerPhase::Releasing { sent, .. } = &mut player.phase {
            *sent = true;
        }
        self.effects.push(Effect::Release(soft));
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

    /// A draining zone waits until the world gives its sectors to other zones, if there are any. Then it saves and
    /// releases the remaining avatars.
    fn drain(&mut self) {
        let Some(since) = self.draining_since else { return };
        if !self.surroundings.is_only_zone
            && self.now.saturating_duration_since(since) < self.config.handover_patience
        {
            return;
        }
        let left: Vec<_> =
            self.players.iter().filter(|player| player.is_playing()).map(|it| it.character).collect();
        for character in left {
            self.begin_release(character, "the zone is closing");
        }
    }

    pub(super) fn released(&mut self, character: CharacterId, epoch: Epoch) {
        let is_releasing = self.players.get(character).is_some_and(|player| {
            player.epoch == epoch && matches!(player.phase, PlayerPhase::Releasing { .. })
        });
        if !is_releasing {
            return;
        }
        let Some(player) = self.remove_player(character) else { return };
        if let PlayerPhase::Releasing { reason, .. } = &player.phase {
            tracing::info!(%character, reason, "the avatar has left the world");
        }
        if self.draining_since.is_some()
            && let Some(gateway) = player.gateway.clone()
        {
            let (session, code) = (player.session, ErrorCode::Kicked);
            self.effects.push(Effect::Close { gateway, session, code, detail: "the zone is closing" });
        }
        self.answer_evictions(player, &Ok(()));
    }

    /// Removes an avatar that this zone does not own any more.
    pub(super) fn remove_player(&mut self, character: CharacterId) -> Option<Player> {
        self.apply(Input::Leave { character });
        self.presence.gone(character);
        let player = self.players.remove(character)?;
        self.effects.push(Effect::Left(player.session));
        Some(player)
    }

    /// Removes an avatar that another zone owns in the database.
    pub(super) fn drop_lost_avatar(&mut self, character: CharacterId, epoch: Epoch) {
        if self.players.get(character).is_some_and(|player| player.epoch == epoch) {
            tracing::warn!(%character, %epoch, "another zone owns the avatar by now");
            metrics::ownership_lost();
            if let Some(player) = self.remove_player(character) {
                self.answer_evictions(player, &Ok(()));
            }
        }
    }
}

impl Space {
    /// Answers the callers that wait for the eviction of this player.
    pub(super) fn answer_evictions(&mut self, player: Player, answer: &Result<(), CommandError>) {
        if let PlayerPhase::Releasing { waiting, .. } = player.phase {
            waiting.into_iter().for_each(|reply| self.reply_to(reply, Answer::Done(answer.clone())));
        }
    }
}

/// Whether the avatar waits for its hard actions.
fn is_waiting(player: &Player) -> bool {
    match &player.phase {
        PlayerPhase::HandingOver(handover) => handover.state == Source::Quiescing,
        PlayerPhase::Releasing { sent, .. } => !sent,
        PlayerPhase::Playing => false,
    }
}

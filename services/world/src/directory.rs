//! The sessions of the world: how they open, move between gateways and end, and how a new term learns of them.

use std::time::{Duration, Instant};

use shardkeep_types::{CharacterId, Epoch, SessionId};
use shardkeep_wire::payload::ErrorCode;

use crate::{
    core::Core,
    effect::{Effect, PlayerEvent, PlayerEventKind, Work},
    presence::Avatar,
    sessions::{Claim, PlayState, PresentedSession, Session, SessionError},
};

/// The most ended sessions to remember, so that a gateway that missed an end does not restore the session.
const MAX_ENDED_SESSIONS: usize = 16_384;
/// How long gateways may take to present their sessions to a new term. Until then, an unknown session may still
/// appear.
const PRESENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The activity of a session when the world restarted, as its gateway reports it.
#[derive(Debug, Default)]
pub(crate) struct SessionActivity {
    pub(crate) character: Option<CharacterId>,
    /// Place in the queue, from 1; 0: not in the queue.
    pub(crate) queue_place: u32,
}

impl Core {
    /// A gateway presents a session. `character` and `queue_place` describe it before the world restarted.
    pub(crate) fn open_session(
        &mut self,
        now: Instant,
        presented: PresentedSession,
        activity: &SessionActivity,
    ) -> Result<Epoch, SessionError> {
        let id = presented.session;
        if self.ended_sessions.contains_key(&id) {
            return Err(SessionError::Ended);
        }
        let (is_repeat, known) = (presented.epoch > Epoch(0), self.sessions.get(id).is_some());
        let (epoch, displaced) = self.sessions.open(presented)?;
        if let Some(displaced) = displaced {
            self.close_session(now, displaced, ErrorCode::Displaced, "logged in elsewhere");
        }
        if is_repeat && !known {
            self.restore(now, id, activity);
            self.joined(id);
        }
        Ok(epoch)
    }

    /// Restores the activity of a session that an earlier term knew, from its avatar or from its gateway.
    fn restore(&mut self, now: Instant, id: SessionId, activity: &SessionActivity) {
        self.set_play(id, PlayState::Restored);
        if let Some(character) = self.orphan_of(id) {
            self.forget_orphan(character);
            self.set_play(id, PlayState::Inside { character });
            self.place(id);
        } else if let Some(avatar) = self.presence.of_session(id) {
            let character = avatar.character;
            self.set_play(id, PlayState::Inside { character });
        } else if let Some(character) = activity.character {
            self.set_play(id, PlayState::Inside { character });
            self.missing_since.insert(id, now);
        } else if activity.queue_place > 0 {
            // The client repeats its Enter; until then the session keeps its place.
            self.queue.rejoin(id, activity.queue_place);
        }
    }

    /// A gateway holds the session now, without data about this world; the world sends it.
    pub(crate) fn joined(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        let (gateway, play) = (session.announced_by.clone(), session.play);
        self.push(Effect::SubscribeToWorld { gateway: gateway.clone(), session: id });
        match play {
            PlayState::Inside { character } => {
                if let Some(avatar) = self.presence.get(character).filter(|avatar| avatar.session == id) {
                    let (zone, epoch) = (avatar.zone.name.clone(), avatar.epoch);
                    self.push(Effect::Bind { gateway, session: id, zone, epoch });
                }
            }
            PlayState::Queued { .. } => self.queue.join(id),
            _ => {}
        }
    }

    pub(crate) fn find_session(
        &self,
        now: Instant,
        id: SessionId,
    ) -> Result<(&Session, Option<&Avatar>), SessionError> {
        let session = self.sessions.get(id).ok_or_else(|| self.unknown_session_error(now, id))?;
        let avatar = session.play.character().and_then(|character| self.presence.get(character));
        Ok((session, avatar.filter(|avatar| avatar.session == id)))
    }

    pub(crate) fn claim_session(&mut self, now: Instant, claim: Claim) -> Result<Epoch, SessionError> {
        if self.sessions.get(claim.session).is_none() {
            return Err(self.unknown_session_error(now, claim.session));
        }
        self.sessions.claim(now, claim)
    }

    /// The error for an unknown session: ended, or perhaps not presented yet.
    fn unknown_session_error(&self, now: Instant, id: SessionId) -> SessionError {
        let in_grace = self.since.is_some_and(|since| now.saturating_duration_since(since) < PRESENT_TIMEOUT);
        if in_grace && !self.ended_sessions.contains_key(&id) {
            SessionError::NotYetPresented
        } else {
            SessionError::Unknown
        }
    }

    /// Ends a session that its gateway does not know yet.
    pub(crate) fn close_session(&mut self, now: Instant, id: SessionId, code: ErrorCode, detail: &str) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.announced_by.clone();
            self.push(Effect::Close { gateway, session: id, code, detail: detail.to_owned() });
            let reason = if code == ErrorCode::Displaced { "displaced" } else { "kicked" };
            self.end_session(now, id, reason);
        }
    }

    pub(crate) fn end_session(&mut self, now: Instant, id: SessionId, reason: &'static str) {
        let Some(session) = self.sessions.remove(id) else { return };
        self.inside -= usize::from(session.play.holds_avatar());
        self.queue.remove(id);
        self.pending_placements.remove(&id);
        self.missing_since.remove(&id);
        if self.ended_sessions.len() < MAX_ENDED_SESSIONS {
            self.ended_sessions.insert(id, now);
        }
        let avatar = self.presence.of_session(id).map(|avatar| avatar.character);
        let character = avatar.or_else(|| session.play.character().filter(|_| session.play.holds_avatar()));
        if let Some(character) = character {
            self.release_character(character, id, reason);
        }
        self.push(Effect::Report(PlayerEvent {
            kind: PlayerEventKind::Leave,
            account: session.account,
            session: id,
            character,
            detail: reason.to_owned(),
        }));
        self.admit_from_queue(now);
    }

    /// Removes an avatar from the world on behalf of its session.
    pub(crate) fn release_character(
        &mut self,
        character: CharacterId,
        session: SessionId,
        reason: &'static str,
    ) {
        if self.presence.get(character).is_some_and(|avatar| avatar.session == session) {
            let delta = self.presence.remove(character);
            self.publish_presence(delta);
        }
        self.push(Effect::Start(Work::ReleaseCharacter { character, session, reason }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Game, session};

    #[test]
    fn unknown_session_is_retryable_early_in_a_term() {
        let mut game = Game::new(9);
        let find = |game: &Game| game.core.find_session(game.now, session(1)).map(drop);
        assert_eq!(find(&game), Err(SessionError::NotYetPresented));
        game.advance(5);
        assert_eq!(find(&game), Err(SessionError::Unknown));
        game.lead(2);
        assert_eq!(find(&game), Err(SessionError::NotYetPresented));
        let ann = game.open(1);
        assert_eq!(find(&game), Ok(()));
        game.core.end_session(game.now, ann, "logged out");
        assert_eq!(find(&game), Err(SessionError::Unknown), "it is over for certain");
    }
}

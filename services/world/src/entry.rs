//! Entering and leaving the world: the queue, the capacity and the results of placements.

use std::time::{Duration, Instant};

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_types::{CELL_MM, CharacterId, EntityId, SessionId};
use shardkeep_wire::{
    opcode,
    payload::{self, ErrorCode},
};

use crate::{
    core::Core,
    effect::{Effect, Placement, PlayerEvent, PlayerEventKind, Work},
    presence::{Avatar, Delta},
    sessions::PlayState,
};

/// The delay that clients are told when a service is unavailable for a moment.
const RETRY: Duration = Duration::from_secs(1);

/// Why a character did not enter a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("no such character")]
    NotFound,
    #[error("the zone cannot take the character at the moment")]
    Unavailable,
}

impl Core {
    pub(crate) fn enter(&mut self, now: Instant, id: SessionId, request: u64, character: CharacterId) {
        let Some(session) = self.sessions.get(id) else { return };
        match session.play {
            PlayState::Lobby | PlayState::Restored | PlayState::Queued { .. } => {
                if !self.is_admitting() {
                    return self.refuse(id, request, ErrorCode::Unavailable, "the world is closing");
                }
                self.set_play(id, PlayState::Queued { character, request });
                self.queue.join(id);
                self.admit_from_queue(now);
                self.send_queue_places();
            }
            PlayState::Entering { character: same, .. } if same == character => {
                self.set_play(id, PlayState::Entering { character, request });
            }
            PlayState::Inside { character: same } if same == character => {
                self.welcome(id, request, character);
            }
            PlayState::Entering { .. } | PlayState::Inside { .. } => {
                self.refuse(
                    id,
                    request,
                    ErrorCode::Refused,
                    "another character of yours is in the world: leave first",
                );
            }
            PlayState::Leaving { .. } => self.refuse(id, request, ErrorCode::Unavailable, "still leaving"),
        }
    }

    pub(crate) fn leave(&mut self, id: SessionId, request: u64) {
        let Some(session) = self.sessions.get(id) else { return };
        match session.play {
            PlayState::Lobby | PlayState::Restored => {
                self.queue.remove(id);
                self.set_play(id, PlayState::Lobby);
                self.answer(id, request, opcode::LEAVE, &payload::Left {});
            }
            PlayState::Queued { request: entering, .. } => {
                self.queue.remove(id);
                self.set_play(id, PlayState::Lobby);
                self.refuse(id, entering, ErrorCode::Refused, "left the queue");
                self.answer(id, request, opcode::LEAVE, &payload::Left {});
                self.send_queue_places();
            }
            PlayState::Inside { character } | PlayState::Leaving { character, .. } => {
                let first = matches!(session.play, PlayState::Inside { .. });
                self.set_play(id, PlayState::Leaving { character, request });
                if first {
                    self.pending_placements.remove(&id);
                    self.release_character(character, id, "left");
                    self.report(id, PlayerEventKind::Leave, Some(character), "left");
                }
            }
            PlayState::Entering { .. } => self.refuse(id, request, ErrorCode::Unavailable, "still entering"),
        }
    }

    /// Admits sessions in the order of the queue while the world has room.
    pub(crate) fn admit_from_queue(&mut self, now: Instant) {
        if self.term(now).is_none() || self.queue.len() == 0 || !self.is_admitting() {
            return;
        }
        let room = usize::try_from(self.config.capacity).unwrap_or(usize::MAX).saturating_sub(self.inside);
        let ready = |id: &SessionId| {
            let play = self.sessions.get(*id).map(|session| session.play);
            matches!(play, Some(PlayState::Queued { .. }))
        };
        let next: Vec<SessionId> = self.queue.iter().filter(ready).take(room).collect();
        for id in next {
            self.queue.remove(id);
            if let Some(PlayState::Queued { character, request }) =
                self.sessions.get(id).map(|session| session.play)
            {
                self.set_play(id, PlayState::Entering { character, request });
                self.place(id);
            }
        }
    }

    pub(crate) fn send_queue_places(&mut self) {
        for change in self.queue.changes() {
            let place = payload::QueuePosition { place: change.place, length: change.length };
            self.send(change.session, ServerMessage::event(opcode::QUEUE_POSITION, place.encode_to_vec()));
        }
    }

    /// Starts to bring the session's character into a zone.
    pub(crate) fn place(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        let Some(character) = session.play.character() else { return };
        self.attempts += 1;
        let attempt = self.attempts;
        let (session_epoch, account) = (session.epoch, session.account);
        self.pending_placements.insert(id, attempt);
        self.forget_orphan(character);
        let placement = Placement { attempt, session: id, session_epoch, account, character };
        self.push(Effect::Start(Work::PlaceAvatar(placement)));
    }

    /// Handles the result of a placement.
    pub(crate) fn placed(&mut self, now: Instant, placement: &Placement, result: Result<Avatar, PlaceError>) {
        let id = placement.session;
        if self.pending_placements.get(&id) != Some(&placement.attempt) {
            let of_this_term = placement.attempt > self.previous_term_attempts;
            if of_this_term
                && result.is_ok()
                && self.sessions.get(id).is_none_or(|session| session.play == PlayState::Lobby)
            {
                self.release_character(placement.character, id, "gone before it was in");
            }
            return;
        }
        self.pending_placements.remove(&id);
        self.missing_since.remove(&id);
        let Some(session) = self.sessions.get(id) else { return };
        let (gateway, play) = (session.announced_by.clone(), session.play);
        match (result, play) {
            (Ok(avatar), _) => {
                let (zone, epoch, character) = (avatar.zone.name.clone(), avatar.epoch, avatar.character);
                if self.presence.upsert(now, avatar.clone()) {
                    self.publish_presence(Delta { present: vec![avatar], gone: Vec::new() });
                }
                self.push(Effect::Bind { gateway, session: id, zone: zone.clone(), epoch });
                self.set_play(id, PlayState::Inside { character });
                if let PlayState::Entering { request, .. } = play {
                    self.welcome(id, request, character);
                    self.report(id, PlayerEventKind::Enter, Some(character), &zone);
                }
            }
            (Err(error), PlayState::Entering { request, .. }) => {
                self.set_play(id, PlayState::Lobby);
                let code = match error {
                    PlaceError::NotFound => ErrorCode::NotFound,
                    PlaceError::Unavailable => ErrorCode::Unavailable,
                };
                self.refuse(id, request, code, &error.to_string());
                self.admit_from_queue(now);
            }
            (Err(error), _) => {
                tracing::warn!(session = %id, %error, "an avatar did not get back into the world yet");
                self.missing_since.insert(id, now);
            }
        }
    }

    /// The character has no owner any more.
    pub(crate) fn released(&mut self, now: Instant, id: SessionId, character: CharacterId) {
        let Some(PlayState::Leaving { character: leaving, request }) =
            self.sessions.get(id).map(|session| session.play)
        else {
            return;
        };
        if leaving == character {
            self.set_play(id, PlayState::Lobby);
            self.answer(id, request, opcode::LEAVE, &payload::Left {});
            self.admit_from_queue(now);
        }
    }

    fn welcome(&mut self, id: SessionId, request: u64, character: CharacterId) {
        let side = u32::from(self.config.map_cells) * CELL_MM.unsigned_abs();
        let entered = payload::Entered {
            character_id: character.0,
            entity_id: EntityId::avatar(character).0,
            map: "meadow".to_owned(),
            width_mm: side,
            height_mm: side,
            cell_mm: CELL_MM.unsigned_abs(),
            tick_hz: self.config.tick_hz,
        };
        self.answer(id, request, opcode::ENTER, &entered);
    }

    pub(crate) fn answer(&mut self, id: SessionId, request: u64, opcode: u16, payload: &impl Message) {
        self.send(id, ServerMessage::reply(opcode, request, payload.encode_to_vec()));
    }

    pub(crate) fn refuse(&mut self, id: SessionId, request: u64, code: ErrorCode, detail: &str) {
        self.send(id, refusal(request, code, detail));
    }

    /// Sends to the gateway that holds the session now. A message to an ended session is dropped.
    pub(crate) fn send(&mut self, id: SessionId, message: ServerMessage) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.announced_by.clone();
            self.push(Effect::Send { gateway, session: id, message });
        }
    }

    fn report(&mut self, id: SessionId, kind: PlayerEventKind, character: Option<CharacterId>, detail: &str) {
        if let Some(session) = self.sessions.get(id) {
            let event = PlayerEvent {
                kind,
                account: session.account,
                session: id,
                character,
                detail: detail.to_owned(),
            };
            self.push(Effect::Report(event));
        }
    }
}

/// The reply that refuses a request.
pub(crate) fn refusal(request: u64, code: ErrorCode, detail: &str) -> ServerMessage {
    let error = payload::Error::of(code, detail);
    let error = if code == ErrorCode::Unavailable { error.retry_after(RETRY) } else { error };
    ServerMessage::refusal(request, error.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use shardkeep_wire::payload::QueuePosition;

    use super::*;
    use crate::fixture::{Game, binds, character, error_code, placements, release_character, sent, session};

    fn places(effects: &[Effect], to: SessionId) -> Vec<(u32, u32)> {
        let place = |message: ServerMessage| {
            assert_eq!(message.opcode, opcode::QUEUE_POSITION);
            let place = QueuePosition::decode(&*message.payload).unwrap();
            (place.place, place.length)
        };
        sent(effects, to).into_iter().map(place).collect()
    }

    #[test]
    fn enter_binds_session_to_zone_before_reply() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        let effects = game.enter(ann);
        assert_eq!(binds(&effects), [(ann, "a".to_owned(), 1)]);
        let bound = effects.iter().position(|effect| matches!(effect, Effect::Bind { .. }));
        let replied = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
        assert!(bound < replied, "{effects:?}");
        let reply = &sent(&effects, ann)[0];
        assert_eq!((reply.opcode, reply.request), (opcode::ENTER, 77));
        let entered = payload::Entered::decode(&*reply.payload).unwrap();
        assert_eq!((entered.width_mm, entered.entity_id), (1_024_000, EntityId::avatar(character(ann)).0));
    }

    #[test]
    fn full_world_queues_and_admits_in_order() {
        let mut game = Game::new(1);
        let (ann, ben, cid) = (game.open(1), game.open(2), game.open(3));
        game.enter(ann);
        game.core.enter(game.now, ben, 5, character(ben));
        game.core.enter(game.now, cid, 6, character(cid));
        let effects = game.effects();
        assert_eq!(places(&effects, ben), [(1, 1)]);
        assert_eq!(places(&effects, cid), [(2, 2)]);
        game.core.end_session(game.now, ann, "logged out");
        game.core.send_queue_places();
        let effects = game.effects();
        assert_eq!(placements(&effects)[0].session, ben);
        assert_eq!(places(&effects, cid), [(1, 1)]);
        assert_eq!(release_character(&effects), [(character(ann), ann)]);
    }

    #[test]
    fn repeated_enter_answers_latest_request_only() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.core.enter(game.now, ann, 5, character(ann));
        let placement = placements(&game.effects()).remove(0);
        game.core.enter(game.now, ann, 6, character(ann));
        assert!(placements(&game.effects()).is_empty());
        let effects = game.admit(&placement, "a", 1);
        assert_eq!(sent(&effects, ann)[0].request, 6);
        game.core.enter(game.now, ann, 7, character(ann));
        assert_eq!(sent(&game.effects(), ann)[0].request, 7, "inside: answered at once");
        game.core.enter(game.now, ann, 8, CharacterId(9));
        assert_eq!(error_code(&sent(&game.effects(), ann)[0]), ErrorCode::Refused);
    }

    #[test]
    fn paused_world_keeps_queue_and_admits_after_resume() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.now += crate::fixture::TTL;
        game.core.enter(game.now, ann, 5, character(ann));
        let effects = game.effects();
        assert_eq!((placements(&effects).len(), places(&effects, ann)), (0, vec![(1, 1)]));
        game.lead(1);
        game.advance(0);
        assert_eq!(placements(&game.effects())[0].session, ann);
    }

    #[test]
    fn character_not_found_is_refused_and_frees_its_slot() {
        let mut game = Game::new(1);
        let (ann, ben) = (game.open(1), game.open(2));
        game.core.enter(game.now, ann, 5, CharacterId(1));
        let placement = placements(&game.effects()).remove(0);
        game.core.enter(game.now, ben, 6, character(ben));
        game.effects();
        game.core.placed(game.now, &placement, Err(PlaceError::NotFound));
        let effects = game.effects();
        assert_eq!(error_code(&sent(&effects, ann)[0]), ErrorCode::NotFound);
        assert_eq!(placements(&effects)[0].session, ben);
    }

    #[test]
    fn leave_is_answered_after_zone_releases_character() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.enter(ann);
        game.core.leave(ann, 9);
        let effects = game.effects();
        assert_eq!(release_character(&effects), [(character(ann), ann)]);
        assert!(sent(&effects, ann).is_empty());
        game.core.released(game.now, ann, character(ann));
        assert_eq!(sent(&game.effects(), ann)[0].opcode, opcode::LEAVE);
        assert_eq!(game.core.inside, 0);
        game.enter(ann);
        assert_eq!(game.core.inside, 1);
    }

    #[test]
    fn avatar_placed_after_session_end_is_released() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.core.enter(game.now, ann, 5, character(ann));
        let placement = placements(&game.effects()).remove(0);
        game.core.end_session(game.now, ann, "logged out");
        game.effects();
        let effects = game.admit(&placement, "a", 1);
        assert_eq!(release_character(&effects), [(character(ann), ann)]);
        assert!(binds(&effects).is_empty());
    }

    #[test]
    fn placement_of_earlier_term_is_not_released() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.core.enter(game.now, ann, 5, character(ann));
        let placement = placements(&game.effects()).remove(0);
        game.lead(2);
        game.effects();
        assert_eq!(release_character(&game.admit(&placement, "a", 1)), []);
    }

    #[test]
    fn leave_while_queued_refuses_enter() {
        let mut game = Game::new(1);
        let (ann, ben) = (game.open(1), game.open(2));
        game.enter(ann);
        game.core.enter(game.now, ben, 5, character(ben));
        game.effects();
        game.core.leave(ben, 6);
        let replies = sent(&game.effects(), ben);
        assert_eq!((error_code(&replies[0]), replies[0].request), (ErrorCode::Refused, 5));
        assert_eq!((replies[1].opcode, replies[1].request), (opcode::LEAVE, 6));
        assert_eq!(game.core.queue.len(), 0);
        assert!(game.core.sessions.get(session(2)).is_some());
    }
}

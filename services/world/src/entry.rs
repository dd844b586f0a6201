//! Into the world and out of it: the queue, the capacity, and what becomes of a placement.

use std::time::{Duration, Instant};

use prost::Message;
use shardkeep_cluster::link::ServerMessage;
use shardkeep_types::{CELL_MM, CharacterId, EntityId, SessionId};
use shardkeep_wire::{
    opcode,
    payload::{self, ErrorCode},
};

use crate::{
    core::Core,
    effect::{Effect, Happened, Placement, PlayerEvent, Work},
    presence::{Avatar, Delta},
    sessions::Play,
};

/// What a client is told to wait when something is away for a moment.
const RETRY: Duration = Duration::from_secs(1);

/// Why a character did not get into a zone.
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
            Play::Lobby | Play::Restored | Play::Queued { .. } => {
                if !self.admits() {
                    return self.refuse(id, request, ErrorCode::Unavailable, "the world is closing");
                }
                self.set_play(id, Play::Queued { character, request });
                self.queue.join(id);
                self.pump(now);
                self.tell_places();
            }
            Play::Entering { character: same, .. } if same == character => {
                self.set_play(id, Play::Entering { character, request });
            }
            Play::Inside { character: same } if same == character => self.welcome(id, request, character),
            Play::Entering { .. } | Play::Inside { .. } => {
                self.refuse(
                    id,
                    request,
                    ErrorCode::Refused,
                    "another character of yours is in the world: leave first",
                );
            }
            Play::Leaving { .. } => self.refuse(id, request, ErrorCode::Unavailable, "still leaving"),
        }
    }

    pub(crate) fn leave(&mut self, id: SessionId, request: u64) {
        let Some(session) = self.sessions.get(id) else { return };
        match session.play {
            Play::Lobby | Play::Restored => {
                self.queue.remove(id);
                self.set_play(id, Play::Lobby);
                self.answer(id, request, opcode::LEAVE, &payload::Left {});
            }
            Play::Queued { request: entering, .. } => {
                self.queue.remove(id);
                self.set_play(id, Play::Lobby);
                self.refuse(id, entering, ErrorCode::Refused, "left the queue");
                self.answer(id, request, opcode::LEAVE, &payload::Left {});
                self.tell_places();
            }
            Play::Inside { character } | Play::Leaving { character, .. } => {
                let first = matches!(session.play, Play::Inside { .. });
                self.set_play(id, Play::Leaving { character, request });
                if first {
                    self.placing.remove(&id);
                    self.let_go(character, id, "left");
                    self.report(id, Happened::Leave, Some(character), "left");
                }
            }
            Play::Entering { .. } => self.refuse(id, request, ErrorCode::Unavailable, "still entering"),
        }
    }

    /// Lets in whom there is room for, in the order of the queue.
    pub(crate) fn pump(&mut self, now: Instant) {
        if self.term(now).is_none() || self.queue.len() == 0 || !self.admits() {
            return;
        }
        let room = usize::try_from(self.config.capacity).unwrap_or(usize::MAX).saturating_sub(self.inside);
        let ready = |id: &SessionId| {
            let play = self.sessions.get(*id).map(|session| session.play);
            matches!(play, Some(Play::Queued { .. }))
        };
        let next: Vec<SessionId> = self.queue.iter().filter(ready).take(room).collect();
        for id in next {
            self.queue.remove(id);
            if let Some(Play::Queued { character, request }) =
                self.sessions.get(id).map(|session| session.play)
            {
                self.set_play(id, Play::Entering { character, request });
                self.place(id);
            }
        }
    }

    pub(crate) fn tell_places(&mut self) {
        for change in self.queue.changes() {
            let place = payload::QueuePlace { place: change.place, length: change.length };
            self.send(change.session, ServerMessage::event(opcode::QUEUE_PLACE, place.encode_to_vec()));
        }
    }

    /// Starts to bring the session's character into a zone.
    pub(crate) fn place(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        let Some(character) = session.play.character() else { return };
        self.attempts += 1;
        let attempt = self.attempts;
        let (session_epoch, account) = (session.epoch, session.account);
        self.placing.insert(id, attempt);
        self.forget_orphan(character);
        let placement = Placement { attempt, session: id, session_epoch, account, character };
        self.push(Effect::Start(Work::Place(placement)));
    }

    /// What became of a placement.
    pub(crate) fn placed(&mut self, now: Instant, placement: &Placement, result: Result<Avatar, PlaceError>) {
        let id = placement.session;
        if self.placing.get(&id) != Some(&placement.attempt) {
            let of_this_term = placement.attempt > self.attempts_before;
            if of_this_term
                && result.is_ok()
                && self.sessions.get(id).is_none_or(|session| session.play == Play::Lobby)
            {
                self.let_go(placement.character, id, "gone before it was in");
            }
            return;
        }
        self.placing.remove(&id);
        self.astray.remove(&id);
        let Some(session) = self.sessions.get(id) else { return };
        let (gateway, play) = (session.through.clone(), session.play);
        match (result, play) {
            (Ok(avatar), _) => {
                let (zone, epoch, character) = (avatar.zone.name.clone(), avatar.epoch, avatar.character);
                if self.presence.put(now, avatar.clone()) {
                    self.tell(Delta { present: vec![avatar], gone: Vec::new() });
                }
                self.push(Effect::Bind { gateway, session: id, zone: zone.clone(), epoch });
                self.set_play(id, Play::Inside { character });
                if let Play::Entering { request, .. } = play {
                    self.welcome(id, request, character);
                    self.report(id, Happened::Enter, Some(character), &zone);
                }
            }
            (Err(error), Play::Entering { request, .. }) => {
                self.set_play(id, Play::Lobby);
                let code = match error {
                    PlaceError::NotFound => ErrorCode::NotFound,
                    PlaceError::Unavailable => ErrorCode::Unavailable,
                };
                self.refuse(id, request, code, &error.to_string());
                self.pump(now);
            }
            (Err(error), _) => {
                tracing::warn!(session = %id, %error, "an avatar did not get back into the world yet");
                self.astray.insert(id, now);
            }
        }
    }

    /// The character is nobody's any more.
    pub(crate) fn released(&mut self, now: Instant, id: SessionId, character: CharacterId) {
        let Some(Play::Leaving { character: leaving, request }) =
            self.sessions.get(id).map(|session| session.play)
        else {
            return;
        };
        if leaving == character {
            self.set_play(id, Play::Lobby);
            self.answer(id, request, opcode::LEAVE, &payload::Left {});
            self.pump(now);
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

    /// To wherever the session is held now; lost if it is over.
    pub(crate) fn send(&mut self, id: SessionId, message: ServerMessage) {
        if let Some(session) = self.sessions.get(id) {
            let gateway = session.through.clone();
            self.push(Effect::Send { gateway, session: id, message });
        }
    }

    fn report(&mut self, id: SessionId, what: Happened, character: Option<CharacterId>, detail: &str) {
        if let Some(session) = self.sessions.get(id) {
            let event = PlayerEvent {
                what,
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
    use shardkeep_wire::payload::QueuePlace;

    use super::*;
    use crate::fixture::{Game, binds, character, error_code, let_go, placements, sent, session};

    fn places(effects: &[Effect], to: SessionId) -> Vec<(u32, u32)> {
        let place = |message: ServerMessage| {
            assert_eq!(message.opcode, opcode::QUEUE_PLACE);
            let place = QueuePlace::decode(&*message.payload).unwrap();
            (place.place, place.length)
        };
        sent(effects, to).into_iter().map(place).collect()
    }

    #[test]
    fn who_finds_room_is_bound_to_its_zone_before_it_hears_that_it_is_in() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        let effects = game.enter(ann);
        assert_eq!(binds(&effects), [(ann, "a".to_owned(), 1)]);
        let bound = effects.iter().position(|effect| matches!(effect, Effect::Bind { .. }));
        let told = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
        assert!(bound < told, "{effects:?}");
        let reply = &sent(&effects, ann)[0];
        assert_eq!((reply.opcode, reply.request), (opcode::ENTER, 77));
        let entered = payload::Entered::decode(&*reply.payload).unwrap();
        assert_eq!((entered.width_mm, entered.entity_id), (1_024_000, EntityId::avatar(character(ann)).0));
    }

    #[test]
    fn a_full_world_tells_the_place_and_lets_in_whoever_is_first() {
        let mut game = Game::new(1);
        let (ann, ben, cid) = (game.open(1), game.open(2), game.open(3));
        game.enter(ann);
        game.core.enter(game.now, ben, 5, character(ben));
        game.core.enter(game.now, cid, 6, character(cid));
        let effects = game.effects();
        assert_eq!(places(&effects, ben), [(1, 1)]);
        assert_eq!(places(&effects, cid), [(2, 2)]);
        game.core.end_session(game.now, ann, "logged out");
        game.core.tell_places();
        let effects = game.effects();
        assert_eq!(placements(&effects)[0].session, ben);
        assert_eq!(places(&effects, cid), [(1, 1)]);
        assert_eq!(let_go(&effects), [(character(ann), ann)]);
    }

    #[test]
    fn asking_again_changes_only_the_request_to_answer() {
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
    fn a_paused_world_keeps_the_queue_and_lets_in_when_it_goes_on() {
        let mut game = Game::new(9);
        let ann = game.open(1);
        game.now += crate::fixture::TTL;
        game.core.enter(game.now, ann, 5, character(ann));
        let effects = game.effects();
        assert_eq!((placements(&effects).len(), places(&effects, ann)), (0, vec![(1, 1)]));
        game.lead(1);
        game.pass(0);
        assert_eq!(placements(&game.effects())[0].session, ann);
    }

    #[test]
    fn a_character_that_is_not_ones_own_is_refused_and_leaves_its_room() {
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
    fn leaving_is_answered_when_the_zone_has_let_go() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.enter(ann);
        game.core.leave(ann, 9);
        let effects = game.effects();
        assert_eq!(let_go(&effects), [(character(ann), ann)]);
        assert!(sent(&effects, ann).is_empty());
        game.core.released(game.now, ann, character(ann));
        assert_eq!(sent(&game.effects(), ann)[0].opcode, opcode::LEAVE);
        assert_eq!(game.core.inside, 0);
        game.enter(ann);
        assert_eq!(game.core.inside, 1);
    }

    #[test]
    fn an_avatar_that_arrives_after_its_session_ended_is_let_go_again() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.core.enter(game.now, ann, 5, character(ann));
        let placement = placements(&game.effects()).remove(0);
        game.core.end_session(game.now, ann, "logged out");
        game.effects();
        let effects = game.admit(&placement, "a", 1);
        assert_eq!(let_go(&effects), [(character(ann), ann)]);
        assert!(binds(&effects).is_empty());
    }

    #[test]
    fn an_avatar_placed_by_an_earlier_term_is_left_alone() {
        let mut game = Game::new(1);
        let ann = game.open(1);
        game.core.enter(game.now, ann, 5, character(ann));
        let placement = placements(&game.effects()).remove(0);
        game.lead(2);
        game.effects();
        assert_eq!(let_go(&game.admit(&placement, "a", 1)), []);
    }

    #[test]
    fn leaving_the_queue_ends_the_wait() {
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

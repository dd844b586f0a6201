//! Tests of the queue, the capacity, and the way in and out.

use shardkeep_wire::payload::QueuePosition;

use super::*;

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
    let entered = Entered::decode(&*reply.payload).unwrap();
    assert_eq!((entered.width_mm, entered.entity_id), (1_024_000, EntityId::avatar(character(ann)).0));
}

#[test]
fn full_world_queues_and_admits_in_order() {
    let mut game = Game::new(1);
    let (ann, ben, cid) = (game.open(1), game.open(2), game.open(3));
    game.enter(ann);
    game.app.enter(game.now, ben, 5, character(ben));
    game.app.enter(game.now, cid, 6, character(cid));
    let effects = game.effects();
    assert_eq!(places(&effects, ben), [(1, 1)]);
    assert_eq!(places(&effects, cid), [(2, 2)]);
    game.app.end_session(game.now, ann, "logged out");
    game.advance(0);
    let effects = game.effects();
    assert_eq!(placements(&effects)[0].session(), ben);
    assert_eq!(places(&effects, cid), [(1, 1)]);
    assert_eq!(release_character(&effects), [(character(ann), ann)]);
}

#[test]
fn repeated_enter_answers_latest_request_only() {
    let mut game = Game::new(1);
    let ann = game.open(1);
    game.app.enter(game.now, ann, 5, character(ann));
    let placement = placements(&game.effects()).remove(0);
    game.app.enter(game.now, ann, 6, character(ann));
    assert!(placements(&game.effects()).is_empty());
    let effects = game.admit(&placement, "a", 1);
    assert_eq!(sent(&effects, ann)[0].request, 6);
    game.app.enter(game.now, ann, 7, character(ann));
    assert_eq!(sent(&game.effects(), ann)[0].request, 7, "inside: answered at once");
    game.app.enter(game.now, ann, 8, CharacterId(9));
    assert_eq!(error_code(&sent(&game.effects(), ann)[0]), ErrorCode::Refused);
}

#[test]
fn paused_world_keeps_queue_and_admits_after_resume() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.now += TTL;
    game.app.enter(game.now, ann, 5, character(ann));
    let effects = game.effects();
    assert_eq!((placements(&effects).len(), places(&effects, ann)), (0, vec![(1, 1)]));
    game.lead(1);
    game.advance(0);
    assert_eq!(placements(&game.effects())[0].session(), ann);
}

#[test]
fn character_not_found_is_refused_and_frees_its_slot() {
    let mut game = Game::new(1);
    let (ann, ben) = (game.open(1), game.open(2));
    game.app.enter(game.now, ann, 5, CharacterId(1));
    let placement = placements(&game.effects()).remove(0);
    game.app.enter(game.now, ben, 6, character(ben));
    game.effects();
    game.app.placed(game.now, &placement, Err(PlaceError::NotFound));
    let effects = game.effects();
    assert_eq!(error_code(&sent(&effects, ann)[0]), ErrorCode::NotFound);
    assert_eq!(placements(&effects)[0].session(), ben);
}

#[test]
fn leave_is_answered_after_zone_releases_character() {
    let mut game = Game::new(1);
    let ann = game.open(1);
    game.enter(ann);
    game.app.play(|players| players.leave(ann, 9));
    let effects = game.effects();
    assert_eq!(release_character(&effects), [(character(ann), ann)]);
    assert!(sent(&effects, ann).is_empty());
    game.app.released(game.now, ann, character(ann));
    assert_eq!(sent(&game.effects(), ann)[0].opcode, opcode::LEAVE);
    assert_eq!(game.app.players.online(), 0);
    game.enter(ann);
    assert_eq!(game.app.players.online(), 1);
}

#[test]
fn avatar_placed_after_session_end_is_released() {
    let mut game = Game::new(1);
    let ann = game.open(1);
    game.app.enter(game.now, ann, 5, character(ann));
    let placement = placements(&game.effects()).remove(0);
    game.app.end_session(game.now, ann, "logged out");
    game.effects();
    let effects = game.admit(&placement, "a", 1);
    assert_eq!(release_character(&effects), [(character(ann), ann)]);
    assert!(binds(&effects).is_empty());
}

#[test]
fn placement_of_earlier_term_is_not_released() {
    let mut game = Game::new(1);
    let ann = game.open(1);
    game.app.enter(game.now, ann, 5, character(ann));
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
    game.app.enter(game.now, ben, 5, character(ben));
    game.effects();
    game.app.play(|players| players.leave(ben, 6));
    let replies = sent(&game.effects(), ben);
    assert_eq!((error_code(&replies[0]), replies[0].request), (ErrorCode::Refused, 5));
    assert_eq!((replies[1].opcode, replies[1].request), (opcode::LEAVE, 6));
    assert_eq!(game.app.players.waiting(), 0);
    assert!(game.app.sessions.get(session(2)).is_some());
}

#[test]
fn queue_place_survives_world_restart() {
    let mut game = Game::new(1);
    let first = game.open(9);
    game.enter(first);
    let ben = game.open(8);
    game.app.enter(game.now, ben, 5, character(ben));
    game.present(2, 2, 1, 1, SessionActivity::Queued(2)).unwrap();
    game.present(1, 1, 1, 1, SessionActivity::Queued(1)).unwrap();
    game.effects();
    game.advance(0);
    let effects = game.effects();
    let order = [session(1), session(2), ben].map(|id| places(&effects, id));
    assert_eq!(order, [1, 2, 3].map(|place| vec![(place, 3)]));
    game.app.enter(game.now, session(1), 6, character(session(1)));
    game.app.end_session(game.now, first, "logged out");
    assert_eq!(placements(&game.effects())[0].session(), session(1));
}

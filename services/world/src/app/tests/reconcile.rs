//! Tests of the repair after failures, and of what a new term learns.

use super::*;

fn reowns(effects: &[Effect]) -> Vec<(InstanceId, InstanceId)> {
    let reown = |effect: &Effect| match effect {
        Effect::Start(Work::Reown { dead, successor }) => Some((dead.clone(), successor.clone())),
        _ => None,
    };
    effects.iter().filter_map(reown).collect()
}

#[test]
fn avatars_of_dead_zone_move_to_its_next_incarnation() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.enter(ann);
    game.app.zones_changed(game.now, vec![zone("a", 2, Health::Up), zone("b", 1, Health::Up)]);
    let effects = game.effects();
    assert_eq!(reowns(&effects), [(owner("a", 1), owner("a", 2))]);
    assert!(effects.contains(&Effect::Partition));
    game.app.reowned(game.now, &[(character(ann), ann)]);
    let placement = placements(&game.effects()).remove(0);
    assert_eq!(binds(&game.admit(&placement, "a", 2)), [(ann, "a".to_owned(), 2)]);
}

#[test]
fn reowned_character_of_another_play_is_released() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.enter(ann);
    let left = CharacterId(5);
    game.app.reowned(game.now, &[(left, ann)]);
    let effects = game.effects();
    assert_eq!((placements(&effects).len(), release_character(&effects)), (0, vec![(left, ann)]));
    assert_eq!(game.app.players.get(ann), Some(PlayState::Inside { character: character(ann) }));
}

#[test]
fn avatar_missed_by_reown_is_placed_again() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.enter(ann);
    game.app.zones_changed(game.now, vec![zone("a", 1, Health::Gone), zone("b", 1, Health::Up)]);
    game.advance(1);
    assert!(placements(&game.effects()).is_empty());
    game.advance(3);
    let placement = placements(&game.effects()).remove(0);
    game.advance(9);
    assert!(placements(&game.effects()).is_empty(), "one at a time");
    game.admit(&placement, "b", 2);
    game.advance(9);
    assert!(placements(&game.effects()).is_empty());
}

#[test]
fn disconnected_zone_counts_as_dead_after_grace() {
    let mut game = Game::new(9);
    let dead = owner("a", 1);
    game.app.zone_connected(&dead, 1);
    game.app.zone_connected(&dead, 2);
    game.app.zone_disconnected(game.now, &dead, 1);
    game.advance(9);
    assert!(reowns(&game.effects()).is_empty(), "the older stream does not count");
    game.app.zone_disconnected(game.now, &dead, 2);
    game.advance(3);
    game.advance(3);
    assert_eq!(reowns(&game.effects()), [(dead, owner("b", 1))]);
}

#[test]
fn new_term_restores_play_from_zones_and_gateways() {
    let mut game = Game::new(9);
    game.lead(2);
    let (ann, ben) = (session(1), session(2));
    game.app.presence_reported(game.now, (&owner("a", 1), SpaceId(1)), true, vec![avatar(ann, "a", 5)], &[]);
    game.present(1, 1, 3, 1, SessionActivity::Unknown).unwrap();
    game.present(2, 2, 3, 1, SessionActivity::Unknown).unwrap();
    game.app.presence_reported(game.now, (&owner("b", 1), SpaceId(1)), true, vec![avatar(ben, "b", 7)], &[]);
    assert_eq!(binds(&game.effects()), [(ann, "a".to_owned(), 5), (ben, "b".to_owned(), 7)]);
    assert_eq!(game.app.players.online(), 2);
    game.advance(200);
    assert!(release_character(&game.effects()).is_empty());
}

#[test]
fn orphan_waits_for_its_session_then_is_released() {
    let mut game = Game::new(9);
    let (ann, ben) = (session(1), session(2));
    let orphans = [ann, ben].map(|session| (character(session), session));
    game.app.reowned(game.now, &orphans);
    assert!(placements(&game.effects()).is_empty());
    game.present(1, 1, 3, 1, SessionActivity::Unknown).unwrap();
    assert_eq!(placements(&game.effects())[0].character(), character(ann));
    game.advance(60);
    assert_eq!(release_character(&game.effects()), [(character(ben), ben)]);
    game.advance(60);
    assert!(!release_character(&game.effects()).contains(&(character(ben), ben)));
}

#[test]
fn avatar_without_session_is_released() {
    let mut game = Game::new(9);
    let ann = session(1);
    game.app.presence_reported(game.now, (&owner("a", 1), SpaceId(1)), true, vec![avatar(ann, "a", 5)], &[]);
    game.advance(69);
    assert!(release_character(&game.effects()).is_empty());
    game.advance(1);
    assert_eq!(release_character(&game.effects()), [(character(ann), ann)]);
}

#[test]
fn later_login_closes_session_and_releases_character() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.enter(ann);
    game.present(9, 1, 0, 2, SessionActivity::Unknown).unwrap();
    let effects = game.effects();
    let closed = |effect: &&Effect| matches!(effect, Effect::Close { code: ErrorCode::Displaced, .. });
    assert_eq!(effects.iter().filter(closed).count(), 1);
    assert_eq!(release_character(&effects), [(character(ann), ann)]);
    assert_eq!(game.present(1, 1, 1, 1, SessionActivity::Unknown), Err(SessionError::Ended));
}

#[test]
fn zone_crossing_rebinds_session_to_new_zone() {
    let mut game = Game::new(9);
    let ann = game.open(1);
    game.enter(ann);
    game.app.presence_reported(game.now, (&owner("a", 1), SpaceId(1)), false, vec![], &[character(ann)]);
    game.app.presence_reported(game.now, (&owner("b", 1), SpaceId(1)), false, vec![avatar(ann, "b", 2)], &[]);
    assert_eq!(binds(&game.effects()), [(ann, "b".to_owned(), 2)]);
    game.app.joined(ann);
    assert_eq!(binds(&game.effects()), [(ann, "b".to_owned(), 2)]);
}

#[test]
fn unknown_session_is_retryable_early_in_a_term() {
    let mut game = Game::new(9);
    let find = |game: &Game| game.app.sessions.find(game.now, session(1)).map(drop);
    assert_eq!(find(&game), Err(SessionError::NotYetPresented));
    game.advance(5);
    assert_eq!(find(&game), Err(SessionError::Unknown));
    game.lead(2);
    assert_eq!(find(&game), Err(SessionError::NotYetPresented));
    let ann = game.open(1);
    assert_eq!(find(&game), Ok(()));
    game.app.end_session(game.now, ann, "logged out");
    assert_eq!(find(&game), Err(SessionError::Unknown), "it is over for certain");
}

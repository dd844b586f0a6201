use proptest::prelude::*;
use shardkeep_sim::rules::{AVATAR_SPEED, TICK_MS};

use super::*;

#[test]
fn an_avatar_walks_as_fast_as_it_wishes() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.ticks(19);
    assert_eq!(world.position(ANN), (12_000, 10_000));
}

#[test]
fn nobody_is_faster_than_allowed_and_it_is_told() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    let events = world.walk(ANN, 1, (30_000, 0));
    assert!(events.contains(&Event::TooFast { character: ANN }));
    world.ticks(19);
    assert_eq!(world.position(ANN), (10_000 + AVATAR_SPEED, 10_000));
}

#[test]
fn old_moves_are_ignored() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 5, (0, 0));
    world.walk(ANN, 4, (2_000, 0));
    world.walk(ANN, 5, (2_000, 0));
    assert_eq!(world.position(ANN), (10_000, 10_000));
}

#[test]
fn walls_hold_and_one_slides_along_them() {
    let mut map = Map::open(MAP, "test", 4, 4, at(16_000, 16_000));
    (0..64).for_each(|y| map.grid.block(6, y)); // x from 12 m to 14 m
    let mut world = World::on(map, rect(0, 0, 4, 4));
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (4_000, 2_000));
    world.ticks(40);
    let (x, y) = world.position(ANN);
    assert!((11_700..12_000).contains(&x), "{x}");
    assert_eq!(y, 10_000 + 2_000 * 41 * TICK_MS as i32 / 1_000);
}

#[test]
fn a_player_who_is_away_stands_still() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.tick([Input::Stop { character: ANN }]);
    let before = world.position(ANN);
    world.ticks(10);
    assert_eq!(world.position(ANN), before);
}

#[test]
fn the_own_avatar_is_told_when_it_moves_and_once_a_second() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    let own = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Own { .. })).count();
    world.ticks(1);
    assert_eq!(own(&world.ticks(20)), 1);
    let mut events = world.walk(ANN, 1, (2_000, 0));
    events.extend(world.ticks(9));
    assert_eq!(own(&events), 10);
}

proptest! {
    #[test]
    fn whatever_is_wished_nobody_leaves_the_map_enters_a_wall_or_outruns_the_limit(
        wishes in prop::collection::vec((any::<i16>(), any::<i16>(), 1u64..20), 1..30),
    ) {
        let mut map = Map::open(MAP, "test", 2, 2, at(10_000, 10_000));
        (0..20).for_each(|y| map.grid.block(8, y));
        let mut world = World::on(map.clone(), rect(0, 0, 2, 2));
        world.enter(ANN, at(10_000, 10_000));
        for (sequence, (vx, vy, ticks)) in (1..).zip(wishes) {
            let before = world.position(ANN);
            world.walk(ANN, sequence, (vx.into(), vy.into()));
            world.ticks(ticks - 1);
            let after = world.position(ANN);
            prop_assert!(!map.grid.is_blocked(after.0, after.1), "{after:?}");
            let (dx, dy) = (f64::from(after.0 - before.0), f64::from(after.1 - before.1));
            let limit = f64::from(AVATAR_SPEED) * (ticks * TICK_MS) as f64 / 1_000.0;
            prop_assert!(dx.hypot(dy) <= limit + 2.0);
        }
    }
}

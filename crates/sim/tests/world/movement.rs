use proptest::prelude::*;
use shardkeep_sim::rules::{AVATAR_SPEED, TICK_MS};

use super::*;

#[test]
fn avatar_moves_at_requested_velocity() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.ticks(19);
    assert_eq!(world.position(ANN), (12_000, 10_000));
}

#[test]
fn excess_speed_is_clamped_and_reported() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    let events = world.walk(ANN, 1, (30_000, 0));
    assert!(events.contains(&Event::TooFast { character: ANN }));
    world.ticks(19);
    assert_eq!(world.position(ANN), (10_000 + AVATAR_SPEED, 10_000));
}

#[test]
fn move_with_old_sequence_is_ignored() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 5, (0, 0));
    world.walk(ANN, 4, (2_000, 0));
    world.walk(ANN, 5, (2_000, 0));
    assert_eq!(world.position(ANN), (10_000, 10_000));
}

#[test]
fn avatar_slides_along_wall() {
    let mut map = Map::open("test", 4, 4, Point::flat(16_000, 16_000));
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
fn stopped_avatar_stands_still() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.tick([Input::Stop { character: ANN }]);
    let before = world.position(ANN);
    world.ticks(10);
    assert_eq!(world.position(ANN), before);
}

#[test]
fn own_state_is_sent_on_change_and_every_second() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    let own =
        |events: &[Event]| events.iter().filter(|event| matches!(event, Event::AvatarState { .. })).count();
    world.ticks(1);
    assert_eq!(own(&world.ticks(20)), 1);
    let mut events = world.walk(ANN, 1, (2_000, 0));
    events.extend(world.ticks(9));
    assert_eq!(own(&events), 10);
}

proptest! {
    #[test]
    fn moves_never_leave_map_enter_wall_or_exceed_speed(
        wishes in prop::collection::vec((any::<i16>(), any::<i16>(), 1u64..20), 1..30),
    ) {
        let mut map = Map::open("test", 2, 2, Point::flat(10_000, 10_000));
        (0..20).for_each(|y| map.grid.block(8, y));
        let mut world = World::on(map.clone(), rect(0, 0, 2, 2));
        world.enter(ANN, at(10_000, 10_000));
        for (sequence, (vx, vy, ticks)) in (1..).zip(wishes) {
            let before = world.position(ANN);
            world.walk(ANN, sequence, (vx.into(), vy.into()));
            world.ticks(ticks - 1);
            let after = world.position(ANN);
            prop_assert!(!map.grid.is_blocked(after.0, after.1), "{after:?}");
            let (dx, dy) = (i64::from(after.0 - before.0), i64::from(after.1 - before.1));
            let limit = i64::from(AVATAR_SPEED) * (ticks * TICK_MS) as i64 / 1_000 + 2;
            prop_assert!(dx * dx + dy * dy <= limit * limit);
        }
    }
}

use shardkeep_sim::{Effect, EffectResult, GhostState};
use shardkeep_types::CellId;

use super::*;

/// Two cells. The simulation owns the left one; the border is at x = 32 m.
fn half() -> World {
    World::on(Map::open("test", 2, 1, Point::flat(16_000, 16_000)), rect(0, 0, 1, 1))
}

fn outside(events: &[Event]) -> Option<CellId> {
    events.iter().find_map(|event| match event {
        Event::Outside { cell, .. } => Some(*cell),
        _ => None,
    })
}

fn ghost(entity: EntityId, position: Position, health: u32) -> GhostState {
    let name = Arc::from("beyond");
    GhostState { entity, template: 1, name, position, velocity: (0, 0), health, max_health: 20 }
}

#[test]
fn avatar_outside_zone_is_reported_and_still_simulated() {
    let mut world = half();
    world.enter(ANN, at(31_000, 10_000));
    // 6 m/s: after 23 ticks the avatar is 5.9 m beyond the border, in the margin.
    let mut events = world.walk(ANN, 1, (6_000, 0));
    events.extend(world.ticks(22));
    assert_eq!((world.position(ANN).0, outside(&events)), (37_900, None));
    events = world.ticks(1);
    assert_eq!(outside(&events), Some(CellId { space: SPACE, x: 1, y: 0 }));
    world.walk(ANN, 2, (2_000, 0));
    let (x, _) = world.position(ANN);
    world.ticks(5);
    assert_eq!(world.position(ANN).0, x + 500);
}

#[test]
fn avatar_that_stays_in_margin_is_reported_after_a_second() {
    let mut world = half();
    world.enter(ANN, at(33_000, 10_000));
    assert_eq!(outside(&world.ticks(19)), None);
    assert!(outside(&world.ticks(2)).is_some());
}

#[test]
fn suspended_avatar_moves_and_is_hurt_but_begins_nothing() {
    let mut world = half();
    world.enter(ANN, at(10_000, 10_000));
    world.enter(BOB, at(11_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.tick([Input::Suspend { character: ANN }]);
    let (x, _) = world.position(ANN);
    world.ticks(5);
    assert_eq!(world.position(ANN).0, x + 500);
    let invite = |entity| Act::Invite { entity: EntityId::avatar(entity) };
    assert_eq!(replies(&world.act(ANN, invite(BOB))), [(ANN, Err(Refusal::Unavailable))]);
    assert_eq!(replies(&world.act(BOB, invite(ANN))), [(BOB, Err(Refusal::Refused("too far away")))]);
    let creature = creature(77);
    world.tick([Input::Ghost(ghost(creature, at(12_000, 10_000), 20))]);
    let hit = Effect {
        actor: creature,
        actor_epoch: Epoch(0),
        number: 1,
        target: EntityId::avatar(ANN),
        damage: 7,
    };
    world.tick([Input::Effect(hit)]);
    assert_eq!(world.sim.avatar(ANN).unwrap().own.health, 93);
    world.tick([Input::Thaw { character: ANN }]);
    assert!(replies(&world.act(ANN, invite(BOB)))[0].1.is_ok());
}

#[test]
fn brief_border_crossing_starts_no_handover() {
    let mut world = half();
    world.enter(ANN, at(31_750, 10_000));
    let mut events = Vec::new();
    for sequence in 1..20 {
        let direction = if sequence % 2 == 1 { 2_000 } else { -2_000 };
        events.extend(world.walk(ANN, sequence, (direction, 0)));
        events.extend(world.ticks(3));
    }
    assert_eq!(outside(&events), None);
}

#[test]
fn frozen_avatar_stands_still_and_resumes_in_place() {
    let mut world = half();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    world.tick([Input::Freeze { character: ANN }]);
    let before = world.position(ANN);
    world.ticks(5);
    assert_eq!(world.position(ANN), before);
    world.tick([Input::Thaw { character: ANN }]);
    assert_eq!(world.position(ANN), (before.0 + 100, before.1));
}

#[test]
fn entering_avatar_replaces_ghost_without_gone_entry() {
    let mut world = half();
    let cell = CellId { space: SPACE, x: 0, y: 0 };
    world.tick([Input::Watch { cell, ring: shardkeep_sim::Ring::Near, on: true }]);
    let entity = EntityId::avatar(ANN);
    world.tick([Input::Ghost(ghost(entity, at(30_000, 5_000), 10))]);
    let events = world.tick([Input::Enter(Box::new(entering(ANN, at(30_000, 5_000))))]);
    let gone = events.iter().any(|event| match event {
        Event::Cell(update) => update.entries.iter().any(|entry| entry.gone.is_some()),
        _ => false,
    });
    assert!(!gone);
    // Later messages of the neighbour about it are old.
    world.tick([Input::Ghost(ghost(entity, at(1_000, 1_000), 10)), Input::GhostGone(entity)]);
    assert_eq!(world.position(ANN), (30_000, 5_000));
}

#[test]
fn ghost_without_updates_expires() {
    let mut world = half();
    let rabbit = creature(77);
    world.tick([Input::Ghost(ghost(rabbit, at(40_000, 5_000), 10))]);
    assert!(world.sim.position(rabbit).is_some());
    world.ticks(100);
    assert_eq!(world.sim.position(rabbit), None);
}

#[test]
fn attack_across_border_is_answered_by_target_zone() {
    let mut world = half();
    world.enter(ANN, at(31_000, 5_000));
    let rabbit = creature(77);
    world.tick([Input::Ghost(ghost(rabbit, at(33_000, 5_000), 20))]);
    let events = world.act(ANN, Act::Attack { target: rabbit });
    assert_eq!(replies(&events), []);
    let sent: Vec<Effect> = events.iter().filter_map(effect).collect();
    let again: Vec<Effect> = world.ticks(12).iter().filter_map(effect).collect();
    assert_eq!(again, sent, "repeated with the same number");
    let Effect { actor, number, damage, .. } = sent[0];
    let result = EffectResult { actor, number, applied: true, damage, killed: true };
    let events = world.tick([Input::EffectResult(result), Input::EffectResult(result)]);
    assert_eq!(replies(&events), [(ANN, Ok(Reply::Attack { damage, killed: true }))]);
}

fn effect(event: &Event) -> Option<Effect> {
    match event {
        Event::Effect(effect) => Some(*effect),
        _ => None,
    }
}

#[test]
fn repeated_effect_is_applied_once() {
    let mut world = half();
    world.enter(ANN, at(31_000, 5_000));
    let wolf = creature(77);
    world.tick([Input::Ghost(ghost(wolf, at(33_000, 5_000), 20))]);
    let effect =
        Effect { actor: wolf, actor_epoch: Epoch(0), number: 1, target: EntityId::avatar(ANN), damage: 9 };
    let events = world.tick([Input::Effect(effect), Input::Effect(effect)]);
    let results: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Event::EffectResult(result) if result.applied))
        .collect();
    assert_eq!(results.len(), 2);
    assert_eq!(world.sim.avatar(ANN).unwrap().own.health, 91);
}

#[test]
fn unanswered_effect_times_out_as_unavailable() {
    let mut world = half();
    world.enter(ANN, at(31_000, 5_000));
    let rabbit = creature(77);
    world.tick([Input::Ghost(ghost(rabbit, at(33_000, 5_000), 20))]);
    world.act(ANN, Act::Attack { target: rabbit });
    assert_eq!(replies(&world.ticks(70)), [(ANN, Err(Refusal::Unavailable))]);
}

#[test]
fn remote_item_pick_up_commits_and_notifies_owner() {
    let mut world = half();
    world.enter(ANN, at(31_500, 5_000));
    let item = EntityId::ground_item(ItemId(5));
    let pick_up = || Act::PickUp { action: action(1), entity: item };
    assert_eq!(replies(&world.act(ANN, pick_up())), [], "the neighbour may be about to tell");
    let events = world.tick([Input::Ghost(ghost(item, at(32_500, 5_000), 0))]);
    let [(number, HardChange::PickUp { from, .. })] = commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!(from, CellId { space: SPACE, x: 1, y: 0 });
    let events = world.committed(number, vec![]);
    assert!(events.contains(&Event::ItemTaken { item, cell: from }));

    let mut owner = World::open();
    let items = vec![(super::item(5), at(32_500, 5_000))];
    owner.tick([Input::Ground { cells: rect(0, 0, 4, 4), items }]);
    owner.enter(ANN, at(32_500, 5_000));
    owner.tick([Input::ItemTaken(item)]);
    assert_eq!(replies(&owner.act(ANN, pick_up())), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn ground_items_near_border_are_sent_to_neighbour() {
    let mut world = half();
    let items = vec![(super::item(5), at(30_000, 5_000))];
    world.tick([Input::Ground { cells: rect(0, 0, 1, 1), items }]);
    let shown: Vec<EntityId> = world.sim.at_border(&BTreeSet::new()).map(|seen| seen.state.entity).collect();
    assert_eq!(shown, [EntityId::ground_item(ItemId(5))]);
}

#[test]
fn remote_killer_is_rewarded_by_zone_of_the_creature() {
    let mut map = Map::open("test", 2, 1, Point::flat(16_000, 16_000));
    let home = Point::flat(31_000, 5_000);
    map.spawns.push(shardkeep_sim::SpawnPoint { number: 9, template: 1, home });
    let mut world = World::on(map, rect(0, 0, 1, 1));
    let hunter = EntityId::avatar(ANN);
    world.tick([Input::Ghost(ghost(hunter, at(33_000, 5_000), 100))]);
    let attack = Effect { actor: hunter, actor_epoch: Epoch(7), number: 1, target: creature(9), damage: 50 };
    let events = world.tick([Input::Effect(attack)]);
    let [(_, HardChange::Loot { reward: Some(reward), .. })] = &commits(&events)[..] else {
        panic!("{events:?}")
    };
    assert_eq!((reward.player, reward.epoch), (ANN, Epoch(7)));
}

#[test]
fn pick_up_of_unknown_remote_item_times_out() {
    let mut world = half();
    world.enter(ANN, at(31_500, 5_000));
    let nothing = EntityId::ground_item(ItemId(5));
    world.act(ANN, Act::PickUp { action: action(1), entity: nothing });
    assert_eq!(replies(&world.ticks(12)), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn freeze_answers_pending_requests_as_unavailable() {
    let mut world = half();
    world.enter(ANN, at(31_000, 5_000));
    let rabbit = creature(77);
    world.tick([Input::Ghost(ghost(rabbit, at(33_000, 5_000), 20))]);
    world.act(ANN, Act::Attack { target: rabbit });
    let item = EntityId::ground_item(ItemId(5));
    world.act(ANN, Act::PickUp { action: action(1), entity: item });
    let events = world.tick([Input::Freeze { character: ANN }]);
    assert_eq!(replies(&events), [(ANN, Err(Refusal::Unavailable)), (ANN, Err(Refusal::Unavailable))]);
    assert_eq!(replies(&world.ticks(80)), []);
}

use shardkeep_sim::{GhostState, Goal, Intent, SpawnPoint, SpawnState, template};

use super::*;

/// Two cells. A boar lives 2 m left of the border at x = 32 m. The simulation owns `owned`.
fn border(owned: CellRect) -> World {
    let mut map = Map::open("test", 2, 1, Point::flat(16_000, 16_000));
    let home = Point::flat(30_000, 10_000);
    map.spawns.push(SpawnPoint { number: 9, template: template::BOAR, home });
    World::on(map, owned)
}

fn left() -> CellRect {
    rect(0, 0, 1, 1)
}

fn avatar_ghost(character: CharacterId, position: Position) -> GhostState {
    GhostState {
        entity: EntityId::avatar(character),
        template: 0,
        name: Arc::from("beyond"),
        position,
        velocity: (0, 0),
        health: 100,
        max_health: 100,
    }
}

fn spawns_lost(events: &[Event]) -> Vec<SpawnState> {
    events
        .iter()
        .find_map(|event| match event {
            Event::SpawnsLost(lost) => Some(lost.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn hunt(world: &mut World, goal: Goal) -> Vec<Event> {
    world.tick([Input::Intents(vec![Intent { creature: creature(9), goal }])])
}

#[test]
fn creature_chases_and_hurts_across_border() {
    let mut world = border(left());
    let target = EntityId::avatar(ANN);
    let ghost = avatar_ghost(ANN, at(40_000, 10_000));
    world.tick([Input::Ghost(ghost.clone())]);
    let mut events = Vec::new();
    for _ in 0..120 {
        events.extend(hunt(&mut world, Goal::Attack { target }));
        events.extend(world.tick([Input::Ghost(ghost.clone())]));
    }
    let here = world.sim.position(creature(9)).unwrap();
    assert!(here.x_mm > 38_000, "{here:?}");
    let hurt = events.iter().any(|event| matches!(event, Event::Effect(effect) if effect.target == target));
    assert!(hurt, "the boar attacks");
}

#[test]
fn spawns_move_to_next_owner_as_they_are() {
    let mut source = border(left());
    source.enter(ANN, at(29_000, 10_000));
    source.act(ANN, Act::Attack { target: creature(9) });
    hunt(&mut source, Goal::Move { x_mm: 36_000, y_mm: 10_000, speed: 3_000 });
    source.ticks(20);
    let state = source.sim.spawn_states().next().unwrap();
    let before = state.creature.unwrap();
    assert!(before.health < 60 && before.position.x_mm > 31_000, "{before:?}");
    assert_eq!(before.attacker, Some(EntityId::avatar(ANN)));

    let lost = spawns_lost(&source.tick([Input::Sectors(vec![])]));
    assert_eq!(source.sim.position(creature(9)), None);
    assert_eq!(lost.len(), 1);

    // The target has seen it as a ghost. Its own generations from the database come later and change nothing.
    let mut target = World {
        sim: Sim::new(SPACE, Arc::new(source.sim.map().clone()), 3, 1_000_000),
        now: 1_000_000,
        requests: 0,
    };
    target.tick([Input::Sectors(vec![rect(0, 0, 2, 1)]), ground(rect(0, 0, 2, 1))]);
    target.sim.apply(Input::Spawns(lost.clone()));
    let after = target.sim.spawn_states().next().unwrap().creature.unwrap();
    assert_eq!((after.health, after.attacker, after.goal), (before.health, before.attacker, before.goal));
    // The tick that applied the table has moved it once more.
    assert!((after.position.x_mm - before.position.x_mm).abs() <= 300, "{before:?} {after:?}");
    let populate = Input::Populate { cells: rect(0, 0, 2, 1), generations: BTreeMap::from([(9, 7)]) };
    target.tick([populate, Input::Spawns(lost)]);
    let last = target.sim.spawn_states().next().unwrap();
    assert_eq!((last.generation, last.creature.unwrap().health), (1, before.health));

    // A zone that owned it later than the first sender knows more.
    let mut later = state;
    later.epoch = Epoch(2);
    later.creature = Some(shardkeep_sim::CreatureState { health: 3, ..before });
    target.sim.apply(Input::Spawns(vec![later, state]));
    assert_eq!(target.sim.spawn_states().next().unwrap().creature.unwrap().health, 3);
}

#[test]
fn dead_spawn_moves_with_its_time_of_respawn() {
    let mut source = border(left());
    source.enter(ANN, at(29_000, 10_000));
    let mut commits_seen = Vec::new();
    while commits_seen.is_empty() {
        commits_seen = commits(&source.act(ANN, Act::Attack { target: creature(9) }));
        source.ticks(13);
    }
    let lost = spawns_lost(&source.tick([Input::Sectors(vec![])]));
    let SpawnState { generation: 2, respawns_in_ms: Some(within), creature: None, .. } = lost[0] else {
        panic!("{lost:?}")
    };
    assert!((18_000..20_000).contains(&within), "{within}");
    let mut target = border(rect(1, 0, 2, 1));
    target.tick([Input::Sectors(vec![rect(0, 0, 2, 1)]), Input::Spawns(lost)]);
    target.ticks(within / TICK_MS - 2);
    assert_eq!(target.sim.position(creature(9)), None);
    target.ticks(3);
    assert!(target.sim.position(creature(9)).is_some());
}

#[test]
fn loot_beyond_border_is_reported_to_the_zone_of_the_ground() {
    let mut world = border(left());
    // Creatures without an avatar nearby stand idle.
    world.enter(BOB, at(31_000, 10_000));
    hunt(&mut world, Goal::Move { x_mm: 36_000, y_mm: 10_000, speed: 3_000 });
    world.ticks(45);
    let here = world.sim.position(creature(9)).unwrap();
    assert!(here.x_mm > 35_000, "{here:?}");
    let hunter = avatar_ghost(ANN, here);
    let attack = |number| shardkeep_sim::Effect {
        actor: EntityId::avatar(ANN),
        actor_epoch: Epoch(1),
        number,
        target: creature(9),
        damage: 50,
    };
    let events = world.tick([Input::Ghost(hunter), Input::Effect(attack(1)), Input::Effect(attack(2))]);
    let [(number, _)] = commits(&events)[..] else { panic!("{events:?}") };
    let outcome = Outcome::Done { applied: true, minted: vec![ItemId(5)], possessions: vec![] };
    let events = world.tick([Input::Committed { number, outcome }]);
    assert!(events.contains(&Event::GroundStale { cell: here.cell() }), "{events:?}");
}

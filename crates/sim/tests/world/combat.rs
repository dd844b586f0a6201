use shardkeep_sim::{Goal, Intent, SpawnPoint, template};

use super::*;

/// One creature at (20 m, 10 m) on empty ground.
fn with(template: u16) -> (World, EntityId) {
    let mut map = Map::open("test", 4, 4, Point::flat(16_000, 16_000));
    map.spawns.push(SpawnPoint { number: 9, template, home: Point::flat(20_000, 10_000) });
    (World::on(map, rect(0, 0, 4, 4)), creature(9))
}

fn attack(world: &mut World, target: EntityId) -> Result<Reply, Refusal> {
    let events = world.act(ANN, Act::Attack { target });
    replies(&events).pop().unwrap().1
}

/// Attacks until the creature is dead. Returns the commit of its loot.
fn kill(world: &mut World, target: EntityId) -> (u64, HardChange) {
    for _ in 0..50 {
        let events = world.act(ANN, Act::Attack { target });
        if let Some(commit) = commits(&events).pop() {
            return commit;
        }
        world.ticks(12);
    }
    panic!("it does not die");
}

#[test]
fn attack_checks_reach_cooldown_and_target() {
    let (mut world, rabbit) = with(template::RABBIT);
    world.enter(ANN, at(10_000, 10_000));
    assert_eq!(attack(&mut world, rabbit), Err(Refusal::Refused("out of reach")));
    assert_eq!(attack(&mut world, creature(1)), Err(Refusal::NotFound));
    world.tick([Input::Teleport { character: ANN, to: at(19_000, 10_000) }]);
    assert!(matches!(attack(&mut world, rabbit), Ok(Reply::Attack { killed: false, .. })));
    assert_eq!(attack(&mut world, rabbit), Err(Refusal::Refused("the attack is on cooldown")));
    assert!(matches!(attack(&mut world, EntityId::avatar(ANN)), Err(Refusal::Refused(_))));
}

#[test]
fn loot_is_committed_once_per_generation() {
    let (mut world, rabbit) = with(template::RABBIT);
    world.enter(ANN, at(19_000, 10_000));
    let (_, HardChange::Loot { generation, spawn, reward, .. }) = kill(&mut world, rabbit) else { panic!() };
    let rabbit_spawn = rabbit.as_spawn().unwrap();
    assert_eq!((spawn, generation, reward.unwrap().player), (rabbit_spawn, 1, ANN));
    assert_eq!(attack(&mut world, rabbit), Err(Refusal::NotFound), "it is dead");
    let risen = world.ticks(420);
    assert_eq!(commits(&risen), []);
    let (_, HardChange::Loot { generation, .. }) = kill(&mut world, rabbit) else { panic!() };
    assert_eq!(generation, 2);
}

#[test]
fn spawn_generation_continues_from_database() {
    let mut map = Map::open("test", 1, 1, Point::flat(16_000, 16_000));
    map.spawns.push(SpawnPoint { number: 9, template: template::RABBIT, home: Point::flat(20_000, 10_000) });
    let mut world = World { sim: Sim::new(SPACE, Arc::new(map), 1, 1_000_000), now: 1_000_000, requests: 0 };
    world.tick([Input::Sectors(vec![rect(0, 0, 1, 1)])]);
    world.enter(ANN, at(19_000, 10_000));
    let rabbit = creature(9);
    assert_eq!(attack(&mut world, rabbit), Err(Refusal::NotFound), "its past is not known yet");
    let generations = BTreeMap::from([(9, 41)]);
    world.tick([ground(rect(0, 0, 1, 1)), Input::Populate { cells: rect(0, 0, 1, 1), generations }]);
    let (_, HardChange::Loot { generation, .. }) = kill(&mut world, rabbit) else { panic!() };
    assert_eq!(generation, 42);
}

#[test]
fn loot_lies_on_ground_if_minted_and_is_reloaded_if_repeated() {
    let (mut world, rabbit) = with(template::RABBIT);
    world.enter(ANN, at(19_000, 10_000));
    let (number, _) = kill(&mut world, rabbit);
    let outcome = Outcome::Done { applied: true, minted: vec![ItemId(5)], possessions: vec![] };
    world.tick([Input::Committed { number, outcome: outcome.clone() }]);
    let events = world.act(ANN, Act::PickUp { action: action(1), entity: EntityId::ground_item(ItemId(5)) });
    assert_eq!(commits(&events).len(), 1);
    // The same number again, as after a lost answer, changes nothing.
    assert_eq!(commits(&world.tick([Input::Committed { number, outcome }])), []);

    let (mut world, rabbit) = with(template::RABBIT);
    world.enter(ANN, at(19_000, 10_000));
    let (number, _) = kill(&mut world, rabbit);
    let outcome = Outcome::Done { applied: false, minted: vec![ItemId(5)], possessions: vec![] };
    let events = world.tick([Input::Committed { number, outcome }]);
    assert!(events.iter().any(|event| matches!(event, Event::GroundStale { .. })));
}

#[test]
fn creature_follows_intent_and_idles_after_it_expires() {
    let (mut world, boar) = with(template::BOAR);
    world.enter(ANN, at(10_000, 10_000));
    let goal = Goal::Move { x_mm: 16_000, y_mm: 10_000, speed: 2_000 };
    world.tick([Input::Intents(vec![Intent { creature: boar, goal }])]);
    world.ticks(19);
    assert_eq!(world.sim.position(boar), Some(at(18_000, 10_000)));
    world.ticks(100);
    let stopped = world.sim.position(boar).unwrap();
    assert!(stopped.x_mm > 12_000, "wants are forgotten");
    assert_eq!(world.sim.perceptions().len(), 1);
    world.tick([Input::Leave { character: ANN }]);
    assert_eq!(world.sim.perceptions(), [], "nobody is near");
}

#[test]
fn dead_avatar_respawns_at_start() {
    let (mut world, wolf) = with(template::WOLF);
    world.enter(ANN, at(19_000, 10_000));
    let mut events = Vec::new();
    for _ in 0..1_000 {
        let goal = Goal::Attack { target: EntityId::avatar(ANN) };
        events.extend(world.tick([Input::Intents(vec![Intent { creature: wolf, goal }])]));
        if world.position(ANN) == (16_000, 16_000) {
            break;
        }
    }
    let vitals: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Vitals { health, died, .. } => Some((*health, *died)),
            _ => None,
        })
        .collect();
    assert_eq!(vitals.iter().filter(|(_, died)| *died).count(), 1);
    assert_eq!(vitals.last(), Some(&(100, false)));
    let killers: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Died { character, killer, .. } => Some((*character, *killer)),
            _ => None,
        })
        .collect();
    assert_eq!(killers, [(ANN, wolf)]);
    assert!(events.iter().any(|event| matches!(event, Event::Placed { .. })));
}

#[test]
fn avatar_entering_dead_respawns_at_start() {
    let mut world = World::open();
    let dead = EnteringAvatar { health: 0, ..entering(ANN, at(60_000, 60_000)) };
    world.tick([Input::Enter(Box::new(dead))]);
    assert_eq!(world.position(ANN), (16_000, 16_000));
    assert_eq!(world.sim.avatar(ANN).unwrap().own.health, 100);
}

use shardkeep_sim::{
    Ring, SCHEMA, SnapshotError,
    load::{Load, Shape},
};
use shardkeep_types::CellId;

use super::*;

fn watch(on: bool) -> Input {
    Input::Watch { cell: CellId { space: SPACE, x: 0, y: 0 }, ring: Ring::Near, on }
}

fn lively() -> World {
    let mut world = World::open();
    let possessions = Possessions { items: vec![item(5), item(6)], coins: 9, ..Possessions::default() };
    world.enter_with(ANN, at(10_000, 10_000), possessions);
    world.enter(BOB, at(11_000, 10_000));
    world.walk(ANN, 1, (3_000, 500));
    world.act(ANN, Act::Drop { action: action(1), item: ItemId(5) });
    let invite = Act::Invite { entity: EntityId::avatar(BOB) };
    world.act(ANN, invite);
    world
}

fn restored(world: &World, map: &Arc<Map>) -> World {
    let sim = Sim::restore(map.clone(), &world.sim.snapshot()).expect("the snapshot is valid");
    World { sim, now: world.now, requests: world.requests }
}

#[test]
fn restored_space_continues_like_the_original() {
    let mut original = lively();
    let map = Arc::new(original.sim.map().clone());
    let mut copy = restored(&original, &map);
    assert_eq!(copy.sim.snapshot(), original.sim.snapshot());
    for sequence in 2..60 {
        let velocity = (-2_000 + 90 * sequence as i32, 40 * sequence as i32);
        for world in [&mut original, &mut copy] {
            world.walk(BOB, sequence, velocity);
        }
        assert_eq!(copy.sim.state_hash(), original.sim.state_hash(), "input {sequence}");
    }
    assert_ne!(original.position(BOB), (11_000, 10_000), "Bob walks");
}

#[test]
fn state_hash_ignores_watchers_and_sees_everything_else() {
    let mut world = lively();
    let before = world.sim.state_hash();
    world.sim.apply(watch(true));
    assert_eq!(world.sim.state_hash(), before, "a watcher");
    world.sim.apply(Input::Move { character: BOB, sequence: 9, velocity: (1, 0), facing: 0 });
    assert_ne!(world.sim.state_hash(), before, "an input of a player");
}

#[test]
fn watched_and_unwatched_space_have_same_hash_after_ticks() {
    let (mut watched, mut unwatched) = (lively(), lively());
    watched.tick([watch(true)]);
    unwatched.tick([]);
    for _ in 0..50 {
        watched.ticks(1);
        unwatched.ticks(1);
        assert_eq!(watched.sim.state_hash(), unwatched.sim.state_hash());
    }
}

#[test]
fn snapshot_of_other_map_or_version_is_refused() {
    let world = lively();
    let snapshot = world.sim.snapshot();
    let other = Arc::new(Map::open("other", 4, 4, Point::flat(16_000, 16_000)));
    assert!(matches!(Sim::restore(other, &snapshot), Err(SnapshotError::OtherMap { .. })));
    let map = Arc::new(world.sim.map().clone());
    let mut strange = snapshot.clone();
    strange[0] ^= 1;
    let found = match Sim::restore(map.clone(), &strange) {
        Err(SnapshotError::OtherSchema { found }) => found,
        other => panic!("{other:?}"),
    };
    assert_ne!(found, SCHEMA);
    let cut = Sim::restore(map, &snapshot[..snapshot.len() - 1]);
    assert!(matches!(cut, Err(SnapshotError::Damaged(_))));
}

#[test]
fn damaged_snapshot_never_panics() {
    let world = lively();
    let map = Arc::new(world.sim.map().clone());
    let snapshot = world.sim.snapshot();
    for at in 0..snapshot.len() {
        for bit in [1, 0x40, 0x80] {
            let mut damaged = snapshot.clone();
            damaged[at] ^= bit;
            let _ = Sim::restore(map.clone(), &damaged);
        }
    }
}

#[test]
fn snapshot_of_busy_space_restores() {
    let mut load = Load::new(200, Shape::Clustered);
    load.tick();
    let sim = load.sim();
    let copy = Sim::restore(Arc::new(sim.map().clone()), &sim.snapshot()).expect("the snapshot is valid");
    assert_eq!(copy.state_hash(), sim.state_hash());
}

use shardkeep_sim::{
    CellForm, CellUpdate, RemovalReason, Ring,
    rules::{KEYFRAME_ENTRIES, PACKET_ENTRIES},
};
use shardkeep_types::CellId;

use super::*;

fn cell(x: u16, y: u16) -> CellId {
    CellId { space: SPACE, x, y }
}

fn watch(x: u16, y: u16, ring: Ring) -> Input {
    Input::Watch { cell: cell(x, y), ring, on: true }
}

fn updates(events: Vec<Event>) -> Vec<CellUpdate> {
    let update = |event| match event {
        Event::Cell(update) => Some(update),
        _ => None,
    };
    events.into_iter().filter_map(update).collect()
}

#[test]
fn watching_a_cell_starts_with_a_full_keyframe() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.ticks(50);
    let updates = updates(world.tick([watch(0, 0, Ring::Near)]));
    let [CellUpdate { form: CellForm::Keyframe, entries, .. }] = &updates[..] else { panic!("{updates:?}") };
    assert_eq!(entries[0].entity, EntityId::avatar(ANN));
    assert_eq!(entries[0].position, Some((10_000, 10_000)));
    assert_eq!(&*entries[0].appears.as_ref().unwrap().name, "player-1");
}

#[test]
fn unwatched_or_unchanged_cell_publishes_nothing() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.walk(ANN, 1, (2_000, 0));
    assert_eq!(updates(world.ticks(5)), []);
    world.tick([watch(0, 0, Ring::Near)]);
    // A steady walk needs no messages, because the client extrapolates.
    assert_eq!(updates(world.ticks(5)), []);
    let turned = updates(world.walk(ANN, 2, (0, 0)));
    assert_eq!(turned[0].entries[0].velocity, Some((0, 0)));
    assert!(turned[0].entries[0].appears.is_none());
}

#[test]
fn cell_change_publishes_gone_and_appearance() {
    let mut world = World::open();
    world.enter(ANN, at(31_950, 10_000));
    world.tick([watch(0, 0, Ring::Near), watch(1, 0, Ring::Near)]);
    let updates = updates(world.walk(ANN, 1, (2_000, 0)));
    let [old, new] = &updates[..] else { panic!("{updates:?}") };
    assert_eq!((old.cell, old.entries[0].gone), (cell(0, 0), Some(RemovalReason::ToOtherCell)));
    assert_eq!((new.cell, new.entries[0].position), (cell(1, 0), Some((50, 10_000))));
    assert!(new.entries[0].appears.is_some());
}

#[test]
fn outer_ring_is_published_at_quarter_rate() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.tick([watch(0, 0, Ring::Outer)]);
    let mut told = 0;
    for sequence in 1..=40 {
        let velocity = (20 * (sequence as i32 % 7), 0);
        told += updates(world.walk(ANN, sequence, velocity)).len();
    }
    assert!((9..=11).contains(&told), "{told}");
}

#[test]
fn watched_cell_gets_periodic_keyframes() {
    let mut world = World::open();
    world.enter(ANN, at(10_000, 10_000));
    world.tick([watch(0, 0, Ring::Near), watch(1, 0, Ring::Outer)]);
    let keyframes = updates(world.ticks(80)).into_iter().filter(|update| update.form == CellForm::Keyframe);
    assert_eq!(keyframes.filter(|update| update.ring == Ring::Near).count(), 2);
}

#[test]
fn crowded_cell_spreads_entries_over_ticks() {
    let mut world = World::open();
    let crowd = (KEYFRAME_ENTRIES + 2 * PACKET_ENTRIES) as u64;
    let entering_avatars =
        (1..=crowd).map(|id| Input::Enter(Box::new(entering(CharacterId(id), at(5_000 + id as i32, 5_000)))));
    world.tick(entering_avatars);
    let shown = updates(world.tick([watch(0, 0, Ring::Near)]));
    assert!(
        shown[0].form == CellForm::Keyframe && shown[1..].iter().all(|update| update.form == CellForm::Part)
    );
    assert_eq!(shown.iter().map(|update| update.entries.len() as u64).sum::<u64>(), crowd);

    let mut updated = std::collections::BTreeSet::new();
    let moves = (1..=crowd).map(|id| Input::Move {
        character: CharacterId(id),
        sequence: 1,
        velocity: (20, 0),
        facing: 0,
    });
    let mut all = updates(world.tick(moves));
    all.extend(updates(world.ticks(16)));
    for update in &all {
        assert!(update.form != CellForm::Delta || update.entries.len() <= PACKET_ENTRIES);
        updated.extend(update.entries.iter().map(|entry| entry.entity));
    }
    assert_eq!(updated.len() as u64, crowd);
    assert!(world.sim.counts().deferred > 0);
}

#[test]
fn foreign_cell_is_silent_and_gained_cell_sends_keyframe() {
    let mut world = World::on(Map::open("test", 2, 1, Point::flat(1_000, 1_000)), rect(0, 0, 1, 1));
    world.enter(ANN, at(31_990, 10_000));
    world.tick([watch(1, 0, Ring::Near)]);
    assert_eq!(updates(world.walk(ANN, 1, (2_000, 0))), []);
    let gained = updates(world.tick([Input::Sectors(vec![rect(0, 0, 2, 1)])]));
    assert_eq!(gained.len(), 1);
    assert!(gained[0].form == CellForm::Keyframe && gained[0].entries.len() == 1);
}

#[test]
fn view_event_on_enter_and_on_cell_change() {
    let mut world = World::open();
    let views =
        |events: Vec<Event>| events.iter().filter(|event| matches!(event, Event::View { .. })).count();
    let events = world.tick([Input::Enter(Box::new(entering(ANN, at(31_950, 10_000))))]);
    assert_eq!(views(events), 1);
    assert_eq!(views(world.ticks(10)), 0);
    assert_eq!(views(world.walk(ANN, 1, (2_000, 0))), 1);
}

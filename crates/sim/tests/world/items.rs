use super::*;

fn owning(items: &[u64], last_action: u64) -> Possessions {
    Possessions { items: items.iter().map(|&id| item(id)).collect(), coins: 10, experience: 0, last_action }
}

fn with_item_on_ground() -> World {
    let mut world = World::open();
    let items = vec![(item(5), at(11_000, 10_000))];
    world.tick([Input::Ground { cells: rect(0, 0, 4, 4), items, generations: BTreeMap::new() }]);
    world
}

fn pick_up(id: u64) -> Act {
    Act::PickUp { action: action(id), entity: EntityId::ground_item(ItemId(5)) }
}

#[test]
fn an_item_changes_hands_only_by_the_databases_word() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let events = world.act(ANN, pick_up(1));
    let [(number, Want::PickUp { item, who, .. })] = commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!((item, who), (ItemId(5), ANN));
    assert!(world.sim.possessions(ANN).unwrap().items.is_empty());
    let events = world.committed(number, vec![(ANN, owning(&[5], 1))]);
    assert_eq!(replies(&events), [(ANN, Ok(Reply::Committed { action: 1 }))]);
    assert_eq!(world.sim.possessions(ANN).unwrap().items.len(), 1);
    let events = world.act(ANN, pick_up(2));
    assert_eq!(replies(&events), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn two_hands_on_one_item() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    world.enter(BOB, at(12_000, 10_000));
    assert_eq!(commits(&world.act(ANN, pick_up(1))).len(), 1);
    assert!(matches!(replies(&world.act(BOB, pick_up(1)))[..], [(BOB, Err(Refusal::Refused(_)))]));
}

#[test]
fn what_lies_too_far_away_stays_there() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(14_000, 10_000));
    assert_eq!(replies(&world.act(ANN, pick_up(1))), [(ANN, Err(Refusal::Refused("out of reach")))]);
}

#[test]
fn a_refused_pick_up_forgets_the_item() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let [(number, _)] = commits(&world.act(ANN, pick_up(1)))[..] else { panic!() };
    let events = world.tick([Input::Committed { number, outcome: Outcome::Refused }]);
    assert!(matches!(replies(&events)[..], [(ANN, Err(Refusal::Refused(_)))]));
    assert!(events.iter().any(|event| matches!(event, Event::GroundUnsure { .. })));
    assert_eq!(replies(&world.act(ANN, pick_up(2))), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn a_repeat_on_the_way_waits_along_and_a_later_one_is_recalled() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let [(number, _)] = commits(&world.act(ANN, pick_up(1)))[..] else { panic!() };
    assert_eq!(commits(&world.act(ANN, pick_up(1))), [], "not wanted twice");
    let events = world.committed(number, vec![(ANN, owning(&[5], 1))]);
    assert_eq!(replies(&events).len(), 2, "both are answered");

    let events = world.act(ANN, pick_up(1));
    let [(number, Want::Recall { .. })] = commits(&events)[..] else { panic!("{events:?}") };
    let events = world.committed(number, vec![(ANN, owning(&[5], 1))]);
    assert_eq!(replies(&events), [(ANN, Ok(Reply::Committed { action: 1 }))]);
}

#[test]
fn an_action_id_serves_one_request() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    world.act(ANN, pick_up(1));
    let other = Action { id: 1, digest: [99; 16] };
    let events = world.act(ANN, Act::PickUp { action: other, entity: EntityId::ground_item(ItemId(5)) });
    assert_eq!(replies(&events), [(ANN, Err(Refusal::Conflict))]);
}

#[test]
fn what_is_dropped_lies_where_one_stood() {
    let mut world = World::open();
    world.enter_with(ANN, at(10_000, 10_000), owning(&[7], 0));
    let events = world.act(ANN, Act::Drop { action: action(1), item: ItemId(7) });
    let [(number, Want::Drop { at: place, .. })] = commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!(place, at(10_000, 10_000));
    world.committed(number, vec![(ANN, owning(&[], 1))]);
    let events = world.act(ANN, Act::PickUp { action: action(2), entity: EntityId::ground_item(ItemId(7)) });
    assert_eq!(commits(&events).len(), 1);
    let events = world.act(ANN, Act::Drop { action: action(3), item: ItemId(99) });
    assert_eq!(replies(&events), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn what_waits_for_an_absent_database_stays_bounded() {
    let mut world = World::open();
    let many: Vec<u64> = (1..=20).collect();
    world.enter_with(ANN, at(10_000, 10_000), owning(&many, 0));
    let drop = |id: u64| Act::Drop { action: action(id), item: ItemId(id) };
    let wanted: usize = many.iter().map(|&id| commits(&world.act(ANN, drop(id))).len()).sum();
    assert_eq!(wanted, shardkeep_sim::rules::ACTIONS_ON_THEIR_WAY);
    assert_eq!(replies(&world.act(ANN, drop(20))), [(ANN, Err(Refusal::Unavailable))]);
    let repeats = (0..100).flat_map(|_| replies(&world.act(ANN, drop(1)))).count();
    assert!(repeats > 80, "repeats are refused, not gathered: {repeats}");
}

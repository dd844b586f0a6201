use shardkeep_sim::rules::{MAX_ACTION_GAP, MAX_STACKS};

use super::*;

fn possessions_of(items: &[u64], last_action: u64) -> Possessions {
    Possessions { items: items.iter().map(|&id| item(id)).collect(), coins: 10, experience: 0, last_action }
}

fn with_item_on_ground() -> World {
    let mut world = World::open();
    let items = vec![(item(5), at(11_000, 10_000))];
    world.tick([Input::Ground { cells: rect(0, 0, 4, 4), items }]);
    world
}

fn pick_up(id: u64) -> Act {
    Act::PickUp { action: action(id), entity: EntityId::ground_item(ItemId(5)) }
}

#[test]
fn pick_up_takes_effect_after_database_commit() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let events = world.act(ANN, pick_up(1));
    let [(number, HardChange::PickUp { item, player, .. })] = commits(&events)[..] else {
        panic!("{events:?}")
    };
    assert_eq!((item, player), (ItemId(5), ANN));
    assert!(world.sim.possessions(ANN).unwrap().items.is_empty());
    let events = world.committed(number, vec![(ANN, possessions_of(&[5], 1))]);
    assert_eq!(replies(&events), [(ANN, Ok(Reply::Committed { action: 1 }))]);
    assert_eq!(world.sim.possessions(ANN).unwrap().items.len(), 1);
    let events = world.act(ANN, pick_up(2));
    assert_eq!(replies(&events), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn item_being_picked_up_refuses_second_pick_up() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    world.enter(BOB, at(12_000, 10_000));
    assert_eq!(commits(&world.act(ANN, pick_up(1))).len(), 1);
    assert!(matches!(replies(&world.act(BOB, pick_up(1)))[..], [(BOB, Err(Refusal::Refused(_)))]));
}

#[test]
fn pick_up_out_of_reach_is_refused() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(14_000, 10_000));
    assert_eq!(replies(&world.act(ANN, pick_up(1))), [(ANN, Err(Refusal::Refused("out of reach")))]);
}

#[test]
fn refused_pick_up_removes_item_and_reloads_ground() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let [(number, _)] = commits(&world.act(ANN, pick_up(1)))[..] else { panic!() };
    let events = world.tick([Input::Committed { number, outcome: Outcome::Refused }]);
    assert!(matches!(replies(&events)[..], [(ANN, Err(Refusal::Refused(_)))]));
    assert!(events.iter().any(|event| matches!(event, Event::GroundStale { .. })));
    assert_eq!(replies(&world.act(ANN, pick_up(2))), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn repeated_action_shares_pending_commit_or_recalls_result() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    let [(number, _)] = commits(&world.act(ANN, pick_up(1)))[..] else { panic!() };
    assert_eq!(commits(&world.act(ANN, pick_up(1))), [], "not wanted twice");
    let events = world.committed(number, vec![(ANN, possessions_of(&[5], 1))]);
    assert_eq!(replies(&events).len(), 2, "both are answered");

    let events = world.act(ANN, pick_up(1));
    let [(number, HardChange::Recall { .. })] = commits(&events)[..] else { panic!("{events:?}") };
    let events = world.committed(number, vec![(ANN, possessions_of(&[5], 1))]);
    assert_eq!(replies(&events), [(ANN, Ok(Reply::Committed { action: 1 }))]);
}

#[test]
fn reused_action_id_conflicts() {
    let mut world = with_item_on_ground();
    world.enter(ANN, at(10_000, 10_000));
    world.act(ANN, pick_up(1));
    let other = ActionKey { id: 1, digest: [99; 16] };
    let events = world.act(ANN, Act::PickUp { action: other, entity: EntityId::ground_item(ItemId(5)) });
    assert_eq!(replies(&events), [(ANN, Err(Refusal::Conflict))]);
}

#[test]
fn dropped_item_lies_at_avatar_position() {
    let mut world = World::open();
    world.enter_with(ANN, at(10_000, 10_000), possessions_of(&[7], 0));
    let events = world.act(ANN, Act::Drop { action: action(1), item: ItemId(7) });
    let [(number, HardChange::Drop { at: place, .. })] = commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!(place, at(10_000, 10_000));
    world.committed(number, vec![(ANN, possessions_of(&[], 1))]);
    let events = world.act(ANN, Act::PickUp { action: action(2), entity: EntityId::ground_item(ItemId(7)) });
    assert_eq!(commits(&events).len(), 1);
    let events = world.act(ANN, Act::Drop { action: action(3), item: ItemId(99) });
    assert_eq!(replies(&events), [(ANN, Err(Refusal::NotFound))]);
}

#[test]
fn pending_actions_without_database_are_bounded() {
    let mut world = World::open();
    let many: Vec<u64> = (1..=20).collect();
    world.enter_with(ANN, at(10_000, 10_000), possessions_of(&many, 0));
    let drop = |id: u64| Act::Drop { action: action(id), item: ItemId(id) };
    let wanted: usize = many.iter().map(|&id| commits(&world.act(ANN, drop(id))).len()).sum();
    assert_eq!(wanted, shardkeep_sim::rules::MAX_PENDING_ACTIONS);
    assert_eq!(replies(&world.act(ANN, drop(20))), [(ANN, Err(Refusal::Unavailable))]);
    let repeats = (0..100).flat_map(|_| replies(&world.act(ANN, drop(1)))).count();
    assert!(repeats > 80, "repeats are refused, not gathered: {repeats}");
}

#[test]
fn action_id_far_ahead_is_refused_and_blocks_nothing() {
    let mut world = World::open();
    world.enter_with(ANN, at(10_000, 10_000), possessions_of(&[7], 5));
    let drop = |id: u64| Act::Drop { action: ActionKey { id, digest: [1; 16] }, item: ItemId(7) };
    for far in [i64::MAX.unsigned_abs(), 5 + MAX_ACTION_GAP + 1] {
        let refused = replies(&world.act(ANN, drop(far)));
        let [(ANN, Err(Refusal::Refused(why)))] = refused[..] else { panic!("{refused:?}") };
        assert!(why.contains("last_action"), "{why}");
    }
    assert_eq!(commits(&world.act(ANN, drop(6))).len(), 1);
}

#[test]
fn full_inventory_refuses_pick_up_before_the_database_does() {
    let mut world = with_item_on_ground();
    let many: Vec<u64> = (100..100 + MAX_STACKS as u64).collect();
    world.enter_with(ANN, at(10_000, 10_000), possessions_of(&many, 0));
    let full = Err(Refusal::Refused("the inventory is full"));
    assert_eq!(replies(&world.act(ANN, pick_up(1))), [(ANN, full)]);
}

use proptest::prelude::*;
use shardkeep_sim::{Goal, Intent, Ring};
use shardkeep_types::CellId;

use super::*;

fn character() -> impl Strategy<Value = CharacterId> {
    (1u64..4).prop_map(CharacterId)
}

fn place() -> impl Strategy<Value = Position> {
    (0i32..130_000, 0i32..130_000).prop_map(|(x, y)| at(x, y))
}

fn entity() -> impl Strategy<Value = EntityId> {
    prop_oneof![
        character().prop_map(EntityId::avatar),
        (0u32..4).prop_map(creature),
        (0u64..4).prop_map(|id| EntityId::ground_item(ItemId(id))),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let trade = 4_096_000_000u64..4_096_900_000;
    prop_oneof![
        entity().prop_map(|target| Act::Attack { target }),
        (1u64..5, entity()).prop_map(|(id, entity)| Act::PickUp { action: action(id), entity }),
        (1u64..5, 0u64..4).prop_map(|(id, item)| Act::Drop { action: action(id), item: ItemId(item) }),
        entity().prop_map(|entity| Act::Invite { entity }),
        (trade.clone(), any::<bool>()).prop_map(|(trade, accept)| Act::Answer { trade, accept }),
        (trade, -3i64..40).prop_map(|(trade, coins)| Act::Offer { trade, items: vec![], coins }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (character(), place()).prop_map(|(player, at)| Input::Enter(Box::new(entering(player, at)))),
        character().prop_map(|character| Input::Leave { character }),
        character().prop_map(|character| Input::Suspend { character }),
        character().prop_map(|character| Input::Freeze { character }),
        character().prop_map(|character| Input::Thaw { character }),
        (character(), place()).prop_map(|(character, to)| Input::Teleport { character, to }),
        (character(), any::<u32>(), any::<i16>(), any::<i16>()).prop_map(|(character, sequence, vx, vy)| {
            Input::Move { character, sequence, velocity: (vx.into(), vy.into()), facing: 1 }
        }),
        (character(), act())
            .prop_map(|(character, act)| Input::Act { requester: Requester { character, request: 1 }, act }),
        (0u16..5, any::<bool>()).prop_map(|(x, on)| {
            Input::Watch { cell: CellId { space: SPACE, x, y: 0 }, ring: Ring::Near, on }
        }),
        (0u16..4).prop_map(|x| Input::Sectors(vec![rect(0, 0, x, 4)])),
        Just(ground(rect(0, 0, 4, 4))),
        (entity(), place()).prop_map(|(creature, to)| {
            let goal = Goal::Move { x_mm: to.x_mm, y_mm: to.y_mm, speed: 9_999 };
            Input::Intents(vec![Intent { creature, goal }])
        }),
    ]
}

proptest! {
    /// The same inputs always give the same events, and no input panics.
    #[test]
    fn same_inputs_give_same_events(ticks in prop::collection::vec(prop::collection::vec(input(), 0..6), 1..40)) {
        let run = || {
            let mut map = Map::open("test", 4, 4, Point::flat(16_000, 16_000));
            for number in 0..4 {
                let home = Point::flat(10_000 + 9_000 * number as i32, 12_000);
                map.spawns.push(shardkeep_sim::SpawnPoint { number, template: 1, home });
            }
            let mut world = World::on(map, rect(0, 0, 4, 4));
            ticks.iter().map(|inputs| world.tick(inputs.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}

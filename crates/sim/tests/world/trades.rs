use shardkeep_sim::{TradeState, TradeView};

use super::*;

fn possessions_of(items: &[u64], coins: i64) -> Possessions {
    Possessions { items: items.iter().map(|&id| item(id)).collect(), coins, experience: 0, last_action: 0 }
}

/// Ann has item 1 and Bob has 30 coins. They stand two metres apart and have an open trade.
fn open() -> (World, u64) {
    let mut world = World::open();
    world.enter_with(ANN, at(10_000, 10_000), possessions_of(&[1], 0));
    world.enter_with(BOB, at(12_000, 10_000), possessions_of(&[], 30));
    let events = world.act(ANN, Act::Invite { entity: EntityId::avatar(BOB) });
    let [(ANN, Ok(Reply::Invited { trade }))] = replies(&events)[..] else { panic!("{events:?}") };
    assert_eq!(seen(&events, BOB).unwrap().state, TradeState::Invited);
    let events = world.act(BOB, Act::Answer { trade, accept: true });
    assert_eq!(seen(&events, ANN).unwrap().state, TradeState::Open);
    (world, trade)
}

fn seen(events: &[Event], player: CharacterId) -> Option<TradeView> {
    events.iter().rev().find_map(|event| match event {
        Event::Trade { character, view } if *character == player => Some((**view).clone()),
        _ => None,
    })
}

/// Makes both offers and returns the revision to confirm.
fn offered(world: &mut World, trade: u64) -> u32 {
    world.act(ANN, Act::Offer { trade, items: vec![ItemId(1)], coins: 0 });
    let events = world.act(BOB, Act::Offer { trade, items: vec![], coins: 20 });
    seen(&events, ANN).unwrap().revision
}

fn confirm(trade: u64, revision: u32) -> Act {
    Act::Confirm { action: action(1), trade, revision }
}

#[test]
fn trade_confirmed_by_both_is_one_commit() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    assert_eq!(commits(&world.act(ANN, confirm(trade, revision))), []);
    let events = world.act(BOB, confirm(trade, revision));
    let [(number, HardChange::Trade { sides })] = &commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!((&sides[0].items[..], sides[1].coins), (&[ItemId(1)][..], 20));
    let events =
        world.committed(*number, vec![(ANN, possessions_of(&[], 20)), (BOB, possessions_of(&[1], 10))]);
    let done = Ok(Reply::Committed { action: 1 });
    assert_eq!(replies(&events), [(ANN, done.clone()), (BOB, done)]);
    assert_eq!(seen(&events, BOB).unwrap().state, TradeState::Done);
    assert_eq!(world.sim.possessions(BOB).unwrap().items.len(), 1);
    assert_eq!(world.sim.avatar(ANN).unwrap().trade, None, "they may trade again");
}

#[test]
fn changed_offer_needs_new_confirmation() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    world.act(ANN, confirm(trade, revision));
    let events = world.act(BOB, Act::Offer { trade, items: vec![], coins: 1 });
    assert!(replies(&events).contains(&(ANN, Err(Refusal::Refused("the offer has changed")))));
    assert!(replies(&world.act(BOB, confirm(trade, revision)))[0].1.is_err());
}

#[test]
fn offer_of_unowned_items_or_coins_is_refused() {
    let (mut world, trade) = open();
    let too_much = Act::Offer { trade, items: vec![], coins: 31 };
    assert_eq!(replies(&world.act(BOB, too_much)), [(BOB, Err(Refusal::Refused("not enough coins")))]);
    let not_his = Act::Offer { trade, items: vec![ItemId(1)], coins: 0 };
    assert_eq!(replies(&world.act(BOB, not_his)), [(BOB, Err(Refusal::NotFound))]);
    let negative = Act::Offer { trade, items: vec![], coins: -5 };
    assert!(replies(&world.act(BOB, negative))[0].1.is_err());
}

#[test]
fn trade_is_cancelled_by_distance_leave_or_freeze() {
    let away: [fn() -> Input; 3] = [
        || Input::Teleport { character: BOB, to: at(60_000, 60_000) },
        || Input::Leave { character: BOB },
        || Input::Freeze { character: BOB },
    ];
    for away in away {
        let (mut world, trade) = open();
        let revision = offered(&mut world, trade);
        world.act(ANN, confirm(trade, revision));
        let events = world.tick([away()]);
        assert_eq!(seen(&events, ANN).unwrap().state, TradeState::Cancelled);
        assert!(matches!(replies(&events)[..], [(ANN, Err(Refusal::Refused(_)))]));
    }
}

#[test]
fn committing_trade_cannot_be_cancelled() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    world.act(ANN, confirm(trade, revision));
    let events = world.act(BOB, confirm(trade, revision));
    let [(number, _)] = commits(&events)[..] else { panic!() };
    assert!(replies(&world.act(ANN, Act::Cancel { trade }))[0].1.is_err());
    world.tick([Input::Freeze { character: ANN }]);
    assert!(world.sim.is_committing(ANN) && world.sim.is_committing(BOB));
    let events = world.tick([Input::Committed { number, outcome: Outcome::Refused }]);
    assert_eq!(seen(&events, BOB).unwrap().state, TradeState::Cancelled);
    assert_eq!(replies(&events).len(), 2);
}

#[test]
fn repeated_confirmation_waits_for_same_commit() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    world.act(ANN, confirm(trade, revision));
    let events = world.act(BOB, confirm(trade, revision));
    let [(number, _)] = commits(&events)[..] else { panic!() };
    assert_eq!(commits(&world.act(ANN, confirm(trade, revision))), []);
    let events = world.committed(number, vec![]);
    assert_eq!(replies(&events).len(), 3);
}

#[test]
fn invite_needs_idle_partner_within_distance() {
    let (mut world, _) = open();
    let carl = CharacterId(3);
    world.enter(carl, at(11_000, 10_000));
    let invite = |player| Act::Invite { entity: EntityId::avatar(player) };
    assert_eq!(replies(&world.act(carl, invite(BOB)))[0].1, Err(Refusal::Refused("the other is busy")));
    let dora = CharacterId(4);
    world.enter(dora, at(30_000, 10_000));
    assert_eq!(replies(&world.act(carl, invite(dora)))[0].1, Err(Refusal::Refused("too far away")));
    assert_eq!(replies(&world.act(carl, invite(carl)))[0].1, Err(Refusal::NotFound));
}

use shardkeep_sim::{TradeState, TradeView};

use super::*;

fn owning(items: &[u64], coins: i64) -> Possessions {
    Possessions { items: items.iter().map(|&id| item(id)).collect(), coins, experience: 0, last_action: 0 }
}

/// Ann has item 1, Bob has 30 coins; they stand two metres apart and have opened a trade.
fn open() -> (World, u64) {
    let mut world = World::open();
    world.enter_with(ANN, at(10_000, 10_000), owning(&[1], 0));
    world.enter_with(BOB, at(12_000, 10_000), owning(&[], 30));
    let events = world.act(ANN, Act::Invite { entity: EntityId::avatar(BOB) });
    let [(ANN, Ok(Reply::Invited { trade }))] = replies(&events)[..] else { panic!("{events:?}") };
    assert_eq!(seen(&events, BOB).unwrap().state, TradeState::Invited);
    let events = world.act(BOB, Act::Answer { trade, accept: true });
    assert_eq!(seen(&events, ANN).unwrap().state, TradeState::Open);
    (world, trade)
}

fn seen(events: &[Event], who: CharacterId) -> Option<TradeView> {
    events.iter().rev().find_map(|event| match event {
        Event::Trade { character, view } if *character == who => Some((**view).clone()),
        _ => None,
    })
}

/// Both offers are made; the revision to confirm.
fn offered(world: &mut World, trade: u64) -> u32 {
    world.act(ANN, Act::Offer { trade, items: vec![ItemId(1)], coins: 0 });
    let events = world.act(BOB, Act::Offer { trade, items: vec![], coins: 20 });
    seen(&events, ANN).unwrap().revision
}

fn confirm(trade: u64, revision: u32) -> Act {
    Act::Confirm { action: action(1), trade, revision }
}

#[test]
fn a_trade_is_one_commit_that_both_have_agreed_to() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    assert_eq!(commits(&world.act(ANN, confirm(trade, revision))), []);
    let events = world.act(BOB, confirm(trade, revision));
    let [(number, Want::Trade { sides })] = &commits(&events)[..] else { panic!("{events:?}") };
    assert_eq!((&sides[0].items[..], sides[1].coins), (&[ItemId(1)][..], 20));
    let events = world.committed(*number, vec![(ANN, owning(&[], 20)), (BOB, owning(&[1], 10))]);
    let done = Ok(Reply::Committed { action: 1 });
    assert_eq!(replies(&events), [(ANN, done.clone()), (BOB, done)]);
    assert_eq!(seen(&events, BOB).unwrap().state, TradeState::Done);
    assert_eq!(world.sim.possessions(BOB).unwrap().items.len(), 1);
    assert_eq!(world.sim.avatar(ANN).unwrap().trade, None, "they may trade again");
}

#[test]
fn a_changed_offer_must_be_confirmed_anew() {
    let (mut world, trade) = open();
    let revision = offered(&mut world, trade);
    world.act(ANN, confirm(trade, revision));
    let events = world.act(BOB, Act::Offer { trade, items: vec![], coins: 1 });
    assert!(replies(&events).contains(&(ANN, Err(Refusal::Refused("the offer has changed")))));
    assert!(replies(&world.act(BOB, confirm(trade, revision)))[0].1.is_err());
}

#[test]
fn nobody_offers_what_he_does_not_have() {
    let (mut world, trade) = open();
    let too_much = Act::Offer { trade, items: vec![], coins: 31 };
    assert_eq!(replies(&world.act(BOB, too_much)), [(BOB, Err(Refusal::Refused("not enough coins")))]);
    let not_his = Act::Offer { trade, items: vec![ItemId(1)], coins: 0 };
    assert_eq!(replies(&world.act(BOB, not_his)), [(BOB, Err(Refusal::NotFound))]);
    let negative = Act::Offer { trade, items: vec![], coins: -5 };
    assert!(replies(&world.act(BOB, negative))[0].1.is_err());
}

#[test]
fn distance_leaving_and_freezing_cancel() {
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
fn once_both_agreed_only_the_database_ends_it() {
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
fn a_lost_connection_confirms_again_and_waits_for_the_same_commit() {
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
fn one_trade_at_a_time_and_only_with_those_near() {
    let (mut world, _) = open();
    let carl = CharacterId(3);
    world.enter(carl, at(11_000, 10_000));
    let invite = |who| Act::Invite { entity: EntityId::avatar(who) };
    assert_eq!(replies(&world.act(carl, invite(BOB)))[0].1, Err(Refusal::Refused("the other is busy")));
    let dora = CharacterId(4);
    world.enter(dora, at(30_000, 10_000));
    assert_eq!(replies(&world.act(carl, invite(dora)))[0].1, Err(Refusal::Refused("too far away")));
    assert_eq!(replies(&world.act(carl, invite(carl)))[0].1, Err(Refusal::NotFound));
}

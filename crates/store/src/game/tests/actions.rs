//! Hard actions: fences, repeats, holders, batches.

use shardkeep_types::{CellRect, Epoch, ItemId};

use super::*;

on_both_engines! {
    item_is_dropped_and_picked_up,
    repeated_action_is_answered_not_applied,
    action_id_below_window_is_refused,
    trade_is_atomic,
    loot_is_minted_once_per_generation,
    burned_items_and_coins_are_gone,
    stale_epoch_action_is_refused,
    refused_action_does_not_affect_batch,
    action_across_worlds_is_refused,
}

async fn item_is_dropped_and_picked_up(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let dropped = one(game, &drop_item(&ada, 1, 1)).await.unwrap();
    assert!(dropped.applied);
    assert_eq!((dropped.characters[0].items.len(), dropped.characters[0].last_action), (1, 1));
    let cell = drop_position().cell();
    let rect = CellRect { map: MapId(1), x0: cell.x, y0: cell.y, x1: cell.x + 1, y1: cell.y + 1 };
    let ground = game.load_ground(WORLD, rect).await.unwrap();
    assert_eq!(ground.items, [GroundItem { item: ada.items[1], position: drop_position() }]);
    let beside = CellRect { x0: cell.x + 1, x1: cell.x + 2, ..rect };
    assert!(game.load_ground(WORLD, beside).await.unwrap().items.is_empty());

    let pick = |of: &Character| HardAction {
        items: vec![MoveItem { item: ada.items[1].id, from: super::ground(), to: held_by(of), at: None }],
        reason: "pickup".to_owned(),
        ..drop_item(of, 2, 0)
    };
    let picked = one(game, &pick(&bob)).await.unwrap();
    assert_eq!(picked.characters[0].items.len(), 3);
    assert_eq!(
        one(game, &pick(&ada)).await,
        Err(Refusal::NotHeld(ada.items[1].id)),
        "only one can pick it up"
    );
    assert_eq!(game.load(bob.id).await.unwrap().items, picked.characters[0].items);
    assert!(game.load_ground(WORLD, rect).await.unwrap().items.is_empty());
    assert_conserved(game).await;
}

async fn repeated_action_is_answered_not_applied(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let action = HardAction {
        mints: vec![MintItem { template: 9, count: 2, to: held_by(&ada), at: None }],
        coins: vec![MoveCoins { from: Holder::Mint("quest".to_owned()), to: held_by(&ada), amount: 5 }],
        experience: vec![(ada.id, 30)],
        ..drop_item(&ada, 4, 0)
    };
    let first = one(game, &action).await.unwrap();
    assert_eq!((first.applied, first.minted.len(), first.characters[0].coins), (true, 1, 105));
    let again = one(game, &action).await.unwrap();
    assert_eq!(again, HardResult { applied: false, ..first.clone() });
    // The owner has changed meanwhile: a repeat is still answered.
    game.claim(&claim(&ada, term(game).await)).await.unwrap();
    assert_eq!(one(game, &action).await.unwrap().minted, first.minted);
    let mut other = action.clone();
    other.action.as_mut().unwrap().digest = [0; 16];
    assert_eq!(one(game, &other).await, Err(Refusal::ActionConflict));
    let now = game.load(ada.id).await.unwrap();
    assert_eq!((now.coins, now.experience, now.items.len()), (105, 30, 2));
    assert_conserved(game).await;
}

async fn action_id_below_window_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let nothing = |id| HardAction {
        action: Some(action_id(&ada, id)),
        fences: vec![fence(&ada)],
        reason: "nothing".to_owned(),
        ..HardAction::default()
    };
    assert!(one(game, &nothing(300)).await.unwrap().applied);
    assert!(one(game, &nothing(45)).await.unwrap().applied, "ids may come out of order inside the window");
    assert_eq!(one(game, &nothing(44)).await, Err(Refusal::ActionTooOld));
    assert!(one(game, &nothing(301)).await.unwrap().applied);
    assert_eq!(one(game, &nothing(45)).await, Err(Refusal::ActionTooOld));
    assert!(!one(game, &nothing(300)).await.unwrap().applied);
    assert!(matches!(one(game, &nothing(0)).await, Err(Refusal::Invalid(_))));
}

fn trade(ada: &Character, bob: &Character, coins: i64) -> HardAction {
    HardAction {
        action: Some(action_id(ada, 1)),
        other_actions: vec![action_id(bob, 1)],
        fences: vec![fence(ada), fence(bob)],
        items: vec![
            MoveItem { item: ada.items[0].id, from: held_by(ada), to: held_by(bob), at: None },
            MoveItem { item: bob.items[1].id, from: held_by(bob), to: held_by(ada), at: None },
        ],
        coins: vec![MoveCoins { from: held_by(bob), to: held_by(ada), amount: coins }],
        reason: "trade".to_owned(),
        ..HardAction::default()
    }
}

async fn trade_is_atomic(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    assert_eq!(one(game, &trade(&ada, &bob, 101)).await, Err(Refusal::InsufficientCoins(held_by(&bob))));
    assert_eq!(game.load(ada.id).await.unwrap(), ada, "nothing has happened");
    let action = trade(&ada, &bob, 100);
    let done = one(game, &action).await.unwrap();
    assert_eq!(done.characters.iter().map(|one| one.coins).collect::<Vec<_>>(), [200, 0]);
    assert!(
        done.characters[0].items.contains(&bob.items[1]) && done.characters[1].items.contains(&ada.items[0])
    );
    // The partner's zone submits the same trade.
    let mirrored = HardAction {
        action: action.other_actions.first().copied(),
        other_actions: action.action.into_iter().collect(),
        ..action
    };
    assert!(!one(game, &mirrored).await.unwrap().applied);
    // A confirmation that was spent cannot carry another trade.
    let mut second = trade(&ada, &bob, 1);
    second.action = Some(action_id(&ada, 2));
    assert_eq!(one(game, &second).await, Err(Refusal::ActionConflict));
    assert_conserved(game).await;
}

async fn loot_is_minted_once_per_generation(game: &Game) {
    let loot = |generation| HardAction {
        once: Some(OnceKey { world: WORLD, spawn: 5, generation }),
        mints: vec![MintItem { template: 3, count: 1, to: ground(), at: Some(drop_position()) }],
        coins: vec![MoveCoins { from: Holder::Mint("loot".to_owned()), to: ground(), amount: 7 }],
        reason: "loot".to_owned(),
        ..HardAction::default()
    };
    let same = loot(1);
    let (first, second) = tokio::join!(one(game, &same), one(game, &same));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.applied != second.applied, "two zones cannot both mint it");
    assert_eq!(first.minted, second.minted);
    assert!(one(game, &loot(2)).await.unwrap().applied);
    let late = one(game, &loot(1)).await.unwrap();
    assert_eq!((late.applied, late.minted.len()), (false, 0));
    let rect = CellRect { map: MapId(1), x0: 0, y0: 0, x1: 32, y1: 32 };
    let found = game.load_ground(WORLD, rect).await.unwrap();
    assert_eq!((found.items.len(), found.generations), (2, vec![(5, 2)]));
    let ada = create_claimed(game, "Ada").await;
    let take = HardAction {
        items: Vec::new(),
        coins: vec![MoveCoins { from: ground(), to: held_by(&ada), amount: 14 }],
        ..drop_item(&ada, 1, 0)
    };
    assert_eq!(one(game, &take).await.unwrap().characters[0].coins, 114);
    assert_conserved(game).await;
}

async fn burned_items_and_coins_are_gone(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let end = Holder::Burn("fee".to_owned());
    let burn = HardAction {
        items: vec![MoveItem { item: ada.items[0].id, from: held_by(&ada), to: end.clone(), at: None }],
        coins: vec![MoveCoins { from: held_by(&ada), to: end, amount: 40 }],
        ..drop_item(&ada, 1, 0)
    };
    one(game, &burn).await.unwrap();
    assert_eq!(one(game, &drop_item(&ada, 2, 0)).await, Err(Refusal::NotHeld(ada.items[0].id)));
    let found = assert_conserved(game).await;
    assert_eq!((found.items, found.items_burned, found.coins, found.coins_burned), (1, 1, 60, 40));
}

async fn stale_epoch_action_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let newer = game.claim(&claim(&ada, term(game).await)).await.unwrap();
    let refused = one(game, &drop_item(&ada, 1, 0)).await;
    assert_eq!(refused, Err(Refusal::StaleEpoch { character: ada.id, epoch: newer.epoch }));
    let mut unfenced = drop_item(&newer, 1, 0);
    unfenced.fences.clear();
    assert!(
        matches!(one(game, &unfenced).await, Err(Refusal::Invalid(reason)) if reason.contains("without a fence"))
    );
    assert!(one(game, &drop_item(&newer, 1, 0)).await.unwrap().applied);
}

async fn refused_action_does_not_affect_batch(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let nobody = Character { id: CharacterId(404), ..ada.clone() };
    let batch = [
        drop_item(&ada, 1, 0),
        drop_item(&ada, 2, 0),
        drop_item(&nobody, 1, 0),
        HardAction { reason: String::new(), ..drop_item(&bob, 1, 0) },
        trade(&bob, &ada, 1_000),
        drop_item(&bob, 2, 0),
        drop_item(&ada, 1, 0),
    ];
    let labels: Vec<_> = game
        .commit(&batch)
        .await
        .unwrap()
        .into_iter()
        .map(|outcome| {
            outcome.map_or_else(
                |refusal| refusal.label(),
                |done| if done.applied { "applied" } else { "repeat" },
            )
        })
        .collect();
    let expected =
        ["applied", "not_held", "no_such_character", "invalid", "action_conflict", "applied", "repeat"];
    assert_eq!(labels, expected);
    assert_conserved(game).await;
}

async fn action_across_worlds_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let mut action = drop_item(&ada, 1, 0);
    action.items[0].to = Holder::Ground(WorldId(2), drop_position().cell());
    assert_eq!(one(game, &action).await, Err(Refusal::AcrossWorlds));
    action.items[0].item = ItemId(77);
    action.fences[0].epoch = Epoch(50);
    assert_eq!(one(game, &action).await.unwrap_err().label(), "stale_epoch");
}

//! Tests of hard actions: fences, repeats, holders, rewards, batches.

use shardkeep_types::{CellRect, Epoch, ItemId, Layer};

use super::*;
use crate::sql;

on_both_engines! {
    item_is_dropped_and_picked_up,
    repeated_action_is_answered_not_applied,
    action_id_below_window_is_refused,
    action_id_far_ahead_is_refused,
    stored_result_is_found_by_owner_only,
    ground_is_read_in_pages,
    spaces_share_no_ground_and_no_generation,
    full_inventory_takes_no_more_stacks,
    trade_is_atomic,
    loot_is_minted_once_per_generation,
    burned_items_and_coins_are_gone,
    stale_epoch_action_is_refused,
    refused_action_does_not_affect_batch,
    action_across_worlds_is_refused,
    action_on_character_of_another_zone_is_refused,
    border_reward_is_the_only_way_to_another_zone,
}

async fn item_is_dropped_and_picked_up(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let dropped = one(game, &drop_item(&ada, 1, 1)).await.unwrap();
    assert!(dropped.applied);
    assert_eq!((dropped.characters[0].items.len(), dropped.characters[0].last_action), (1, 1));
    let cell = drop_position().cell();
    let rect = CellRect { space: SpaceId(1), x0: cell.x, y0: cell.y, x1: cell.x + 1, y1: cell.y + 1 };
    let ground = game.load_ground(WORLD, rect, None, 10).await.unwrap();
    assert_eq!(ground.items, [GroundItem { item: ada.items[1], position: drop_position() }]);
    let beside = CellRect { x0: cell.x + 1, x1: cell.x + 2, ..rect };
    assert!(game.load_ground(WORLD, beside, None, 10).await.unwrap().items.is_empty());

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
    assert_eq!(load(game, bob.id).await.items, picked.characters[0].items);
    assert!(game.load_ground(WORLD, rect, None, 10).await.unwrap().items.is_empty());
    assert_conserved(game).await;
}

async fn repeated_action_is_answered_not_applied(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let action = HardAction {
        mints: vec![MintItem { template: 9, count: 2, to: held_by(&ada), at: None }],
        coins: vec![MoveCoins { from: Holder::Mint("quest".to_owned()), to: held_by(&ada), amount: 5 }],
        ..drop_item(&ada, 4, 0)
    };
    let first = one(game, &action).await.unwrap();
    assert_eq!((first.applied, first.minted.len(), first.characters[0].coins), (true, 1, 105));
    let again = one(game, &action).await.unwrap();
    assert_eq!(again, HardResult { applied: false, ..first.clone() });
    // A repeat gets its answer also after the epoch has changed.
    game.claim(&claim(&ada, term(game).await)).await.unwrap();
    assert_eq!(one(game, &action).await.unwrap().minted, first.minted);
    let mut other = action.clone();
    other.action.as_mut().unwrap().digest = [0; 16];
    assert_eq!(one(game, &other).await, Err(Refusal::ActionConflict));
    let now = load(game, ada.id).await;
    assert_eq!((now.coins, now.items.len()), (105, 2));
    assert_conserved(game).await;
}

async fn action_id_below_window_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let nothing =
        |id| HardAction { action: Some(action_id(&ada, id)), fences: vec![fence(&ada)], ..action("nothing") };
    assert!(one(game, &nothing(300)).await.unwrap().applied);
    assert!(one(game, &nothing(45)).await.unwrap().applied, "ids may come out of order inside the window");
    assert_eq!(one(game, &nothing(44)).await, Err(Refusal::ActionTooOld));
    assert!(one(game, &nothing(301)).await.unwrap().applied);
    assert_eq!(one(game, &nothing(45)).await, Err(Refusal::ActionTooOld));
    assert!(!one(game, &nothing(300)).await.unwrap().applied);
    assert!(matches!(one(game, &nothing(0)).await, Err(Refusal::Invalid(_))));
}

async fn action_id_far_ahead_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let nothing =
        |id| HardAction { action: Some(action_id(&ada, id)), fences: vec![fence(&ada)], ..action("nothing") };
    for id in [i64::MAX.unsigned_abs(), MAX_ACTION_GAP + 1] {
        assert_eq!(one(game, &nothing(id)).await, Err(Refusal::ActionTooFar { id, last: 0 }));
    }
    assert!(one(game, &nothing(1)).await.unwrap().applied, "the refused ids block nothing");
    assert!(one(game, &nothing(MAX_ACTION_GAP + 1)).await.unwrap().applied);
}

async fn stored_result_is_found_by_owner_only(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let minting = HardAction {
        mints: vec![MintItem { template: 9, count: 2, to: held_by(&ada), at: None }],
        ..drop_item(&ada, 300, 0)
    };
    let done = one(game, &minting).await.unwrap();
    let west = caller("west");
    let found = game.lookup_action(&west, &action_id(&ada, 300)).await.unwrap();
    assert_eq!((found.minted, found.character), (Some(done.minted), done.characters[0].clone()));
    assert_eq!(game.lookup_action(&west, &action_id(&ada, 299)).await.unwrap().minted, None);
    assert_eq!(game.lookup_action(&west, &action_id(&ada, 301)).await.unwrap().minted, None);
    let label = async |caller: &Caller, action: ActionId| {
        game.lookup_action(caller, &action).await.unwrap_err().label()
    };
    let other = ActionId { digest: [0; 16], ..action_id(&ada, 300) };
    assert_eq!(label(&west, other).await, "action_conflict");
    assert_eq!(label(&west, action_id(&ada, 44)).await, "action_too_old");
    assert_eq!(label(&caller("east"), action_id(&ada, 300)).await, "forbidden");
    let foreign = Caller::Zone { world: WorldId(2), name: "west".to_owned() };
    assert_eq!(label(&foreign, action_id(&ada, 300)).await, "forbidden");
}

async fn ground_is_read_in_pages(game: &Game) {
    let mint = |number: u32| HardAction {
        once: Some(OnceKey { world: WORLD, spawn: spawn(number), generation: 1 }),
        mints: (0..7)
            .map(|number| {
                let at = Position::flat(SpaceId(1), 500_000 + number, 512_000 + number % 3);
                MintItem { template: number as u32 + 1, count: 1, to: ground(), at: Some(at) }
            })
            .collect(),
        ..action("loot")
    };
    let mut minted = Vec::new();
    for number in 1..=3 {
        minted.extend(one(game, &mint(number)).await.unwrap().minted);
    }
    let rect = CellRect { space: SpaceId(1), x0: 0, y0: 0, x1: 32, y1: 32 };
    for limit in [1, 2, 3, 7, 21, 22] {
        let (mut items, mut spawns, mut after, mut pages) = (Vec::new(), Vec::new(), None, 0);
        loop {
            let page = game.load_ground(WORLD, rect, after, limit).await.unwrap();
            assert!(page.items.len() <= limit && page.generations.len() <= limit);
            items.extend(page.items.iter().map(|found| found.item.id));
            spawns.extend(page.generations);
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        items.sort_unstable();
        assert_eq!((&items, &spawns), (&minted, &vec![(1, 1), (2, 1), (3, 1)]), "limit {limit}");
        assert!(pages >= 21 / limit, "limit {limit}: {pages} pages");
    }
}

async fn spaces_share_no_ground_and_no_generation(game: &Game) {
    let loot = |space| HardAction {
        once: Some(OnceKey {
            world: WORLD,
            spawn: SpawnId { space: SpaceId(space), number: 1 },
            generation: 4,
        }),
        mints: vec![MintItem {
            template: 1,
            count: 1,
            to: Holder::Ground(WORLD, Position::flat(SpaceId(space), 40_000, 0).cell()),
            at: Some(Position { layer: Layer(3), z_mm: 5_000, ..Position::flat(SpaceId(space), 40_000, 0) }),
        }],
        ..action("loot")
    };
    let minted = one(game, &loot(1)).await.unwrap();
    assert!(minted.applied);
    assert!(one(game, &loot(70_000)).await.unwrap().applied, "the same spawn number in another space");
    assert!(!one(game, &loot(1)).await.unwrap().applied);
    let rect = |space| CellRect { space: SpaceId(space), x0: 0, y0: 0, x1: 32, y1: 32 };
    let here = game.load_ground(WORLD, rect(1), None, 100).await.unwrap();
    let found: Vec<_> = here.items.iter().map(|found| (found.item.id, found.position)).collect();
    assert_eq!(found, [(minted.minted[0], loot(1).mints[0].at.unwrap())]);
    assert_eq!(here.generations, [(1, 4)].into());
    assert_eq!(game.load_ground(WORLD, rect(2), None, 100).await.unwrap(), GroundPage::default());
}

async fn full_inventory_takes_no_more_stacks(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let mut id = 0;
    let mut fill = |count: usize| {
        id += 1;
        let stack = MintItem { template: 1, count: 1, to: held_by(&ada), at: None };
        HardAction {
            action: Some(action_id(&ada, id)),
            fences: vec![fence(&ada)],
            mints: vec![stack; count],
            ..action("gift")
        }
    };
    let mut stacks = ada.items.len();
    while stacks < MAX_STACKS {
        let count = 256.min(MAX_STACKS - stacks);
        assert!(one(game, &fill(count)).await.unwrap().applied);
        stacks += count;
    }
    assert_eq!(one(game, &fill(1)).await, Err(Refusal::InventoryFull(ada.id)));
    assert!(
        one(game, &HardAction { mints: fill(1).mints, ..drop_item(&ada, 500, 0) }).await.unwrap().applied
    );
    assert_eq!(load(game, ada.id).await.items.len(), MAX_STACKS);
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
        ..action("trade")
    }
}

async fn trade_is_atomic(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    assert_eq!(one(game, &trade(&ada, &bob, 101)).await, Err(Refusal::InsufficientCoins(held_by(&bob))));
    assert_eq!(load(game, ada.id).await, ada, "nothing has happened");
    let action = trade(&ada, &bob, 100);
    let done = one(game, &action).await.unwrap();
    assert_eq!(done.characters.iter().map(|one| one.coins).collect::<Vec<_>>(), [200, 0]);
    assert!(
        done.characters[0].items.contains(&bob.items[1]) && done.characters[1].items.contains(&ada.items[0])
    );
    // The zone submits the same trade with the partner's action first.
    let mirrored = HardAction {
        action: action.other_actions.first().copied(),
        other_actions: action.action.into_iter().collect(),
        ..action
    };
    assert!(!one(game, &mirrored).await.unwrap().applied);
    // A confirmation of one trade cannot confirm another.
    let mut second = trade(&ada, &bob, 1);
    second.action = Some(action_id(&ada, 2));
    assert_eq!(one(game, &second).await, Err(Refusal::ActionConflict));
    assert_conserved(game).await;
}

async fn loot_is_minted_once_per_generation(game: &Game) {
    let loot = |generation| HardAction {
        once: Some(OnceKey { world: WORLD, spawn: spawn(5), generation }),
        mints: vec![MintItem { template: 3, count: 1, to: ground(), at: Some(drop_position()) }],
        coins: vec![MoveCoins { from: Holder::Mint("loot".to_owned()), to: ground(), amount: 7 }],
        ..action("loot")
    };
    let same = loot(1);
    let (first, second) = tokio::join!(one(game, &same), one(game, &same));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.applied != second.applied, "two zones cannot both mint it");
    assert_eq!(first.minted, second.minted);
    assert!(one(game, &loot(2)).await.unwrap().applied);
    let late = one(game, &loot(1)).await.unwrap();
    assert_eq!((late.applied, late.minted.len()), (false, 0));
    let rect = CellRect { space: SpaceId(1), x0: 0, y0: 0, x1: 32, y1: 32 };
    let found = game.load_ground(WORLD, rect, None, 10).await.unwrap();
    assert_eq!((found.items.len(), found.generations), (2, [(5, 2)].into()));
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
    assert_eq!(one(game, &action).await.unwrap_err().label(), "forbidden");
    let foreign = Caller::Zone { world: WorldId(2), name: "west".to_owned() };
    let action = HardAction { caller: foreign, items: Vec::new(), ..drop_item(&ada, 1, 0) };
    assert_eq!(one(game, &action).await.unwrap_err().label(), "forbidden");
    let mut action = drop_item(&ada, 1, 0);
    action.items[0].item = ItemId(77);
    action.fences[0].epoch = Epoch(50);
    assert_eq!(one(game, &action).await.unwrap_err().label(), "stale_epoch");
}

async fn action_on_character_of_another_zone_is_refused(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let east = Caller::clone(&caller("east"));
    let burn = HardAction {
        caller: east.clone(),
        coins: vec![MoveCoins { from: held_by(&ada), to: Holder::Burn("fee".to_owned()), amount: 1 }],
        ..drop_item(&ada, 1, 0)
    };
    assert_eq!(one(game, &burn).await.unwrap_err().label(), "forbidden");
    assert_eq!(
        one(game, &HardAction { caller: east.clone(), ..trade(&ada, &bob, 1) }).await.unwrap_err().label(),
        "forbidden"
    );
    // A repeat shows nothing of a character of another zone.
    assert!(one(game, &drop_item(&ada, 1, 0)).await.unwrap().applied);
    let repeat = one(game, &HardAction { caller: east, ..drop_item(&ada, 1, 0) }).await.unwrap();
    assert_eq!((repeat.applied, repeat.characters), (false, vec![]));
    assert_eq!(assert_conserved(game).await.coins, 200);
}

async fn border_reward_is_the_only_way_to_another_zone(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let loot = |zone: &str, generation| HardAction {
        caller: Caller::clone(&caller(zone)),
        once: Some(OnceKey { world: WORLD, spawn: spawn(5), generation }),
        reward: Some(Reward { fence: fence(&ada), coins: 3, experience: 30 }),
        ..action("loot")
    };
    let own = one(game, &loot("west", 1)).await.unwrap();
    assert_eq!((own.border_reward, own.characters[0].coins, own.characters[0].experience), (false, 103, 30));
    let other = one(game, &loot("east", 2)).await.unwrap();
    assert_eq!((other.border_reward, other.characters), (true, vec![]));
    assert!(!one(game, &loot("east", 2)).await.unwrap().applied);
    assert_eq!((load(game, ada.id).await.coins, load(game, ada.id).await.experience), (106, 60));
    let reasons =
        game.database().fetch_all(sql("SELECT reason FROM coin_journal ORDER BY id")).await.unwrap();
    let reasons: Vec<String> = reasons.into_iter().map(|mut row| row.take().unwrap()).collect();
    assert_eq!(reasons, ["starter", "loot", "border_reward"], "the ledger names the exception");

    let stale = Reward { fence: Fence { epoch: Epoch(9), ..fence(&ada) }, coins: 3, experience: 0 };
    let stale = HardAction { reward: Some(stale), ..loot("east", 3) };
    assert_eq!(one(game, &stale).await.unwrap_err().label(), "stale_epoch");
    let foreign = Caller::Zone { world: WorldId(2), name: "east".to_owned() };
    let foreign = HardAction {
        caller: foreign,
        once: Some(OnceKey { world: WorldId(2), spawn: spawn(5), generation: 3 }),
        ..loot("east", 3)
    };
    assert_eq!(one(game, &foreign).await.unwrap_err().label(), "forbidden");
    let without_once = HardAction { once: None, action: Some(action_id(&ada, 1)), ..loot("west", 3) };
    assert_eq!(one(game, &without_once).await.unwrap_err().label(), "invalid");
    let negative = Reward { fence: fence(&ada), coins: -1, experience: 0 };
    let negative = HardAction { reward: Some(negative), ..loot("east", 3) };
    assert_eq!(one(game, &negative).await.unwrap_err().label(), "invalid");
    assert_conserved(game).await;
}

//! Tests of characters, their owners, soft state and leadership.

use shardkeep_types::Epoch;

use super::*;

on_both_engines! {
    new_character_has_starting_items,
    character_name_that_looks_like_another_is_taken,
    claim_requires_current_term,
    transfer_is_idempotent,
    reown_moves_characters_of_dead_zone,
    released_character_has_no_owner,
    caller_of_another_world_is_refused,
    soft_state_requires_current_epoch,
    soft_state_requires_owner,
    older_soft_state_never_replaces_newer_one,
    leadership_has_one_holder,
}

async fn new_character_has_starting_items(game: &Game) {
    let created = game.create(&new_character("Ada")).await.unwrap();
    assert_eq!(
        (created.coins, created.items.len(), created.owner.clone(), created.epoch),
        (100, 2, None, Epoch(0))
    );
    let bare = Character { items: Vec::new(), coins: 0, ..created.clone() };
    assert_eq!(game.list(AccountId(1), WORLD).await.unwrap(), [bare], "a list has no items");
    assert_eq!(load(game, created.id).await, created);
    assert!(game.list(AccountId(2), WORLD).await.unwrap().is_empty());
    let found = assert_conserved(game).await;
    assert_eq!((found.items, found.items_minted, found.coins, found.coins_minted), (2, 2, 100, 100));
    let missing = game.load(CharacterId(99), &caller("west")).await.unwrap_err();
    assert_eq!(missing.label(), "no_such_character");
}

async fn character_name_that_looks_like_another_is_taken(game: &Game) {
    game.create(&new_character("Ärger")).await.unwrap();
    // Another case, and a Cyrillic letter in place of the first `e`.
    for name in ["äRGER", "Ärg\u{435}r"] {
        assert_eq!(game.create(&new_character(name)).await.unwrap_err().label(), "name_taken");
    }
    let elsewhere = NewCharacter { world: WorldId(2), ..new_character("ärger") };
    game.create(&elsewhere).await.unwrap();
    let full = NewCharacter { limit: 1, ..new_character("Second") };
    assert_eq!(game.create(&full).await.unwrap_err().label(), "too_many_characters");
    assert_eq!(assert_conserved(game).await.items, 4);
}

async fn claim_requires_current_term(game: &Game) {
    let created = game.create(&new_character("Ada")).await.unwrap();
    assert_eq!(game.claim(&claim(&created, Term(1))).await.unwrap_err().label(), "stale_term");
    let old = term(game).await;
    let first = game.claim(&claim(&created, old)).await.unwrap();
    assert_eq!((first.epoch, first.owner.clone()), (Epoch(1), Some(zone("west"))));
    assert_eq!(first.session, Some(SessionId([9; 16])));
    assert_eq!(game.claim(&claim(&created, old)).await.unwrap().epoch, Epoch(2));
    let restarted =
        LeadershipBid { world: WORLD, holder: "world-1".to_owned(), incarnation: 2, ttl_ms: 60_000 };
    assert_eq!(game.lead(&restarted).await.unwrap().term, old.next());
    let refused = game.claim(&claim(&created, old)).await.unwrap_err();
    assert!(matches!(refused, GameError::Refused(Refusal::StaleTerm(now)) if now == old.next()), "{refused}");
    let stranger = Claim { account: AccountId(5), ..claim(&created, old.next()) };
    assert_eq!(game.claim(&stranger).await.unwrap_err().label(), "no_such_character");
}

async fn transfer_is_idempotent(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let position = Position::flat(SpaceId(1), 1, 2);
    let soft = SoftState { character: ada.id, epoch: ada.epoch, sequence: 1, position, facing: 3, health: 4 };
    let transfer = Transfer {
        caller: caller("west"),
        character: ada.id,
        epoch: ada.epoch,
        from: zone("west"),
        to: zone("east"),
        soft: Some(soft),
    };
    assert_eq!(game.transfer(&transfer).await.unwrap(), ada.epoch.next());
    assert_eq!(game.transfer(&transfer).await.unwrap(), ada.epoch.next(), "a repeat is answered");
    let there = load(game, ada.id).await;
    assert_eq!((there.owner, there.position.x_mm, there.health), (Some(zone("east")), 1, 4));
    let elsewhere = Transfer { to: zone("north"), ..transfer };
    let refused = game.transfer(&elsewhere).await.unwrap_err();
    assert!(
        matches!(refused, GameError::Refused(Refusal::StaleEpoch { epoch, .. }) if epoch == ada.epoch.next())
    );
}

async fn reown_moves_characters_of_dead_zone(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let term = term(game).await;
    let transfer = Transfer {
        caller: caller("west"),
        character: bob.id,
        epoch: bob.epoch,
        from: zone("west"),
        to: zone("east"),
        soft: None,
    };
    game.transfer(&transfer).await.unwrap();
    let reown = Reown { world: WORLD, term, from: zone("west"), to: zone("east") };
    let earlier = Reown { from: Owner { incarnation: 6, ..zone("west") }, ..reown.clone() };
    assert!(game.reown(&earlier).await.unwrap().is_empty(), "a later incarnation lives");
    let moved = game.reown(&reown).await.unwrap();
    assert_eq!(moved.len(), 1);
    let expected = Reowned { character: ada.id, epoch: ada.epoch.next(), session: ada.session };
    assert_eq!(moved[0], expected);
    assert!(game.reown(&reown).await.unwrap().is_empty());
    let stale = Reown { term: Term(term.0 - 1), ..reown };
    assert_eq!(game.reown(&stale).await.unwrap_err().label(), "stale_term");
}

async fn released_character_has_no_owner(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let release = Release { caller: caller("west"), character: ada.id, epoch: ada.epoch, soft: None };
    game.release(&release).await.unwrap();
    game.release(&release).await.unwrap();
    let free = load(game, ada.id).await;
    assert_eq!((free.owner, free.epoch), (None, ada.epoch.next()));
    let late = one(game, &drop_item(&ada, 1, 0)).await;
    assert_eq!(late.unwrap_err().label(), "stale_epoch");
    game.claim(&claim(&ada, term(game).await)).await.unwrap();
    assert_eq!(game.release(&release).await.unwrap_err().label(), "stale_epoch");
}

async fn caller_of_another_world_is_refused(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let foreign = Arc::new(Caller::Zone { world: WorldId(2), name: "west".to_owned() });
    assert_eq!(game.load(ada.id, &foreign).await.unwrap_err().label(), "forbidden");
    assert_eq!(game.load(ada.id, &Caller::World(WorldId(2))).await.unwrap_err().label(), "forbidden");
    let transfer = Transfer {
        caller: foreign.clone(),
        character: ada.id,
        epoch: ada.epoch,
        from: zone("west"),
        to: zone("east"),
        soft: None,
    };
    assert_eq!(game.transfer(&transfer).await.unwrap_err().label(), "forbidden");
    for caller in [foreign, Arc::new(Caller::World(WorldId(2))), caller("east")] {
        let release = Release { caller, character: ada.id, epoch: ada.epoch, soft: None };
        assert_eq!(game.release(&release).await.unwrap_err().label(), "forbidden");
    }
    assert_eq!(load(game, ada.id).await, ada, "nothing has changed");
    let world = Arc::new(Caller::World(WORLD));
    let release = Release { caller: world, character: ada.id, epoch: ada.epoch, soft: None };
    game.release(&release).await.unwrap();
}

fn soft(of: &Character, epoch: u64, sequence: u64, x_mm: i32) -> SoftWrite {
    let position = Position::flat(SpaceId(1), x_mm, 0);
    let state =
        SoftState { character: of.id, epoch: Epoch(epoch), sequence, position, facing: 1, health: 50 };
    SoftWrite { caller: caller("west"), state }
}

async fn soft_state_requires_current_epoch(game: &Game) {
    let (ada, bob) = (create_claimed(game, "Ada").await, create_claimed(game, "Bob").await);
    let writes = [soft(&ada, 1, 1, 10), soft(&ada, 1, 2, 11), soft(&bob, 0, 1, 20), soft(&ada, 0, 3, 12)];
    let stale = Err(SoftRefusal::StaleEpoch);
    assert_eq!(game.save_soft(&writes).await.unwrap(), [Ok(()), Ok(()), stale, stale]);
    assert_eq!(load(game, ada.id).await.position.x_mm, 11);
    assert_eq!(load(game, bob.id).await.position, drop_position());
    let missing = Character { id: CharacterId(99), ..ada };
    assert_eq!(game.save_soft(&[soft(&missing, 1, 1, 1)]).await.unwrap(), [stale]);
    assert!(game.save_soft(&[]).await.unwrap().is_empty());
}

async fn soft_state_requires_owner(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    let foreign = Arc::new(Caller::Zone { world: WorldId(2), name: "west".to_owned() });
    let by = |caller| SoftWrite { caller, ..soft(&ada, 1, 9, 66) };
    let writes = [by(caller("east")), by(foreign), soft(&ada, 1, 1, 10)];
    let forbidden = Err(SoftRefusal::Forbidden);
    assert_eq!(game.save_soft(&writes).await.unwrap(), [forbidden, forbidden, Ok(())]);
    assert_eq!(load(game, ada.id).await.position.x_mm, 10);
}

async fn older_soft_state_never_replaces_newer_one(game: &Game) {
    let ada = create_claimed(game, "Ada").await;
    assert_eq!(game.save_soft(&[soft(&ada, 1, 2, 20)]).await.unwrap(), [Ok(())]);
    assert_eq!(game.save_soft(&[soft(&ada, 1, 1, 10)]).await.unwrap(), [Err(SoftRefusal::Superseded)]);
    assert_eq!(load(game, ada.id).await.position.x_mm, 20);
    assert_eq!(game.save_soft(&[soft(&ada, 1, 2, 20)]).await.unwrap(), [Ok(())], "a repeat is written");
    let next = game.claim(&claim(&ada, term(game).await)).await.unwrap();
    let first = soft(&ada, next.epoch.0, 1, 30);
    assert_eq!(game.save_soft(&[first]).await.unwrap(), [Ok(())], "each epoch begins with a new sequence");
    assert_eq!(load(game, ada.id).await.position.x_mm, 30);
}

async fn leadership_has_one_holder(game: &Game) {
    let bid = |holder: &str, incarnation, ttl_ms| LeadershipBid {
        world: WORLD,
        holder: holder.to_owned(),
        incarnation,
        ttl_ms,
    };
    let first = game.lead(&bid("world-1", 1, 60_000)).await.unwrap();
    assert_eq!((first.leader, first.term), (true, Term(1)));
    let other = game.lead(&bid("world-2", 5, 60_000)).await.unwrap();
    assert_eq!((other.leader, other.holder.as_str(), other.term), (false, "world-1", Term(1)));
    assert!((1..=60_000).contains(&other.left_ms), "{}", other.left_ms);
    assert_eq!(game.lead(&bid("world-1", 1, 60_000)).await.unwrap().term, Term(1), "renewing keeps the term");
    assert!(game.lead(&bid("world-1", 1, 0)).await.unwrap().leader, "giving up");
    let next = game.lead(&bid("world-2", 5, 60_000)).await.unwrap();
    assert_eq!((next.leader, next.term), (true, Term(2)));
    assert!(!game.lead(&bid("world-1", 1, 60_000)).await.unwrap().leader);
    let zombie = game.lead(&bid("world-2", 4, 60_000)).await.unwrap();
    assert!(!zombie.leader, "an earlier incarnation is not the holder");
    assert_eq!(game.lead(&bid("world-2", 6, 60_000)).await.unwrap().term, Term(3));
}

//! After a connection is cut, the session continues where it stopped, and each request takes effect once.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::wire::{
    opcode,
    payload::{Committed, Drop, ErrorCode},
};
use shardkeep_stories::{Actor, TIMEOUT, meet, shared};

#[tokio::test]
async fn trade_completes_across_cut_connections() -> Result<()> {
    let cluster = shared().await?;
    let ann = Actor::enter(cluster, "ann").await?;
    let bob = Actor::enter(cluster, "bob").await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;
    meet(&ann, &bob).await?;
    let (anns, bobs) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    let item = *anns.1.first().context("nothing to give")?;

    let trade = ann.player.invite(bob.entity()?).await?;
    ann.player.session().drop_connection().await?;
    bob.player.answer(trade, true).await?;
    ann.player.offer(trade, vec![item], 0).await?;
    bob.player.session().drop_connection().await?;
    let revision = bob.player.offer(trade, Vec::new(), 1).await?.revision;
    let (gave, took, anns_cut, bobs_cut) = tokio::join!(
        ann.player.confirm(trade, revision),
        bob.player.confirm(trade, revision),
        ann.player.session().drop_connection(),
        bob.player.session().drop_connection(),
    );
    for drop_connection in [anns_cut, bobs_cut] {
        drop_connection?;
    }
    for confirmed in [gave, took] {
        confirmed?;
    }

    let (anns_now, bobs_now) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    ensure!(anns_now.0 == anns.0 + 1 && bobs_now.0 == bobs.0 - 1, "coins: {} and {}", anns_now.0, bobs_now.0);
    ensure!(bobs_now.1.contains(&item) && !anns_now.1.contains(&item), "item {item} did not change hands");
    ensure!(
        anns_now.1.len() + bobs_now.1.len() == anns.1.len() + bobs.1.len(),
        "an item was lost or doubled"
    );
    for actor in [&ann, &bob] {
        let counts = actor.player.session().counts();
        ensure!(counts.losses >= 2 && counts.fresh_resumes == 0, "{counts:?}");
    }
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

#[tokio::test]
async fn repeated_action_gives_the_same_reply() -> Result<()> {
    let cluster = shared().await?;
    let ann = Actor::enter(cluster, "ann").await?;
    let session = ann.player.session();
    let (_, items) = ann.coins_and_items().await?;
    let (item_id, other) = (items[0], items[1]);
    let action_id = ann.player.next_action();

    let drop = Drop { action_id, item_id };
    let first: Committed = session.call(opcode::DROP, &drop, TIMEOUT).await?;
    session.drop_connection().await?;
    let again: Committed = session.call(opcode::DROP, &drop, TIMEOUT).await?;
    ensure!(again == first, "{again:?} after {first:?}");
    let (_, left) = ann.coins_and_items().await?;
    ensure!(!left.contains(&item_id) && left.len() == items.len() - 1, "it was dropped once");

    let conflict = Drop { action_id, item_id: other };
    let refused = session.call::<Committed>(opcode::DROP, &conflict, TIMEOUT).await;
    let code = refused.as_ref().err().and_then(shardkeep_client::ClientError::code);
    ensure!(code == Some(ErrorCode::ActionConflict), "the same number for something else: {refused:?}");
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

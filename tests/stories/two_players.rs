//! Two players find each other: they see, hear, and trade, whatever gateway and zone each is on.

use anyhow::{Result, ensure};
use shardkeep_client::game::GameEvent;
use shardkeep_stories::{Actor, StoreBackend, shared, trade};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn two_players_see_hear_and_trade() -> Result<()> {
    see_hear_and_trade(shared().await?).await
}

#[tokio::test]
async fn two_players_see_hear_and_trade_on_postgres_and_redis() -> Result<()> {
    let backing = StoreBackend::servers().await;
    let cluster = Cluster::start_with(backing.stores(), None).await?;
    see_hear_and_trade(&cluster).await?;
    cluster.stop().await
}

async fn see_hear_and_trade(cluster: &Cluster) -> Result<()> {
    let ann = Actor::enter(cluster, "ann").await?;
    let mut bob = Actor::enter(cluster, "bob").await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;

    ann.player.say("hello there").await?;
    let from = bob.wait_until("a greeting", |it| match it {
        GameEvent::ChatMessage(message) if message.text == "hello there" => Some(message.from.clone()),
        _ => None,
    });
    ensure!(from.await?.eq_ignore_ascii_case(&ann.name));

    let (anns, bobs) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    let item = trade(&ann, &bob).await?;
    let (anns_now, bobs_now) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    ensure!(bobs_now.1.contains(&item) && !anns_now.1.contains(&item), "item {item} did not change hands");
    ensure!((anns_now.0, bobs_now.0) == (anns.0 + 1, bobs.0 - 1), "the coin did not change hands");
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

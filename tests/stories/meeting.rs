//! Two players find each other: they see, hear, and trade, whatever gateway and zone each is on.

use anyhow::{Result, ensure};
use shardkeep_client::game::Happening;
use shardkeep_stories::{Actor, Backing, shared, trade};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn neighbours_see_hear_and_trade() -> Result<()> {
    meet(shared().await?).await
}

#[tokio::test]
async fn the_same_on_postgres_and_redis() -> Result<()> {
    let backing = Backing::servers().await;
    let cluster = Cluster::start_with(backing.stores(), None).await?;
    meet(&cluster).await?;
    cluster.stop().await
}

async fn meet(cluster: &Cluster) -> Result<()> {
    let ann = Actor::enter(cluster, "ann").await?;
    let mut bob = Actor::enter(cluster, "bob").await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;

    ann.player.say("hello there").await?;
    let from = bob.until("a greeting", |it| match it {
        Happening::Heard(heard) if heard.text == "hello there" => Some(heard.from.clone()),
        _ => None,
    });
    ensure!(from.await?.eq_ignore_ascii_case(&ann.name));

    let (anns, bobs) = (ann.belongings().await?, bob.belongings().await?);
    let gift = trade(&ann, &bob).await?;
    let (anns_now, bobs_now) = (ann.belongings().await?, bob.belongings().await?);
    ensure!(bobs_now.1.contains(&gift) && !anns_now.1.contains(&gift), "item {gift} did not change hands");
    ensure!((anns_now.0, bobs_now.0) == (anns.0 + 1, bobs.0 - 1), "the coin did not change hands");
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

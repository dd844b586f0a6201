//! It does not matter through which gateway a player came: they see, hear and trade with each other.

use anyhow::{Result, ensure};
use shardkeep_client::game::Happening;
use shardkeep_stories::{Actor, shared, trade};

#[tokio::test]
async fn players_of_two_gateways_meet() -> Result<()> {
    let cluster = shared().await?;
    let one = cluster.announced("gateway-1")?.client;
    let ann = Actor::enter_through(cluster, "ann", |gateway| gateway == one).await?;
    let mut bob = Actor::enter_through(cluster, "bob", |gateway| gateway != one).await?;
    ensure!(ann.player.session().gateway() != bob.player.session().gateway());
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;

    ann.player.say("across").await?;
    bob.until("a greeting", |it| {
        matches!(it, Happening::Heard(heard) if heard.text == "across").then_some(())
    })
    .await?;
    ann.player.whisper(&bob.name, "just for you").await?;
    bob.until("a whisper", |it| {
        matches!(it, Happening::Heard(heard) if heard.text == "just for you").then_some(())
    })
    .await?;

    let gift = trade(&ann, &bob).await?;
    ensure!(bob.belongings().await?.1.contains(&gift) && !ann.belongings().await?.1.contains(&gift));
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

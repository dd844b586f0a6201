//! It does not matter through which gateway a player came: they see, hear and trade with each other.

use anyhow::{Result, ensure};
use shardkeep_client::game::GameEvent;
use shardkeep_stories::{Actor, shared, trade};

#[tokio::test]
async fn players_on_two_gateways_see_hear_and_trade() -> Result<()> {
    let cluster = shared().await?;
    let one = cluster.announcement("gateway-1")?.client;
    let ann = Actor::enter_through(cluster, "ann", |gateway| gateway == one).await?;
    let mut bob = Actor::enter_through(cluster, "bob", |gateway| gateway != one).await?;
    ensure!(ann.player.session().gateway() != bob.player.session().gateway());
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;

    ann.player.say("across").await?;
    bob.wait_until("a greeting", |it| {
        matches!(it, GameEvent::ChatMessage(message) if message.text == "across").then_some(())
    })
    .await?;
    ann.player.whisper(&bob.name, "just for you").await?;
    bob.wait_until("a whisper", |it| {
        matches!(it, GameEvent::ChatMessage(message) if message.text == "just for you").then_some(())
    })
    .await?;

    let item = trade(&ann, &bob).await?;
    ensure!(
        bob.coins_and_items().await?.1.contains(&item) && !ann.coins_and_items().await?.1.contains(&item)
    );
    ensure!(cluster.ledger().await?.holds);
    Ok(())
}

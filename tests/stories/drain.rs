//! A gateway that is taken down sends its players to another one; they keep their sessions and play on.

use anyhow::{Result, ensure};
use shardkeep_client::game::Happening;
use shardkeep_stories::{Actor, trade};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn players_of_a_leaving_gateway_move_to_another() -> Result<()> {
    let cluster = Cluster::start().await?;
    let one = cluster.announced("gateway-1")?.client;
    let mut moved = Actor::enter_through(&cluster, "moved", |gateway| gateway == one).await?;
    let stays = Actor::enter_through(&cluster, "stays", |gateway| gateway != one).await?;
    stays.sees(&moved).await?;
    let (session, had) = (moved.player.session().id(), moved.belongings().await?);

    let leaving = cluster.drain("gateway-1")?;
    let continued = moved.until("the new connection", |it| match it {
        Happening::Resumed { continued } => Some(*continued),
        _ => None,
    });
    ensure!(continued.await?, "nothing that was said is lost in a move");
    let counts = moved.player.session().counts();
    ensure!(counts.redirects == 1 && counts.losses == 1, "{counts:?}");
    ensure!(moved.player.session().id() == session && moved.player.session().gateway() != one);

    ensure!(moved.belongings().await? == had);
    moved.sees(&stays).await?;
    trade(&moved, &stays).await?;
    ensure!(stays.player.session().counts().losses == 0);
    cluster.healed(&leaving).await?;
    Actor::enter_through(&cluster, "later", |gateway| gateway == one).await?;
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}

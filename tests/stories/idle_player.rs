//! An avatar that stands still causes no traffic. New players see it from both sides of the border.

use anyhow::Result;
use shardkeep_stories::{Actor, shared};

#[tokio::test]
async fn newcomer_sees_idle_players_across_border() -> Result<()> {
    let cluster = shared().await?;
    let west = Actor::enter(cluster, "west").await?;
    let east = Actor::enter(cluster, "east").await?;
    west.walk_to(507, 512).await?;
    east.walk_to(517, 512).await?;
    west.sees(&east).await?;
    east.sees(&west).await?;

    let newcomer = Actor::enter(cluster, "newcomer").await?;
    newcomer.sees(&west).await?;
    newcomer.sees(&east).await?;

    // The newcomer logs out on the other side of the border and enters again there. It must see both idle players.
    newcomer.walk_to(520, 512).await?;
    newcomer.player.logout().await;
    let returned = Actor::enter_as(cluster, &newcomer.name).await?;
    returned.sees(&east).await?;
    returned.sees(&west).await?;
    west.sees(&returned).await?;
    east.sees(&returned).await
}

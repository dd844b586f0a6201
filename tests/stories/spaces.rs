//! Players go to another space, play there, and return when it closes. Two spaces may share a zone.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::game::View;
use shardkeep_stories::{Actor, TIMEOUT};
use shardkeep_testkit::{Cluster, wait_until};

#[tokio::test]
async fn players_play_in_another_space_and_leave_it_when_it_closes() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    let bob = Actor::enter(&cluster, "bob").await?;
    ann.sees(&bob).await?;
    let before = (ann.coins_and_items().await?, bob.coins_and_items().await?);

    let absent = teleport(&cluster, &ann, 2, "128").await.expect_err("there is no space 2");
    ensure!(absent.to_string().contains("no such space"), "{absent}");
    let unknown = cluster.run_cli(&["gm", "space", "create", "rink", "--reason", "an event"], "").await;
    let unknown = unknown.expect_err("there is no such map").to_string();
    ensure!(unknown.contains("meadow, gorge, ring"), "{unknown}");

    // Two instances of one map. One zone may get both: they still have nothing in common.
    for _ in 0..2 {
        cluster.run_cli(&["gm", "space", "create", "ring", "--reason", "an event"], "").await?;
    }
    for (player, space) in [(&ann, 2), (&bob, 3)] {
        arrive(&cluster, player, space).await?;
    }
    let strangers =
        ann.player.with_view(|view| view.others().filter(|other| other.id.as_character().is_some()).count());
    ensure!(strangers == 0, "{strangers} avatars of another space are in sight");
    arrive(&cluster, &bob, 2).await?;
    ann.sees(&bob).await?;
    bob.sees(&ann).await?;

    // An item on the ground of a space stays in that space.
    let item = *ann.coins_and_items().await?.1.first().context("ann has nothing to drop")?;
    ann.player.drop_item(item).await?;
    let taken = bob
        .player
        .wait_until(TIMEOUT, |view| view.nearest(|it| it.id.as_item().is_some()).map(|it| it.id))
        .await
        .context("bob does not see the item")?;
    bob.player.pick_up(taken).await?;

    cluster.run_cli(&["gm", "space", "close", "2", "--reason", "the event is over"], "").await?;
    for player in [&ann, &bob] {
        placed_in(player, 1).await?;
    }
    ann.sees(&bob).await?;
    wait_until("space 2 is gone", async || {
        let spaces = cluster.run_cli(&["gm", "space", "list"], "").await?;
        Ok((!spaces.contains("space 2 ")).then_some(()))
    })
    .await?;

    let after = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    ensure!(after.0.0 == before.0.0 && after.1.0 == before.1.0, "coins were lost or doubled");
    ensure!(after.0.1.len() + 1 == before.0.1.len() && after.1.1.len() == before.1.1.len() + 1);
    ensure!(after.1.1.contains(&item), "bob has the item that ann dropped");
    for player in [&ann, &bob] {
        ensure!(player.player.session().counts().losses == 0, "{} stays connected", player.name);
    }
    let ledger = cluster.ledger().await?;
    ensure!(ledger.holds, "{ledger:?}");
    cluster.stop().await
}

/// Moves a player to a space that was just created.
async fn arrive(cluster: &Cluster, player: &Actor, space: u32) -> Result<()> {
    wait_until("the space has a zone", async || match teleport(cluster, player, space, "128").await {
        Ok(_) => Ok(Some(())),
        Err(error) if error.to_string().contains("no such space") => Ok(None),
        Err(error) if error.to_string().contains("try again") => Ok(None),
        // The world waits for the report of the zone.
        Err(error) if error.to_string().contains("is not online") => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    placed_in(player, space).await
}

async fn teleport(cluster: &Cluster, player: &Actor, space: u32, x_m: &str) -> Result<String> {
    let space = space.to_string();
    let command = ["gm", "teleport", &player.name, x_m, "128", "--space", &space, "--reason", "an event"];
    cluster.run_cli(&command, "").await
}

async fn placed_in(player: &Actor, space: u32) -> Result<()> {
    let placed = |view: &View| {
        let here = view.placed.as_ref().is_some_and(|placed| placed.space == space);
        (here && view.position().is_some_and(|at| at.space.0 == space)).then_some(())
    };
    let arrived = player.player.wait_until(TIMEOUT, placed).await;
    arrived.with_context(|| format!("{} is not in space {space}", player.name))
}

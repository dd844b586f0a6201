//! A walker goes over the border between two zones again and again, turning as soon as the other zone has it, and
//! comes out with what it had.

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::{Actor, TIMEOUT, shared};

/// As fast as the server lets anybody walk.
const SPEED: i16 = 6_000;

#[tokio::test]
async fn border_crossing_keeps_inventory_and_session() -> Result<()> {
    cross_border(30).await
}

#[tokio::test]
#[ignore = "takes minutes: make test-long"]
async fn border_crossing_two_hundred_times() -> Result<()> {
    cross_border(200).await
}

async fn cross_border(times: u32) -> Result<()> {
    let cluster = shared().await?;
    let walker = Actor::enter(cluster, "walker").await?;
    walker.walk_to(509, 512).await?;
    let before = walker.coins_and_items().await?;

    let placed = walker.player.with_view(|view| view.placed.clone()).unwrap_or_default();
    let (mut epoch, mut zone) = (placed.epoch, placed.zone);
    for crossing in 1..=times {
        walker.player.walk(if crossing % 2 == 1 { SPEED } else { -SPEED }, 0).await?;
        let placed = walker
            .player
            .wait_until(TIMEOUT, |view| view.placed.clone().filter(|placed| placed.zone != zone))
            .await
            .with_context(|| format!("crossing {crossing}, from {zone}"))?;
        ensure!(placed.epoch > epoch, "crossing {crossing}: epoch {} after {epoch}", placed.epoch);
        (epoch, zone) = (placed.epoch, placed.zone);
    }
    walker.player.stop().await?;
    ensure!(walker.coins_and_items().await? == before, "something was lost or doubled on the way");
    let counts = walker.player.session().counts();
    ensure!(counts.losses == 0, "the session did not hold: {counts:?}");
    let ledger = cluster.ledger().await?;
    ensure!(ledger.holds, "{ledger:?}");
    Ok(())
}

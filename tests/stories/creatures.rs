//! A wounded creature keeps its wound when operators move its sector, and when its zone dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{ClientError, game::View, wire::movement::EntityKind};
use shardkeep_stories::{Actor, TIMEOUT};
use shardkeep_testkit::{Cluster, wait_until};
use shardkeep_types::EntityId;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    loot::{ATTACK_COOLDOWN, approach},
    partition::{change, owned_by, placed_at, start_zone, teleport},
};

/// The template of a boar, which stands its ground.
const BOAR: u16 = 2;
const FIGHT_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn creature_keeps_its_wound_when_its_sector_moves_and_when_its_zone_dies() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let hunter = Actor::enter(&cluster, "hunter").await?;
    change(&cluster, &["split", "2", "--x", "24"]).await?;
    // Nothing starts this zone again.
    let mut third = start_zone(&cluster, "zone-3").await?;
    wait_until("zone-3 is up", async || match change(&cluster, &["move", "3", "zone-3"]).await {
        Ok(_) => Ok(Some(())),
        Err(error) if error.to_string().contains("zone-3") => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    owned_by(&cluster, 3, "zone-3").await?;
    teleport(&cluster, &hunter, "900").await?;
    placed_at(&hunter, "zone-3").await?;

    let boar = hunter.player.wait_until(TIMEOUT, |view| {
        view.nearest(|it| it.kind == EntityKind::Creature && it.template == BOAR && it.health > 0)
            .map(|it| it.id)
    });
    let boar = boar.await.context("no boar in sight")?;
    let wounded = wound(&hunter, boar).await?;

    for zone in ["zone-1", "zone-3"] {
        change(&cluster, &["move", "3", zone]).await?;
        owned_by(&cluster, 3, zone).await?;
        placed_at(&hunter, zone).await?;
        let health = health(&hunter, boar).await.with_context(|| format!("in {zone}"))?;
        ensure!(health <= wounded, "{zone} has healed it from {wounded} to {health}");
    }

    // The tick that showed the boar has also sent a snapshot to the buddy, because the boar had just come. A round trip
    // later it is there.
    hunter.coins_and_items().await?;
    third.kill().await?;
    let died = Instant::now();
    let heir = |view: &View| view.placed.as_ref().filter(|it| it.zone != "zone-3").map(|it| it.zone.clone());
    let heir = hunter.player.wait_until(TIMEOUT, heir).await.context("no zone takes the hunter")?;
    println!("the hunter plays in {heir} after {:?}", died.elapsed());
    let health = health(&hunter, boar).await.with_context(|| format!("in {heir}"))?;
    ensure!(health <= wounded, "{heir} has healed it from {wounded} to {health}");
    ensure!(hunter.player.session().counts().losses == 0, "the hunter stays connected");
    cluster.stop().await
}

/// Strikes the creature until it is wounded, and returns its health from 1 to 255.
async fn wound(hunter: &Actor, creature: EntityId) -> Result<u8> {
    let deadline = Instant::now() + FIGHT_TIMEOUT;
    let mut attacks = interval(ATTACK_COOLDOWN);
    attacks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hits = 0;
    while hits < 2 {
        ensure!(Instant::now() < deadline, "the boar got away");
        attacks.tick().await;
        approach(hunter, creature).await?;
        match hunter.player.attack(creature).await {
            Ok(result) => {
                ensure!(!result.killed, "the boar must live");
                hits += 1;
            }
            // It has moved out of reach.
            Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(error).context("the boar cannot be struck"),
        }
    }
    hunter.player.stop().await?;
    health(hunter, creature).await
}

async fn health(hunter: &Actor, creature: EntityId) -> Result<u8> {
    let seen = |view: &View| view.entity(creature).map(|it| it.health).filter(|health| *health < 255);
    hunter.player.wait_until(TIMEOUT, seen).await.context("the wounded creature is not in sight")
}

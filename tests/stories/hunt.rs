//! A creature is hunted down: its loot is minted once, lies on the ground for all to see, and is picked up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    ClientError,
    game::View,
    wire::{movement::EntityKind, payload::ErrorCode},
};
use shardkeep_stories::{Actor, SOON};
use shardkeep_testkit::Cluster;
use shardkeep_types::EntityId;
use tokio::time::{Instant, sleep};

/// A little more than the pause an avatar needs between two strikes.
const PAUSE: Duration = Duration::from_millis(650);
/// How near one goes before striking, and to pick up.
const NEAR_MM: u64 = 1_500;
/// What a rabbit can run to, and an avatar after it.
const CHASE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn loot_is_minted_once_and_picked_up() -> Result<()> {
    // A cluster of its own: elsewhere other players leave things on the ground, and hunt.
    let cluster = Cluster::start().await?;
    let hunter = Actor::enter(&cluster, "hunter").await?;
    hunter.walk_to(440, 512).await?;
    let before = cluster.ledger().await?;
    let (_, owned) = hunter.belongings().await?;
    let known: Vec<EntityId> = hunter.player.look(items);

    kill_one(&hunter).await?;
    let loot = hunter.player.until(SOON, |view| items(view).into_iter().find(|it| !known.contains(it)));
    let loot = loot.await.context("no loot lies on the ground")?;
    approach(&hunter, loot).await?;
    hunter.player.stop().await?;
    hunter.player.pick_up(loot).await.context("the loot cannot be picked up")?;

    let (_, owns) = hunter.belongings().await?;
    let item = loot.as_item().context("loot is an item")?.0;
    ensure!(owns.contains(&item) && owns.len() == owned.len() + 1, "the loot is not the hunter's");
    ensure!(hunter.player.inventory().await?.experience > 0, "the hunter has learned nothing");
    let after = cluster.ledger().await?;
    ensure!(after.holds && after.items > before.items, "{:?}", after.faults);
    cluster.stop().await
}

fn items(view: &View) -> Vec<EntityId> {
    view.others().filter(|it| it.kind == EntityKind::GroundItem).map(|it| it.id).collect()
}

async fn kill_one(hunter: &Actor) -> Result<()> {
    let prey = hunter.player.until(SOON, |view| {
        view.nearest(|it| it.kind == EntityKind::Creature && it.health > 0).map(|it| it.id)
    });
    let prey = prey.await.context("no creature in sight")?;
    let deadline = Instant::now() + CHASE;
    loop {
        ensure!(Instant::now() < deadline, "the prey got away");
        approach(hunter, prey).await?;
        match hunter.player.attack(prey).await {
            Ok(result) if result.killed => break,
            Ok(_) => sleep(PAUSE).await,
            // It has moved on, or the neighbour zone whose it is did not answer in time.
            Err(ClientError::Refused(why)) if why.code != ErrorCode::NotFound => sleep(PAUSE / 10).await,
            Err(error) => return Err(error).context("the prey cannot be struck"),
        }
    }
    hunter.player.stop().await?;
    Ok(())
}

/// Runs towards an entity until it is near.
async fn approach(hunter: &Actor, entity: EntityId) -> Result<()> {
    let deadline = Instant::now() + CHASE;
    loop {
        ensure!(Instant::now() < deadline, "{entity} cannot be reached");
        let (here, there) = hunter.player.look(|view| {
            let there = view.entity(entity).map(|it| it.position_at(std::time::Instant::now()));
            (view.position(), there)
        });
        let (here, there) = (here.context("no position")?, there.context("it is out of sight")?);
        if here.distance_squared(there) < NEAR_MM * NEAR_MM {
            return Ok(());
        }
        let (dx, dy) = (f64::from(there.x_mm - here.x_mm), f64::from(there.y_mm - here.y_mm));
        let part = |d: f64| (d / dx.hypot(dy) * 5_900.0) as i16;
        hunter.player.walk(part(dx), part(dy)).await?;
        sleep(Duration::from_millis(100)).await;
    }
}

//! A player kills a creature. Its loot is minted once, lies on the ground, and is picked up.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::{
    ClientError,
    game::View,
    wire::{movement::EntityKind, payload::ErrorCode},
};
use shardkeep_stories::{Actor, TIMEOUT};
use shardkeep_testkit::Cluster;
use shardkeep_types::EntityId;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A little more than the pause that the rules require between two attacks.
pub(crate) const ATTACK_COOLDOWN: Duration = Duration::from_millis(650);
/// Time between two corrections of the course.
const STEP: Duration = Duration::from_millis(100);
/// Distance from which the hunter attacks and picks up.
const NEAR_MM: u64 = 1_500;
/// Time to catch a creature that flees.
const CHASE_TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test]
async fn loot_of_killed_creature_is_minted_once() -> Result<()> {
    // The players of other stories would drop items and hunt too.
    let cluster = Cluster::start().await?;
    let hunter = Actor::enter(&cluster, "hunter").await?;
    hunter.walk_to(440, 512).await?;
    let before = cluster.ledger().await?;
    let (_, items_before) = hunter.coins_and_items().await?;
    let known: Vec<EntityId> = hunter.player.with_view(items);

    kill_creature(&hunter).await?;
    let loot =
        hunter.player.wait_until(TIMEOUT, |view| items(view).into_iter().find(|it| !known.contains(it)));
    let loot = loot.await.context("no loot lies on the ground")?;
    approach(&hunter, loot).await?;
    hunter.player.stop().await?;
    hunter.player.pick_up(loot).await.context("the loot cannot be picked up")?;

    let (_, items_after) = hunter.coins_and_items().await?;
    let item = loot.as_item().context("loot is an item")?.0;
    ensure!(
        items_after.contains(&item) && items_after.len() == items_before.len() + 1,
        "the loot is not the hunter's"
    );
    ensure!(hunter.player.inventory().await?.experience > 0, "the hunter has learned nothing");
    let after = cluster.ledger().await?;
    ensure!(after.holds && after.items > before.items, "{:?}", after.faults);
    cluster.stop().await
}

fn items(view: &View) -> Vec<EntityId> {
    view.others().filter(|it| it.kind == EntityKind::GroundItem).map(|it| it.id).collect()
}

async fn kill_creature(hunter: &Actor) -> Result<()> {
    let creature = hunter.player.wait_until(TIMEOUT, |view| {
        view.nearest(|it| it.kind == EntityKind::Creature && it.health > 0).map(|it| it.id)
    });
    let creature = creature.await.context("no creature in sight")?;
    let deadline = Instant::now() + CHASE_TIMEOUT;
    let mut attacks = interval(ATTACK_COOLDOWN);
    attacks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ensure!(Instant::now() < deadline, "the prey got away");
        attacks.tick().await;
        approach(hunter, creature).await?;
        match hunter.player.attack(creature).await {
            Ok(result) if result.killed => break,
            Ok(_) => {}
            // The creature has moved out of reach, or its zone did not answer in time.
            Err(ClientError::Refused(refusal)) if refusal.code != ErrorCode::NotFound => {}
            Err(error) => return Err(error).context("the prey cannot be struck"),
        }
    }
    hunter.player.stop().await?;
    Ok(())
}

/// Runs towards an entity until it is near.
pub(crate) async fn approach(hunter: &Actor, entity: EntityId) -> Result<()> {
    let deadline = Instant::now() + CHASE_TIMEOUT;
    let mut steps = interval(STEP);
    loop {
        ensure!(Instant::now() < deadline, "{entity} cannot be reached");
        steps.tick().await;
        let (here, there) = hunter.player.with_view(|view| {
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
    }
}

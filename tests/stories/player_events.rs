//! An operator answers a report of a scam with `shardkeep logs query`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shardkeep_stories::{Actor, TIMEOUT, trade};
use shardkeep_testkit::{Cluster, wait_until};
use shardkeep_types::{EntityId, ItemId};

#[tokio::test]
async fn logs_query_shows_names_items_coins_and_place_of_trade_drop_and_pick_up() -> Result<()> {
    let cluster = Cluster::start().await?;
    let (ann, bob) = (Actor::enter(&cluster, "ann").await?, Actor::enter(&cluster, "bob").await?);
    ann.sees(&bob).await?;
    let item = trade(&ann, &bob).await?;
    bob.player.drop_item(item).await?;
    let lying = EntityId::ground_item(ItemId(item));
    ann.player
        .wait_until(TIMEOUT, |view| view.entity(lying).map(drop))
        .await
        .context("no item on the ground")?;
    ann.player.pick_up(lying).await?;

    let given = format!("#{item}");
    let anns = events(&cluster, &ann, 2).await?;
    let (traded, picked_up) = (&anns[0], &anns[1]);
    ensure!(traded["event"] == "trade" && picked_up["event"] == "pick_up", "{anns:?}");
    ensure!(traded["name"] == ann.name.as_str() && traded["partner_name"] == bob.name.as_str(), "{traded}");
    let gave = traded["gave"].as_str().context("what ann gave")?;
    ensure!(gave.contains(&given) && gave.contains("apple"), "{traded}");
    ensure!(traded["got_coins"] == 1 && traded["gave_coins"] == 0, "{traded}");
    let near = |event: &Value| (490_000..=510_000).contains(&event["x_mm"].as_i64().unwrap_or_default());
    ensure!(near(traded) && near(picked_up), "{anns:?}");
    ensure!(picked_up["items"].as_str().is_some_and(|items| items.contains(&given)), "{picked_up}");
    let bobs = events(&cluster, &bob, 2).await?;
    ensure!(bobs[0]["event"] == "trade" && bobs[0]["got"] == *gave, "{bobs:?}");
    ensure!(bobs[1]["event"] == "drop" && bobs[1]["name"] == bob.name.as_str(), "{bobs:?}");
    cluster.stop().await
}

/// The events of the actor's character that move property, oldest first, once there are `count` of them.
async fn events(cluster: &Cluster, actor: &Actor, count: usize) -> Result<Vec<Value>> {
    let character = actor.character()?;
    let sql = format!(
        "SELECT event, attributes FROM log WHERE character = '{character}' \
         AND event IN ('trade', 'drop', 'pick_up') ORDER BY time"
    );
    wait_until(&format!("{count} events of {}", actor.name), async || {
        let rows = cluster.run_cli(&["logs", "query", "--json", &sql], "").await?;
        let found = rows.lines().map(event).collect::<Result<Vec<_>>>()?;
        Ok((found.len() >= count).then_some(found))
    })
    .await
}

/// The attributes of one log row. The row's event name is added under the key `event`.
fn event(row: &str) -> Result<Value> {
    let row: Value = serde_json::from_str(row)?;
    let attributes = row["attributes"].as_str().context("attributes")?;
    let mut event: Value = serde_json::from_str(attributes)?;
    event["event"] = row["event"].clone();
    Ok(event)
}

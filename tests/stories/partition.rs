//! Operators and zones change the layout of the world while a player walks. The layout survives the leader.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::game::View;
use shardkeep_stories::{Actor, TIMEOUT};
use shardkeep_testkit::{Cluster, binary, wait_until};
use tokio::process::{Child, Command};

/// A line of `gm sector list`.
#[derive(Debug, PartialEq)]
struct Sector {
    number: u32,
    /// First and last column of cells; the last one is exclusive.
    columns: (u32, u32),
    zone: String,
    epoch: u64,
}

#[tokio::test]
async fn sectors_follow_commands_and_zones_and_survive_leader() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["gm", "claim", "--password-stdin"], "a long enough password").await?;
    let walker = Actor::enter(&cluster, "walker").await?;
    walker.walk_to(505, 512).await?;
    let before = walker.coins_and_items().await?;

    // Sector 1 is the western half. The walker stands in its eastern part, which becomes a sector.
    change(&cluster, &["split", "1", "--x", "8"]).await?;
    change(&cluster, &["split", "2", "--x", "24"]).await?;
    let sectors = list(&cluster).await?;
    let columns: Vec<_> = sectors.iter().map(|sector| (sector.number, sector.columns)).collect();
    ensure!(columns == [(1, (0, 8)), (2, (16, 24)), (3, (8, 16)), (4, (24, 32))], "{columns:?}");
    let [west, east] = ["zone-1", "zone-2"].map(str::to_owned);
    let other = if sectors[2].zone == west { &east } else { &west };
    let refused = change(&cluster, &["merge", "1", "2"]).await.expect_err("they are not adjacent");
    ensure!(refused.to_string().contains("not adjacent"), "{refused}");

    // The sector moves to the other zone while the walker crosses it.
    let command = ["move", "3", other];
    tokio::try_join!(change(&cluster, &command), walker.walk_to(470, 512))?;
    owned_by(&cluster, 3, other).await?;
    placed_at(&walker, other).await?;

    // A third zone takes the eastern sector, and gives it away with the walker when it drains.
    let mut third = start_zone(&cluster, "zone-3").await?;
    owned_by(&cluster, 4, "zone-3").await?;
    teleport(&cluster, &walker, "800").await?;
    placed_at(&walker, "zone-3").await?;
    cluster.run_cli(&["gm", "drain", "zone", "zone-3", "--reason", "too many zones"], "").await?;
    ensure!(third.wait().await?.success(), "zone-3 has drained");
    let settled = wait_until("zone-3 owns nothing", async || {
        let sectors = list(&cluster).await?;
        Ok(sectors.iter().all(|sector| [&west, &east].contains(&&sector.zone)).then_some(sectors))
    })
    .await?;
    ensure!(walker.player.session().counts().losses == 0, "the walker stays connected");

    // The next leader has the same layout.
    cluster.kill_and_wait_for_restart("world-1").await?;
    let after = wait_until("the layout is loaded", async || {
        let sectors = list(&cluster).await.unwrap_or_default();
        Ok((!sectors.is_empty()).then_some(sectors))
    })
    .await?;
    ensure!(after == settled, "{after:?} instead of {settled:?}");

    // The zones still know each other.
    teleport(&cluster, &walker, "200").await?;
    placed_at(&walker, &after[0].zone).await?;
    ensure!(walker.coins_and_items().await? == before, "something was lost or doubled on the way");
    let ledger = cluster.ledger().await?;
    ensure!(ledger.holds, "{ledger:?}");
    cluster.stop().await
}

/// Moves the walker along the road, as soon as the world knows where it is: a new leader waits for the reports of zones.
pub(crate) async fn teleport(cluster: &Cluster, walker: &Actor, x_m: &str) -> Result<()> {
    let command = ["gm", "teleport", &walker.name, x_m, "512", "--reason", "a long way"];
    wait_until("the world knows the walker", async || match cluster.run_cli(&command, "").await {
        Ok(_) => Ok(Some(())),
        Err(error) if error.to_string().contains("is not online") => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

/// Waits until this zone has the avatar.
pub(crate) async fn placed_at(walker: &Actor, zone: &str) -> Result<()> {
    let placed = |view: &View| view.placed.as_ref().is_some_and(|placed| placed.zone == zone).then_some(());
    walker.player.wait_until(TIMEOUT, placed).await.with_context(|| format!("the walker is not in {zone}"))
}

pub(crate) async fn change(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let command = [&["gm", "sector"], arguments, &["--reason", "load"]].concat();
    cluster.run_cli(&command, "").await
}

async fn list(cluster: &Cluster) -> Result<Vec<Sector>> {
    let text = cluster.run_cli(&["gm", "sector", "list"], "").await?;
    let mut sectors = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("sector ")) {
        sectors.push(parse(line).with_context(|| line.to_owned())?);
    }
    sectors.sort_by_key(|sector| sector.number);
    Ok(sectors)
}

/// `sector 3  space 1  x 0–16, y 0–32  zone-1  epoch 2  0 avatars`.
fn parse(line: &str) -> Option<Sector> {
    let mut fields = line.split("  ");
    let number = fields.next()?.strip_prefix("sector ")?.parse().ok()?;
    let (x0, x1) = fields.nth(1)?.strip_prefix("x ")?.split_once(',')?.0.split_once('–')?;
    let columns = (x0.parse().ok()?, x1.parse().ok()?);
    let zone = fields.next()?.to_owned();
    let epoch = fields.next()?.strip_prefix("epoch ")?.parse().ok()?;
    Some(Sector { number, columns, zone, epoch })
}

pub(crate) async fn owned_by(cluster: &Cluster, number: u32, zone: &str) -> Result<()> {
    wait_until(&format!("{zone} owns sector {number}"), async || {
        let sectors = list(cluster).await?;
        let owned = sectors.iter().any(|sector| sector.number == number && sector.zone == zone);
        Ok(owned.then_some(()))
    })
    .await
}

/// As an operator would: a certificate of the cluster's authority, and the registry's address.
pub(crate) async fn start_zone(cluster: &Cluster, name: &str) -> Result<Child> {
    let tls = cluster.data_dir().join("tls").display().to_string();
    cluster.run_cli(&["certs", "--dir", &tls, &format!("zone:{name}")], "").await?;
    let settings = [
        format!("daemon.name={name}"),
        format!("daemon.data_dir={}", cluster.data_dir().join(name).display()),
        format!("cluster.registries={}", cluster.announcement("registry-1")?.grpc),
        format!("cluster.ca={tls}/ca.pem"),
        format!("cluster.cert={tls}/{name}.pem"),
        format!("cluster.key={tls}/{name}.key"),
        "cluster.world=1".to_owned(),
    ];
    let mut command = Command::new(binary()?);
    command.args(["daemon", "zone"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    Ok(command.kill_on_drop(true).spawn()?)
}

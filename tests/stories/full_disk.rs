//! The disk of the stores is full for a while. Daemons report it and are not ready. They continue when space is free, and nothing is lost.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::{Actor, PASSWORD, trade, unique_name, wait_until_ready, wait_until_unready};
use shardkeep_testkit::{Cluster, SmallDisk};

/// Every daemon with a store.
const DAEMONS: [&str; 5] = ["login-1", "dbcache-1", "billing-1", "gm-1", "logs-1"];
/// Within this time after space is free, writes must succeed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_makes_daemons_unready_and_loses_nothing() -> Result<()> {
    let Some(disk) = SmallDisk::mount(48 << 20) else { return Ok(()) };
    let mut cluster = Cluster::start_with_files_in(disk.path()).await?;
    let (ann, bob) = (Actor::enter(&cluster, "ann").await?, Actor::enter(&cluster, "bob").await?);
    let cid = Actor::enter(&cluster, "cid").await?;
    ann.sees(&bob).await?;

    disk.fill();
    for daemon in DAEMONS {
        wait_until_unready(&cluster, daemon, "full").await?;
    }
    // Play continues; the position waits in dbcache.
    cid.walk_to(490, 500).await?;

    disk.free();
    let freed = Instant::now();
    for daemon in DAEMONS {
        wait_until_ready(&cluster, daemon).await?;
    }
    let newcomer = unique_name("newcomer");
    cluster.account(&newcomer, PASSWORD).await.context("login does not write")?;
    ensure!(freed.elapsed() < RECOVERY_LIMIT, "writes resumed only after {:?}", freed.elapsed());
    trade(&ann, &bob).await.context("dbcache does not write")?;

    let (anns, bobs) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    let names = (ann.name.clone(), bob.name.clone(), cid.name.clone());
    drop((ann, bob, cid));
    cluster.restart().await?;
    let (ann, bob) = (Actor::enter_as(&cluster, &names.0).await?, Actor::enter_as(&cluster, &names.1).await?);
    ensure!(
        ann.coins_and_items().await? == anns && bob.coins_and_items().await? == bobs,
        "property was lost"
    );
    let (x_m, y_m) = Actor::enter_as(&cluster, &names.2).await?.position_m()?;
    ensure!((x_m - 490).abs() <= 5 && (y_m - 500).abs() <= 5, "the position was lost: {x_m}, {y_m}");
    ensure!(cluster.ledger().await?.holds);
    let log = fs::read_to_string(cluster.data_dir().join("log/dbcache-1.log"))?;
    ensure!(
        log.contains("the store is unavailable") && log.contains("full"),
        "the log does not name the cause"
    );
    cluster.stop().await
}

//! The clock of the machine is set back while the cluster is down.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use shardkeep_store::{Database, Schema, sql};
use shardkeep_stories::Actor;
use shardkeep_testkit::Cluster;

/// Within this time after such a start, players must be able to enter.
const ENTRY_LIMIT: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_enter_soon_after_clock_was_set_back() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let name = Actor::enter(&cluster, "ann").await?.name;
    let url = format!("sqlite:{}", cluster.data_dir().join("db/dbcache.db").display());
    // To a clock that is an hour behind, the lease of a world that crashed ends in an hour, and its incarnation is from
    // the future.
    let set_clock_back = async {
        let database = Database::open(&url, Schema::Game).await?;
        let lease = "UPDATE leadership SET until_ms = {now_ms} + 3600000, ttl_ms = 4000, \
             incarnation = incarnation + 3600000";
        ensure!(database.execute(sql(lease)).await? == 1);
        database.close().await;
        Ok(())
    };
    cluster.restart_after(set_clock_back).await?;
    let started = Instant::now();
    Actor::enter_as(&cluster, &name).await?;
    ensure!(started.elapsed() < ENTRY_LIMIT, "ann entered only after {:?}", started.elapsed());
    let log = fs::read_to_string(cluster.data_dir().join("log/dbcache-1.log"))?;
    let fault = log.lines().find(|line| line.contains("the database's clock was set back"));
    ensure!(fault.is_some_and(|line| line.contains("ERROR") && line.contains("world-1")), "not in the log");
    cluster.stop().await
}

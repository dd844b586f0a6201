//! PostgreSQL fails over to its standby, and the address of the database moves with it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::{Actor, PASSWORD, trade, unique_name, wait_until_ready, wait_until_unready};
use shardkeep_testkit::{AddressSwitch, Cluster, Postgres, Stores};

/// Every daemon on PostgreSQL.
const DAEMONS: [&str; 4] = ["login-1", "dbcache-1", "billing-1", "gm-1"];
/// Within this time after the address has moved, writes must succeed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);

/// The demoted primary comes back as a standby before the address moves, so that daemons connect to it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_succeed_soon_after_postgres_failover() -> Result<()> {
    let primary = Postgres::dedicated().await;
    let standby = primary.standby().await;
    let switch = AddressSwitch::start(primary.address()).await;
    let stores = Stores { postgres: Some(primary.url_through(switch.address())), redis: None };
    let cluster = Cluster::start_with(stores, None).await?;
    let (ann, bob) = (Actor::enter(&cluster, "ann").await?, Actor::enter(&cluster, "bob").await?);
    ann.sees(&bob).await?;

    primary.demote();
    for daemon in DAEMONS {
        wait_until_unready(&cluster, daemon, "read-only").await?;
    }
    standby.promote();
    switch.switch_to(standby.address());
    let moved = Instant::now();
    for daemon in DAEMONS {
        wait_until_ready(&cluster, daemon).await?;
    }
    cluster.account(&unique_name("newcomer"), PASSWORD).await.context("login does not write")?;
    ensure!(moved.elapsed() < RECOVERY_LIMIT, "writes succeeded only after {:?}", moved.elapsed());
    trade(&ann, &bob).await.context("dbcache does not write")?;
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}

//! Long runs (`make test-long`): every daemon is killed under load on both kinds of stores, and a soak run that looks for
//! memory that grows.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use shardkeep_stories::StoreBackend;
use shardkeep_testkit::{Announcement, Cluster};

/// Growth of one daemon's resident memory that a soak may show, in KiB. The caches of the first minute are full by then.
const MAX_GROWTH_KIB: u64 = 48 << 10;

#[tokio::test]
#[ignore = "takes five minutes: make test-long"]
async fn play_survives_chaos_on_sqlite() -> Result<()> {
    play_under_chaos(StoreBackend::Sqlite).await
}

#[tokio::test]
#[ignore = "takes five minutes: make test-long"]
async fn play_survives_chaos_on_postgres_and_redis() -> Result<()> {
    play_under_chaos(StoreBackend::servers().await).await
}

/// Fails unless `demo` is content: no session lost, and conservation holds.
async fn play_under_chaos(backend: StoreBackend) -> Result<()> {
    let cluster = Cluster::start_with(backend.stores(), None).await?;
    cluster.run_cli(&["demo", "--players", "50", "--seconds", "240", "--chaos"], "").await?;
    cluster.stop().await
}

#[tokio::test]
#[ignore = "takes a quarter of an hour: make test-long"]
async fn memory_stays_bounded_during_soak() -> Result<()> {
    let cluster = Cluster::start().await?;
    cluster.run_cli(&["demo", "--players", "100", "--seconds", "120"], "").await?;
    let before = resident_kib(&cluster)?;
    cluster.run_cli(&["demo", "--players", "100", "--seconds", "780"], "").await?;
    for (daemon, after) in resident_kib(&cluster)? {
        let before = *before.get(&daemon).with_context(|| format!("{daemon} is new"))?;
        ensure!(after < before + MAX_GROWTH_KIB, "{daemon} grew from {before} to {after} KiB");
    }
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}

/// Of every daemon that has announced itself.
fn resident_kib(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let mut resident = BTreeMap::new();
    for file in fs::read_dir(cluster.data_dir().join("run"))? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let daemon: Announcement = serde_json::from_slice(&fs::read(&path)?)?;
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        resident.insert(daemon.name, kib.context("no VmRSS")?);
    }
    Ok(resident)
}

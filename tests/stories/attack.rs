//! Under all attacks at once, honest players enter, play and leave without a failure. No daemon dies, memory stays bounded,
//! and no attack gets in.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use shardkeep_testkit::{Cluster, tool};
use tokio::process::Command;

/// All attacks at once, for a few seconds.
const ATTACK_ARGUMENTS: [&str; 11] =
    ["--json", "--seconds", "5", "--rate", "20", "--open", "100", "--cpu", "30", "--players", "4"];
/// Growth of memory that hundreds of connections explain. A length that an attacker claims allocates nothing.
const MAX_GROWTH: u64 = 64 << 20;

#[derive(Deserialize)]
struct Outcome {
    attacked: Phase,
    attacks: BTreeMap<String, Counts>,
    daemons: BTreeMap<String, Daemon>,
}

#[derive(Deserialize)]
struct Phase {
    visits: u64,
    failed: u64,
}

#[derive(Deserialize)]
struct Counts {
    attempts: u64,
    refused: u64,
    breaches: u64,
}

#[derive(Deserialize)]
struct Daemon {
    memory_before: u64,
    memory_peak: u64,
    died: bool,
}

#[tokio::test]
async fn cluster_holds_under_attack() -> Result<()> {
    let cluster = Cluster::start().await?;
    // The exit code covers honest visits, breaches and dead daemons.
    let attack = Command::new(tool("shardkeep-attack")?)
        .env("SHARDKEEP_DATA_DIR", cluster.data_dir())
        .args(ATTACK_ARGUMENTS)
        .output()
        .await?;
    ensure!(attack.status.success(), "{}", String::from_utf8_lossy(&attack.stderr));
    let outcome: Outcome = serde_json::from_slice(&attack.stdout)?;
    ensure!(outcome.attacked.visits > 0 && outcome.attacked.failed == 0, "honest visits failed");
    ensure!(outcome.attacks.len() == 17, "only {} attacks", outcome.attacks.len());
    for (attack, counts) in &outcome.attacks {
        ensure!(counts.breaches == 0, "{attack} came through {} times", counts.breaches);
    }
    // These attacks need no session. On a busy machine a login may take longer than the attack.
    for attack in ["garbage", "out-of-phase", "ticket-guessing", "wrong-passwords", "size-bombs"] {
        let counts = outcome.attacks.get(attack).context(attack)?;
        ensure!(counts.attempts > 0 && counts.refused > 0, "{attack} met no refusal");
    }
    for name in ["login-1", "gateway-1", "gateway-2", "dns-1"] {
        let daemon = outcome.daemons.get(name).with_context(|| format!("{name} is not watched"))?;
        let growth = daemon.memory_peak.saturating_sub(daemon.memory_before);
        ensure!(!daemon.died && growth < MAX_GROWTH, "{name} grew by {growth} bytes");
    }
    cluster.stop().await
}

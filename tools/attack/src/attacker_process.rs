//! Starts the attackers as a second process, so that their share of the processor is bounded and measured.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use shardkeep_cli::program::Program;
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::attack_plan::{AttackPlan, Report};

/// Beyond the time of the attack, for the process to start and to end.
const GRACE: Duration = Duration::from_secs(15);

/// Carries out the orders; returns when the attack is over.
pub async fn attack(attack_plan: &AttackPlan) -> Result<Report> {
    let (mut command, _) = Program::this()?.command();
    let mut process = command
        .arg("attacker")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the attackers")?;
    // Held until the end: the attackers end when it closes.
    let mut plan_input = process.stdin.take().context("the attackers take no orders")?;
    plan_input.write_all(format!("{}\n", serde_json::to_string(attack_plan)?).as_bytes()).await?;
    let time = Duration::from_secs(attack_plan.seconds) + GRACE;
    let output = timeout(time, process.wait_with_output()).await.context("the attackers do not end")??;
    ensure!(output.status.success(), "the attackers ended with {}", output.status);
    drop(plan_input);
    serde_json::from_slice(&output.stdout).context("the attackers' report")
}

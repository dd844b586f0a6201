//! The attackers' process: reads the plan from standard input, attacks on one thread within the bounds of the plan, and
//! writes its report. It ends with its parent process, and in any case soon after the time of the attack.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    attack_plan::{Attack, AttackPlan, Report},
    attacks,
    context::AttackContext,
    tally::Tally,
};

/// Beyond the time of the attack: for the last attempts, and to write the report.
const GRACE: Duration = Duration::from_secs(5);
pub fn run() -> ExitCode {
    match execute_plan() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: attackers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute_plan() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("no orders")?;
    let attack_plan: AttackPlan = serde_json::from_str(&line).context("orders")?;
    exit_with_parent();
    exit_after(Duration::from_secs(attack_plan.seconds) + GRACE);
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(attack(attack_plan));
    // Drops the attacks that still run, which closes their sockets.
    runtime.shutdown_background();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    out.flush()?;
    Ok(())
}

/// The pipe of the orders stays open as long as the parent lives.
fn exit_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn exit_after(time: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        std::process::exit(1);
    });
}

/// As many files as the system lets this process have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Fails where the limits do not allow it; then the attacks find no sockets, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn attack(attack_plan: AttackPlan) -> Report {
    let started = Instant::now();
    let ctx = Arc::new(AttackContext::new(attack_plan));
    let tallies: Vec<(Attack, Arc<Tally>)> =
        ctx.attacks().iter().map(|attack| (*attack, Arc::default())).collect();
    let mut running = JoinSet::new();
    for (attack, tally) in &tallies {
        running.spawn(attacks::run(*attack, ctx.clone(), tally.clone()));
    }
    let _ = timeout_at(ctx.until() + GRACE / 2, running.join_all()).await;
    Report {
        attacks: tallies.iter().map(|(attack, tally)| (*attack, tally.counts())).collect(),
        cpu: ctx.mean_cpu(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

//! `demo --chaos`: kills every daemon once with SIGKILL while the players play, and waits for its restart.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::{data_dir::DataDir, http, terminal::emit, up};

/// Longest time for a killed daemon to become ready again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Quiet time before the first kill and after the last.
const QUIET: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct KilledDaemon {
    pub daemon: String,
    /// From SIGKILL until the successor was ready.
    pub recovery_time: Duration,
}

/// Kills each daemon of the folder once, spread evenly over `time`.
pub async fn run(dir: &DataDir, time: Duration, bar: &ProgressBar) -> Result<Vec<KilledDaemon>> {
    let names = up::planned_names();
    let kills = u32::try_from(names.len()).unwrap_or(u32::MAX);
    let pause = time.saturating_sub(QUIET * 2) / kills;
    sleep(QUIET).await;
    let mut killed = Vec::new();
    for name in names {
        let next = Instant::now() + pause;
        let report = kill(dir, &name).await?;
        let seconds = report.recovery_time.as_secs_f32();
        // `bar.println` prints nothing when the bar is hidden.
        bar.suspend(|| emit(format_args!("killed {name} (SIGKILL); ready again after {seconds:.1} s")));
        killed.push(report);
        sleep(next.saturating_duration_since(Instant::now())).await;
    }
    Ok(killed)
}

async fn kill(dir: &DataDir, name: &str) -> Result<KilledDaemon> {
    let victim = dir.announced(name).with_context(|| format!("{name} has announced nothing"))?;
    let pid = i32::try_from(victim.pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, Signal::KILL)
        .with_context(|| format!("cannot kill {name} (process {})", victim.pid))?;
    let started = Instant::now();
    loop {
        if let Some(now) = dir.announced(name)
            && now.pid != victim.pid
            && http::get(&now.admin, "/readyz").await.is_ok()
        {
            return Ok(KilledDaemon { daemon: name.to_owned(), recovery_time: started.elapsed() });
        }
        if started.elapsed() > RECOVERY_LIMIT {
            bail!("{name} did not come back within {RECOVERY_LIMIT:?} after SIGKILL");
        }
        sleep(POLL).await;
    }
}

//! `shardkeep down`: what Ctrl-C does to `shardkeep up`, from another terminal.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::data_dir::DataDir;

const LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub struct DownArgs {
    /// Folder of the cluster
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    data_dir: PathBuf,
}

pub async fn run(args: &DownArgs) -> Result<()> {
    let dir = DataDir::new(&args.data_dir)?;
    let Some(pid) = dir.supervisor()? else {
        println!("no cluster runs in {}", dir.path().display());
        return Ok(());
    };
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        bail!("{} holds no process id", dir.lock().display());
    };
    kill_process(process, Signal::TERM)?;
    let started = Instant::now();
    while dir.supervisor()?.is_some() {
        if started.elapsed() > LIMIT {
            bail!(
                "the cluster (process {pid}) has not ended after {LIMIT:?}; `kill -9 {pid}` ends it at once"
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the cluster in {} has ended", dir.path().display());
    Ok(())
}

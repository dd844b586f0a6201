//! The cluster for headless players: the running one of the data directory, or a new one.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::data_dir::DataDir;

pub struct LocalCluster(Option<Child>);

impl LocalCluster {
    /// Finds the running cluster, or starts one with `program`, the command `shardkeep`.
    pub async fn running_or_started(dir: &DataDir, mut program: Command) -> Result<Self> {
        if dir.supervisor()?.is_some() {
            return Ok(Self(None));
        }
        // Standard output is for results, which may be JSON.
        eprintln!("no cluster runs in {}; starting one", dir.path().display());
        let mut child = program
            .args(["up", "--quiet", "--supervised", "--data-dir"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C ends the demo; the closing pipe then ends the cluster.
            .process_group(0)
            .spawn()
            .context("cannot start the cluster")?;
        let mut lines = BufReader::new(child.stdout.take().context("the cluster has no output")?).lines();
        loop {
            match lines.next_line().await? {
                Some(line) if line.contains("daemons ready") => break,
                Some(_) => {}
                None => bail!("the cluster did not start ({})", child.wait().await?),
            }
        }
        // An unread pipe would block the supervisor when it reports restarts.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self(Some(child)))
    }

    /// Ends the cluster if it was started here.
    pub async fn end(self) -> Result<()> {
        if let Some(mut child) = self.0 {
            drop(child.stdin.take());
            let status = child.wait().await?;
            anyhow::ensure!(status.success(), "the cluster ended with {status}");
        }
        Ok(())
    }
}

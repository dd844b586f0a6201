//! The cluster that headless players play on: the one that runs in the data directory, or one started for them.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::data_dir::DataDir;

pub struct LocalCluster(Option<Child>);

impl LocalCluster {
    pub async fn running_or_started(dir: &DataDir) -> Result<Self> {
        if dir.supervisor()?.is_some() {
            return Ok(Self(None));
        }
        // Not a result: whoever reads JSON from standard output must not find it there.
        eprintln!("no cluster runs in {}; starting one", dir.path().display());
        let mut child = Command::new(std::env::current_exe().context("cannot find this program's own file")?)
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
        // Somebody must read what the supervisor reports, or it would block.
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

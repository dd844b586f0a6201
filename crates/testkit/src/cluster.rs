//! A whole cluster of real processes: `shardkeep up` in a temporary folder, on free ports. Tests kill processes with
//! SIGKILL and query the cluster with the operators' tool.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
    time::timeout,
};

use crate::{http::http_get, wait::wait_until};

const START_LIMIT: Duration = Duration::from_secs(120);
const RESTART_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Where a cluster keeps its state. The default is SQLite files and the in-memory bus.
#[derive(Debug, Clone, Default)]
pub struct Stores {
    pub postgres: Option<String>,
    pub redis: Option<String>,
}

pub struct Cluster {
    folder: TempDir,
    stores: Stores,
    settings: Option<String>,
    program: PathBuf,
    /// Further arguments of `shardkeep up`.
    arguments: Vec<String>,
    supervisor: Supervisor,
}

/// `shardkeep up`, and the pipe that keeps it up. The pipe is held apart because waiting for a process closes the one
/// that the process still holds.
struct Supervisor {
    process: Child,
    _stdin_pipe: Option<ChildStdin>,
    /// All that it has printed.
    output: watch::Receiver<String>,
}

/// The addresses that a daemon has announced.
#[derive(Debug, Clone, Deserialize)]
pub struct Announcement {
    pub name: String,
    pub pid: u32,
    pub grpc: String,
    pub admin: String,
    /// Empty for daemons without a socket for clients.
    pub client: String,
}

/// Answer of the conservation query.
#[derive(Debug, Clone, Deserialize)]
pub struct Ledger {
    pub holds: bool,
    pub items: u64,
    pub coins: i64,
    pub faults: Vec<String>,
}

impl Cluster {
    pub async fn start() -> Result<Self> {
        Self::start_with(Stores::default(), None).await
    }

    /// Starts a cluster; `settings` is TOML in the sections of the daemons.
    ///
    /// # Errors
    /// When the binary is missing, or a daemon does not become ready; the message holds what it printed.
    pub async fn start_with(stores: Stores, settings: Option<&str>) -> Result<Self> {
        Self::start_as(binary()?, stores, settings, Vec::new()).await
    }

    /// Starts a cluster with further arguments of `shardkeep up`.
    pub async fn start_with_arguments(arguments: &[&str]) -> Result<Self> {
        Self::start_program(binary()?, arguments).await
    }

    /// Starts a cluster with this file of the program.
    pub async fn start_program(program: PathBuf, arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        Self::start_as(program, Stores::default(), None, arguments).await
    }

    /// Starts a region: the home region, which keeps the accounts, or one that joins `home`.
    pub async fn start_region(name: &str, home: Option<&Self>, settings: Option<&str>) -> Result<Self> {
        let mut region = vec!["--region".to_owned(), name.to_owned()];
        if let Some(home) = home {
            region.extend(["--home".to_owned(), home.data_dir().display().to_string()]);
        }
        Self::start_as(binary()?, Stores::default(), settings, region).await
    }

    /// Starts a cluster whose SQLite files and logs store are in `folder`, for example on a small disk.
    pub async fn start_with_files_in(folder: &Path) -> Result<Self> {
        let cluster = tempfile::Builder::new().prefix("shardkeep-").tempdir()?;
        std::fs::create_dir(cluster.path().join("var"))?;
        std::os::unix::fs::symlink(folder, cluster.path().join("var/db"))?;
        Self::start_inside(cluster, binary()?, Stores::default(), None, Vec::new()).await
    }

    async fn start_as(
        program: PathBuf,
        stores: Stores,
        settings: Option<&str>,
        arguments: Vec<String>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("shardkeep-").tempdir()?;
        Self::start_inside(folder, program, stores, settings, arguments).await
    }

    async fn start_inside(
        folder: TempDir,
        program: PathBuf,
        stores: Stores,
        settings: Option<&str>,
        arguments: Vec<String>,
    ) -> Result<Self> {
        let settings = settings.map(str::to_owned);
        if let Some(settings) = &settings {
            std::fs::write(folder.path().join("settings.toml"), settings)?;
        }
        let supervisor = up(&program, &folder, &stores, settings.is_some(), &arguments).await?;
        Ok(Self { folder, stores, settings, program, arguments, supervisor })
    }

    /// Ends the cluster as Ctrl-C does, and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_after(std::future::ready(Ok(()))).await
    }

    /// Like [`Cluster::restart`]; `change` runs while no daemon runs.
    pub async fn restart_after(&mut self, change: impl Future<Output = Result<()>>) -> Result<()> {
        self.end().await?;
        change.await?;
        let settings = self.settings.is_some();
        self.supervisor = up(&self.program, &self.folder, &self.stores, settings, &self.arguments).await?;
        Ok(())
    }

    /// Drains all daemons; fails if the supervisor does not exit with 0.
    pub async fn stop(mut self) -> Result<()> {
        self.end().await
    }

    async fn end(&mut self) -> Result<()> {
        send(self.supervisor.process.id().context("the supervisor has ended")?, Signal::INT)?;
        let status = timeout(STOP_LIMIT, self.supervisor.process.wait())
            .await
            .context("the cluster does not drain")??;
        ensure!(status.success(), "shardkeep up ended with {status}");
        Ok(())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("var")
    }

    /// Why the daemon is not ready, as `/readyz` states it; `None` while it is ready.
    pub async fn not_ready_reason(&self, daemon: &str) -> Result<Option<String>> {
        let (status, body) = http_get(&self.announcement(daemon)?.admin, "/readyz").await?;
        Ok((status != 200).then(|| body.trim().to_owned()))
    }

    /// Waits until `shardkeep up` has printed a line with this text, and returns the line.
    pub async fn wait_for_output(&self, text: &str) -> Result<String> {
        let mut output = self.supervisor.output.clone();
        let line = |output: &str| output.lines().find(|line| line.contains(text)).map(str::to_owned);
        let printed = timeout(RESTART_LIMIT, output.wait_for(|output| line(output).is_some())).await;
        let printed = printed.with_context(|| format!("`up` does not print {text:?}"))?;
        line(&printed.context("`up` has ended")?).context("the line was just there")
    }

    /// Address of the DNS server: all that a player needs to know.
    pub fn dns(&self) -> Result<String> {
        Ok(self.announcement("dns-1")?.client)
    }

    pub fn announcement(&self, daemon: &str) -> Result<Announcement> {
        let path = self.data_dir().join("run").join(format!("{daemon}.json"));
        let text = std::fs::read(&path).with_context(|| format!("{daemon} has announced nothing"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Kills the process with SIGKILL; returns its announcement.
    pub fn kill(&self, daemon: &str) -> Result<Announcement> {
        let killed = self.announcement(daemon)?;
        send(killed.pid, Signal::KILL)?;
        Ok(killed)
    }

    /// Lets the daemon finish and end, as its operator does with SIGTERM; returns its announcement. The supervisor
    /// starts another in its place.
    pub fn drain(&self, daemon: &str) -> Result<Announcement> {
        let leaving = self.announcement(daemon)?;
        send(leaving.pid, Signal::TERM)?;
        Ok(leaving)
    }

    /// Stops the process in its tracks, as a stalled machine does, until [`Cluster::thaw`].
    pub fn freeze(&self, daemon: &str) -> Result<()> {
        send(self.announcement(daemon)?.pid, Signal::STOP)
    }

    pub fn thaw(&self, daemon: &str) -> Result<()> {
        send(self.announcement(daemon)?.pid, Signal::CONT)
    }

    /// Kills the process and waits until its successor is ready.
    pub async fn kill_and_wait_for_restart(&self, daemon: &str) -> Result<()> {
        let killed = self.kill(daemon)?;
        self.wait_for_restart(&killed).await
    }

    /// Waits until another process has taken the place of `killed` and is ready.
    pub async fn wait_for_restart(&self, killed: &Announcement) -> Result<()> {
        wait_until(&format!("{} is back", killed.name), async || {
            let back = self.announcement(&killed.name).is_ok_and(|now| now.pid != killed.pid)
                && self.status_of(&killed.name).await? == "up";
            Ok(back.then_some(()))
        })
        .await
    }

    async fn status_of(&self, daemon: &str) -> Result<String> {
        #[derive(Deserialize)]
        struct Row {
            name: String,
            state: String,
        }
        let rows: Vec<Row> = serde_json::from_str(&self.run_cli(&["status", "--json"], "").await?)?;
        Ok(rows.into_iter().find(|row| row.name == daemon).map_or_else(|| "absent".into(), |row| row.state))
    }

    pub async fn account(&self, name: &str, password: &str) -> Result<()> {
        self.run_cli(&["account", "create", name, "--password-stdin"], password).await?;
        Ok(())
    }

    /// The conservation query over items and coins.
    pub async fn ledger(&self) -> Result<Ledger> {
        Ok(serde_json::from_str(&self.run_cli(&["ledger", "--json"], "").await?)?)
    }

    /// Runs the operators' tool against this cluster; fails unless it exits with 0.
    pub async fn run_cli(&self, args: &[&str], input: &str) -> Result<String> {
        let mut process = command(&self.program, &self.folder)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = process.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = process.wait_with_output().await?;
        if !output.status.success() {
            bail!("shardkeep {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The binary under test: what `make test` built, or the one of this target folder.
///
/// # Errors
/// When there is none, with the command that builds it.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("SHARDKEEP_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let profile = test.ancestors().nth(2).context("no target folder")?;
            profile.join("shardkeep")
        }
    };
    ensure!(
        path.exists(),
        "{} is missing: `cargo build -p shardkeep` first (make test does)",
        path.display()
    );
    Ok(path)
}

/// Another program of this workspace, beside the binary under test.
///
/// # Errors
/// When there is none, with the command that builds it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = binary()?.with_file_name(name);
    ensure!(path.exists(), "{} is missing: `cargo build -p {name}` first (make test does)", path.display());
    Ok(path)
}

fn command(program: &Path, folder: &TempDir) -> Command {
    let mut command = Command::new(program);
    command.env("SHARDKEEP_DATA_DIR", folder.path().join("var"));
    command
}

async fn up(
    program: &Path,
    folder: &TempDir,
    stores: &Stores,
    settings: bool,
    arguments: &[String],
) -> Result<Supervisor> {
    let mut command = command(program, folder);
    // `--supervised`: a cluster in a static is never dropped; it ends with the pipe to this process.
    command.args(["up", "--quiet", "--supervised", "--port-base", "0"]).args(arguments);
    if let Some(url) = &stores.postgres {
        command.args(["--postgres", url]);
    }
    if let Some(url) = &stores.redis {
        command.args(["--redis", url]);
    }
    if settings {
        command.arg("--config").arg(folder.path().join("settings.toml"));
    }
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = process.stdout.take().context("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let (printed, mut output) = watch::channel(String::new());
    // An unread pipe would block the supervisor when it reports restarts.
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            printed.send_modify(|output| output.extend([line.as_str(), "\n"]));
        }
    });
    let ready = timeout(START_LIMIT, output.wait_for(|output| output.contains("daemons ready")));
    if ready.await.context("the cluster does not become ready")?.is_ok() {
        let stdin_pipe = process.stdin.take();
        return Ok(Supervisor { process, _stdin_pipe: stdin_pipe, output });
    }
    let output = process.wait_with_output().await?;
    bail!("shardkeep up: {}", String::from_utf8_lossy(&output.stderr).trim())
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}

//! A whole cluster of real processes: `shardkeep up` in a temporary folder, on free ports. What a test kills is a
//! process, with SIGKILL; what it asks, it asks by the tool that operators use.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};

const START_LIMIT: Duration = Duration::from_secs(120);
const RESTART_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

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
    /// Further arguments of `shardkeep up`.
    region: Vec<String>,
    supervisor: Supervisor,
}

/// `shardkeep up`, and the pipe that keeps it up. The pipe is held apart because waiting for a process closes the one
/// that the process still holds.
struct Supervisor {
    process: Child,
    _stdin_pipe: Option<ChildStdin>,
}

/// What a daemon announced when it had bound its sockets.
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
        Self::start_as(stores, settings, Vec::new()).await
    }

    /// Starts a region: the home region, which keeps the accounts, or one that joins `home`.
    pub async fn start_region(name: &str, home: Option<&Self>, settings: Option<&str>) -> Result<Self> {
        let mut region = vec!["--region".to_owned(), name.to_owned()];
        if let Some(home) = home {
            region.extend(["--home".to_owned(), home.data_dir().display().to_string()]);
        }
        Self::start_as(Stores::default(), settings, region).await
    }

    /// Starts a cluster whose SQLite files and logs store are in `folder`, for example on a small disk.
    pub async fn start_with_files_in(folder: &Path) -> Result<Self> {
        let cluster = tempfile::Builder::new().prefix("shardkeep-").tempdir()?;
        std::fs::create_dir(cluster.path().join("var"))?;
        std::os::unix::fs::symlink(folder, cluster.path().join("var/db"))?;
        Self::start_inside(cluster, Stores::default(), None, Vec::new()).await
    }

    async fn start_as(stores: Stores, settings: Option<&str>, region: Vec<String>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("shardkeep-").tempdir()?;
        Self::start_inside(folder, stores, settings, region).await
    }

    async fn start_inside(
        folder: TempDir,
        stores: Stores,
        settings: Option<&str>,
        region: Vec<String>,
    ) -> Result<Self> {
        let settings = settings.map(str::to_owned);
        if let Some(settings) = &settings {
            std::fs::write(folder.path().join("settings.toml"), settings)?;
        }
        let supervisor = up(&folder, &stores, settings.is_some(), &region).await?;
        Ok(Self { folder, stores, settings, region, supervisor })
    }

    /// Ends the cluster as Ctrl-C does, and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_after(std::future::ready(Ok(()))).await
    }

    /// Like [`Cluster::restart`]; `change` runs while no daemon runs.
    pub async fn restart_after(&mut self, change: impl Future<Output = Result<()>>) -> Result<()> {
        self.end().await?;
        change.await?;
        self.supervisor = up(&self.folder, &self.stores, self.settings.is_some(), &self.region).await?;
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
        let admin = self.announcement(daemon)?.admin;
        let mut stream = TcpStream::connect(&admin).await?;
        stream.write_all(format!("GET /readyz HTTP/1.0\r\nhost: {admin}\r\n\r\n").as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        let (head, body) = response.split_once("\r\n\r\n").context("not an HTTP response")?;
        Ok((head.split(' ').nth(1) != Some("200")).then(|| body.trim().to_owned()))
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
        let deadline = Instant::now() + RESTART_LIMIT;
        loop {
            if let Ok(now) = self.announcement(&killed.name)
                && now.pid != killed.pid
                && self.status_of(&killed.name).await? == "up"
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} did not come back within {RESTART_LIMIT:?}", killed.name);
            sleep(POLL).await;
        }
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
        let mut process = command(&self.folder)?
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

fn command(folder: &TempDir) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.env("SHARDKEEP_DATA_DIR", folder.path().join("var"));
    Ok(command)
}

async fn up(folder: &TempDir, stores: &Stores, settings: bool, region: &[String]) -> Result<Supervisor> {
    let mut command = command(folder)?;
    // `--supervised`: a cluster kept in a static is never dropped; it ends with the pipe to this process.
    command.args(["up", "--quiet", "--supervised", "--port-base", "0"]).args(region);
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
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("daemons ready") {
                return Ok(true);
            }
        }
        anyhow::Ok(false)
    };
    if timeout(START_LIMIT, ready).await.context("the cluster does not become ready")?? {
        // The supervisor reports restarts on its output: somebody must read it, or it would block.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let stdin_pipe = process.stdin.take();
        return Ok(Supervisor { process, _stdin_pipe: stdin_pipe });
    }
    let output = process.wait_with_output().await?;
    bail!("shardkeep up: {}", String::from_utf8_lossy(&output.stderr).trim())
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}

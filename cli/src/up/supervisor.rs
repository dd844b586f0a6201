//! Starts the children of `shardkeep up` in order, restarts a crashed one with back-off, and stops all of them.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shardkeep_types::DaemonKind;
use tokio::{
    process::{Child as Process, ChildStdin, Command},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    plan::{self, Child, ClusterOptions},
    reachable,
};
use crate::{
    data_dir::{self, Announcement, DataDir},
    http,
    program::{Program, Source},
    terminal::emit,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After a child has run this long, its next restart has the shortest pause again.
const STABLE: Duration = Duration::from_secs(10);
/// Longest time for a child to become ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Lines shown from the log of a child that does not start.
const LAST_LINES: usize = 8;
/// Above the daemons' own grace time.
const STOP_LIMIT: Duration = Duration::from_secs(30);

pub struct Supervisor {
    options: ClusterOptions,
    dir: DataDir,
    program: Arc<Program>,
    registry: Option<String>,
}

/// A child that has started. Its task restarts it until it is stopped.
pub struct Running {
    pub child: Child,
    stop: CancellationToken,
    restarter: tokio::task::JoinHandle<()>,
}

impl Supervisor {
    pub fn new(options: ClusterOptions, dir: DataDir, program: Program) -> Self {
        Self { options, dir, program: Arc::new(program), registry: None }
    }

    /// Starts one child and waits until it is ready.
    ///
    /// # Errors
    /// When the child ends, stays unready or is not reachable at the address it advertises; the message holds the last
    /// lines it wrote.
    pub async fn start(
        &mut self,
        mut child: Child,
        kill: &CancellationToken,
    ) -> Result<(Running, Announcement)> {
        let config = plan::config(&self.options, &self.dir, &child, self.registry.as_deref());
        self.write_config(&child, &config)?;
        let mut started = self.spawn(&child)?;
        let reachable = async {
            let announced = self.until_ready(&child, &mut started).await?;
            reachable::check(&child, &announced, &self.options.overrides).await?;
            Ok(announced)
        };
        let announced = match reachable.await {
            Ok(announced) => announced,
            Err(error) => {
                let _ = started.process.kill().await;
                return Err(error);
            }
        };
        child.keep_ports(&announced);
        self.write_config(&child, &plan::config(&self.options, &self.dir, &child, self.registry.as_deref()))?;
        if child.kind == DaemonKind::Registry {
            self.registry = Some(announced.grpc.clone());
        }
        let stop = CancellationToken::new();
        let restarter = Restarter {
            dir: self.dir.clone(),
            program: self.program.clone(),
            child: child.clone(),
            stop: stop.clone(),
            kill: kill.clone(),
        };
        let restarter = tokio::spawn(restarter.run_until_stopped(started));
        Ok((Running { child, stop, restarter }, announced))
    }

    fn write_config(&self, child: &Child, config: &toml::Table) -> Result<()> {
        let path = self.dir.config(&child.name);
        // It may hold passwords of servers.
        data_dir::write_private(&path, &toml::to_string_pretty(config)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn spawn(&self, child: &Child) -> Result<ChildProcess> {
        let _ = std::fs::remove_file(self.dir.announcement(&child.name));
        Ok(spawn(&self.program, &self.dir, child)?.0)
    }

    async fn until_ready(&self, child: &Child, started: &mut ChildProcess) -> Result<Announcement> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = started.process.try_wait()? {
                bail!("{} ended while starting ({status}):\n{}", child.name, started.last_lines());
            }
            if let Some(announced) = self.dir.announced(&child.name)
                && http::get(&announced.admin, "/readyz").await.is_ok()
            {
                return Ok(announced);
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {START_LIMIT:?}:\n{}", child.name, started.last_lines());
            }
            sleep(Duration::from_millis(25)).await;
        }
    }
}

impl Child {
    /// A restarted child takes the same ports, so that its known addresses stay valid.
    fn keep_ports(&mut self, announced: &Announcement) {
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        self.ports.grpc = port(&announced.grpc).unwrap_or(self.ports.grpc);
        self.ports.admin = port(&announced.admin).unwrap_or(self.ports.admin);
        if self.ports.client.is_some() {
            self.ports.client = port(&announced.client).or(self.ports.client);
        }
    }
}

impl Running {
    /// Asks the child to drain and waits until it has ended.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.restarter.await;
    }
}

/// Restarts one child until it is stopped.
struct Restarter {
    dir: DataDir,
    program: Arc<Program>,
    child: Child,
    stop: CancellationToken,
    /// Set by a second Ctrl-C: no more waiting.
    kill: CancellationToken,
}

impl Restarter {
    async fn run_until_stopped(self, mut running: ChildProcess) {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let status = tokio::select! {
                status = running.process.wait() => status,
                () = self.stop.cancelled() => return self.end(running).await,
            };
            if started.elapsed() > STABLE {
                pause = FIRST_PAUSE;
            }
            let why = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            emit(format_args!("{} ended ({why}); restarting in {pause:?}", self.child.name));
            running = loop {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.stop.cancelled() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                match spawn(&self.program, &self.dir, &self.child) {
                    Ok((started, source)) => {
                        emit(format_args!("{} started again from {source}", self.child.name));
                        break started;
                    }
                    Err(error) => emit(format_args!("{error:#}; trying again in {pause:?}")),
                }
            };
        }
    }

    async fn end(&self, mut running: ChildProcess) {
        let process = &mut running.process;
        signal(process, Signal::TERM);
        let waited = tokio::select! {
            ended = tokio::time::timeout(STOP_LIMIT, process.wait()) => ended.is_ok(),
            () = self.kill.cancelled() => false,
        };
        if !waited {
            emit(format_args!("{} does not end; killed", self.child.name));
            let _ = process.kill().await;
        }
    }
}

fn signal(process: &Process, signal: Signal) {
    let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Fails only when the process has ended, which is what the caller wants.
        let _ = kill_process(pid, signal);
    }
}

/// A process and its standard input. The pipe is kept apart, because waiting for the process closes the pipe that the
/// process holds.
struct ChildProcess {
    process: Process,
    _stdin_guard: Option<ChildStdin>,
    log: PathBuf,
    /// Offset of this run's output in the log.
    log_start: u64,
}

impl ChildProcess {
    fn last_lines(&self) -> String {
        let tail = tail(&self.log, self.log_start).unwrap_or_default();
        format!("  {}\n  (all of it: {})", tail.join("\n  "), self.log.display())
    }
}

/// The last lines after the offset `from`, as text.
fn tail(path: &Path, from: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| readable(line)).collect())
}

/// A log line in JSON as `LEVEL message: error`; any other line as it is.
fn readable(line: &str) -> String {
    let Ok(Value::Object(record)) = serde_json::from_str(line) else { return line.to_owned() };
    let field = |name: &str| record.get(name).and_then(Value::as_str);
    let (Some(level), Some(message)) = (field("level"), field("message")) else { return line.to_owned() };
    let error = field("error").map_or_else(String::new, |error| format!(": {error}"));
    format!("{level} {message}{error}")
}

/// The daemon with the settings of the plan. It inherits the other variables of the environment.
fn daemon_command(program: &Program, dir: &DataDir, child: &Child) -> (Command, Source) {
    let (mut command, source) = program.command();
    command.args(["daemon", "--supervised", child.kind.as_str(), "--config"]).arg(dir.config(&child.name));
    let planned = plan::config(&ClusterOptions::default(), dir, child, None);
    for variable in plan::overriding_variables(&planned) {
        command.env_remove(variable);
    }
    (command, source)
}

/// Starts the daemon, and tells which file it runs.
fn spawn(program: &Program, dir: &DataDir, child: &Child) -> Result<(ChildProcess, Source)> {
    let path = dir.log().join(format!("{}.log", child.name));
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let log_start = log.metadata().map_or(0, |log| log.len());
    let (mut command, source) = daemon_command(program, dir, child);
    let mut process = command
        // The child ends when this pipe closes, so that it never outlives its supervisor, however that ended.
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in the terminal reaches the supervisor alone, which then stops its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", child.name))?;
    let stdin_guard = process.stdin.take();
    Ok((ChildProcess { process, _stdin_guard: stdin_guard, log: path, log_start }, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_log_line_is_shown_as_text() {
        let line = r#"{"timestamp":"2026-11-30T20:00:00Z","level":"ERROR","message":"can not start","error":"gRPC: can not listen on 127.0.0.1:7001: in use","target":"shardkeep_daemon::run"}"#;
        assert_eq!(readable(line), "ERROR can not start: gRPC: can not listen on 127.0.0.1:7001: in use");
        for plain in ["thread panicked", "{not JSON", r#"{"some":"object"}"#] {
            assert_eq!(readable(plain), plain);
        }
    }

    #[test]
    fn log_tail_excludes_earlier_runs() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("zone-1.log");
        std::fs::write(&log, "an old failure\n").unwrap();
        let from = std::fs::metadata(&log).unwrap().len();
        assert!(tail(&log, from).unwrap().is_empty());
        let new: String = (0..20).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, format!("an old failure\n{new}")).unwrap();
        let shown = tail(&log, from).unwrap();
        assert_eq!((shown.len(), shown[0].as_str()), (LAST_LINES, "line 12"));
    }

    #[test]
    fn daemon_inherits_no_variable_for_an_address_of_the_plan() {
        let dir = DataDir::new(Path::new("var")).unwrap();
        let zone = plan::children(7000).into_iter().find(|child| child.kind == DaemonKind::Zone).unwrap();
        let (command, _) = daemon_command(&Program::this().unwrap(), &dir, &zone);
        let removed: Vec<_> =
            command.as_std().get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        for setting in ["DAEMON__ADMIN", "DAEMON__GRPC", "DAEMON__DATA_DIR", "CLUSTER__KEY", "LOG__FILE"] {
            let variable = format!("SHARDKEEP_{setting}");
            assert!(removed.iter().any(|name| **name == *variable), "{variable}");
        }
        assert!(!removed.iter().any(|name| name.to_string_lossy().starts_with("SHARDKEEP_ZONE__")));
    }
}

//! A server as a child process that cannot outlive its test, run by a user that servers accept.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Where a program is: in `PATH`, or in the newest of the folders given.
pub(crate) fn find(program: &str, folders: &[PathBuf], package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("{program} is not installed; these tests need it: apt-get install {package}"))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The user that runs the servers, because they refuse to run as root.
pub(crate) struct User {
    /// Set when this process is root.
    ids: Option<(u32, u32)>,
}

impl User {
    /// This user, or if that is root the first of `names` that exists.
    pub(crate) fn unprivileged(names: &[&str]) -> Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(Self { ids: None });
        }
        let users = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let ids_of = |name: &str| {
            let fields: Vec<&str> = users
                .lines()
                .map(|line| line.split(':'))
                .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.collect()))?;
            Some((fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?))
        };
        let ids = names.iter().copied().find_map(ids_of);
        Ok(Self {
            ids: Some(
                ids.ok_or_else(|| anyhow!("none of the users {names:?} exists, and this one is root"))?,
            ),
        })
    }

    /// Gives the folder to the user.
    pub(crate) fn change_owner(&self, folder: &Path) -> Result<()> {
        if let Some((user, group)) = self.ids {
            std::os::unix::fs::chown(folder, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// A command that runs `program` as this user and dies with the thread that starts it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some((user, group)) = self.ids {
            command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
        }
        command.arg("--").arg(program).stdin(Stdio::null());
        command
    }
}

/// Runs a helper program to its end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A running server. A separate thread owns the child: the kernel kills the child when the thread that started it ends, and
/// the thread of a test ends early.
pub(crate) struct Process {
    stop: Option<mpsc::SyncSender<&'static str>>,
    monitor: Option<thread::JoinHandle<()>>,
    id: u32,
}

impl Process {
    /// Starts `command` with its output in `log`, and waits until `ready` says so.
    pub(crate) fn start(mut command: Command, log: &Path, ready: impl Fn() -> bool) -> Result<Self> {
        let output = File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let (stop, stopped) = mpsc::sync_channel(1);
        let (started, start) = mpsc::sync_channel(1);
        let monitor =
            thread::Builder::new().name("testkit-server".to_owned()).spawn(move || {
                match command.spawn().with_context(|| format!("{command:?}")) {
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                    Ok(child) => {
                        let _ = started.send(Ok(child.id()));
                        monitor_child(child, &stopped);
                    }
                }
            })?;
        let id = start.recv().context("the thread of the server ended")??;
        let process = Self { stop: Some(stop), monitor: Some(monitor), id };
        let begin = Instant::now();
        while !ready() {
            if process.monitor.as_ref().is_none_or(thread::JoinHandle::is_finished)
                || begin.elapsed() > START_TIMEOUT
            {
                bail!("the server did not start:\n{}", fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(process)
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        run(Command::new("kill").arg(format!("-{name}")).arg(self.id.to_string()))
    }

    /// Sends a signal to the server and to each of its children, which serve one connection each.
    pub(crate) fn signal_all(&self, name: &str) -> Result<()> {
        let id = self.id;
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        for child in children.split_whitespace() {
            // A child may end by itself meanwhile.
            let _ = run(Command::new("kill").arg(format!("-{name}")).arg(child));
        }
        self.signal(name)
    }

    /// Ends the server by this signal, and waits for it.
    pub(crate) fn end(&mut self, signal: &'static str) {
        if let Some(stop) = self.stop.take() {
            // Fails when the server has ended by itself.
            let _ = stop.send(signal);
        }
        if let Some(monitor) = self.monitor.take() {
            drop(monitor.join());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

/// Waits for the end of the child, or of the test.
fn monitor_child(mut child: Child, stopped: &mpsc::Receiver<&'static str>) {
    let signal = loop {
        match stopped.recv_timeout(Duration::from_millis(50)) {
            Ok(signal) => break signal,
            Err(mpsc::RecvTimeoutError::Disconnected) => break "QUIT",
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if exited(&mut child).is_some() {
                    return;
                }
            }
        }
    };
    drop(run(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string())));
    let begin = Instant::now();
    while exited(&mut child).is_none() {
        if begin.elapsed() > STOP_TIMEOUT {
            drop(child.kill());
            drop(child.wait());
            return;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn exited(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

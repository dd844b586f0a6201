//! Runs a daemon from its arguments to its exit code: [`main`] for processes, [`launch`] inside tests.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    BoundAddresses, Daemon, Service, Settings, SettingsError, Sources, admin, announce, healthcheck, otlp,
    repeat_limit, telemetry,
};

/// Exit code of wrong settings or arguments.
const EXIT_USAGE: u8 = 2;
/// Exit code after a second signal: 128 + SIGINT, as in shells.
const EXIT_INTERRUPTED: i32 = 130;
/// Time for tasks to end after they are stopped, and for the infrastructure to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Parser, Debug)]
struct Args {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", env = "SHARDKEEP_CONFIG")]
    config: Option<PathBuf>,
    /// Sets one value, for example `daemon.grace=30s`; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Checks the settings, prints `ok` or what is wrong, and exits
    #[arg(long)]
    check_config: bool,
    /// Prints the settings in force, as a file could hold them, and exits
    #[arg(long)]
    print_config: bool,
    /// Exits 0 if the daemon that runs with these settings is ready
    #[arg(long)]
    healthcheck: bool,
}

/// The whole `main` of a daemon: arguments from the process.
pub fn main<S: Service>() -> ExitCode {
    main_with_args::<S>(std::env::args_os())
}

/// Like [`main`]; the first argument is the name of the program.
pub fn main_with_args<S: Service>(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match parse::<S>(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let settings = match load::<S>(&args) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.print_config {
        print!("{}", crate::mask::masked(&settings.to_table(S::KIND)));
        return ExitCode::SUCCESS;
    }
    if args.check_config {
        println!("ok");
        return ExitCode::SUCCESS;
    }
    if args.healthcheck {
        return match healthcheck::check_ready(&settings.daemon.admin) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    crate::process::raise_open_file_limit();
    let threads = match settings.daemon.threads {
        0 => S::threads(std::thread::available_parallelism().map_or(1, usize::from)),
        threads => threads,
    };
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(process::<S>(settings));
            // Blocking calls that outlive the grace time must not hold the process.
            runtime.shutdown_timeout(Duration::from_millis(100));
            code
        }
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse<S: Service>(args: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let defaults = Settings::<S::Config>::default().to_table(S::KIND).to_string();
    let command = Args::command()
        .name(S::KIND.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .about(format!("Shardkeep's {} daemon", S::KIND))
        .after_help(format!(
            "Every setting may stand in the file, in the environment as SHARDKEEP_<SECTION>__<KEY>, or in --set; \
             later ones win.\n\nDefaults:\n\n{defaults}"
        ));
    Args::from_arg_matches(&command.try_get_matches_from(args)?)
}

fn load<S: Service>(args: &Args) -> Result<Settings<S::Config>, SettingsError> {
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let sources = Sources { file: args.config.clone(), env: env.collect(), set: args.set.clone() };
    Settings::load(S::KIND, &sources)
}

/// Runs a daemon as a process: logger, signals, exit code.
async fn process<S: Service>(settings: Settings<S::Config>) -> ExitCode {
    let telemetry = match telemetry::install(&settings.log) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let running = match launch::<S>(settings).await {
        Ok(running) => running,
        Err(error) => {
            error!(error = format!("{error:#}"), "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let daemon = running.daemon.clone();
    let resource = otlp::resource(daemon.kind().as_str(), &daemon.bound().name);
    daemon.spawn_infrastructure(
        "report of suppressed log records",
        repeat_limit::report(telemetry.repeat_limit, daemon.finished()),
    );
    let export = otlp::run(telemetry.exporter, resource, daemon.log_collector(), daemon.finished());
    let export = tokio::spawn(daemon.supervised("log export", export));
    if let Err(error) = drain_on_signals(&daemon) {
        daemon.fail(&format!("cannot listen for signals: {error}"));
    }
    let result = running.join().await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, export).await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

fn drain_on_signals(daemon: &Daemon) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (handle, finished) = (daemon.clone(), daemon.finished());
    daemon.spawn_infrastructure("signals", async move {
        let daemon = handle;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = finished.cancelled() => return Ok(()),
            };
            if daemon.draining().is_cancelled() {
                warn!(signal = name, "second signal: exit at once");
                std::process::exit(EXIT_INTERRUPTED);
            }
            daemon.drain(name);
        }
    });
    Ok(())
}

/// A daemon inside this process. Unlike under [`main`], it has no signal handlers and no global logger.
pub struct Running {
    daemon: Daemon,
    lifecycle: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// Starts a daemon on the current runtime.
///
/// # Errors
/// When the admin address cannot be bound.
pub async fn launch<S: Service>(settings: Settings<S::Config>) -> anyhow::Result<Running> {
    let daemon = Daemon::new(S::KIND, &settings.daemon.name);
    info!(kind = %S::KIND, name = settings.daemon.name, version = env!("CARGO_PKG_VERSION"), "starting");
    admin::start(&daemon, &settings.daemon.admin, &settings.to_table(S::KIND)).await?;
    announce_when_ready(&daemon, settings.daemon.announce.clone());
    let grace = settings.daemon.grace;
    // `run_lifecycle` treats a panic of the service as its failure.
    let service = tokio::spawn(S::run(settings, daemon.clone()));
    let lifecycle = tokio::spawn(run_lifecycle(daemon.clone(), service, grace));
    Ok(Running { daemon, lifecycle })
}

fn announce_when_ready(daemon: &Daemon, path: Option<PathBuf>) {
    let Some(path) = path else { return };
    let (mut readiness, finished, handle) = (daemon.readiness(), daemon.finished(), daemon.clone());
    daemon.spawn_infrastructure("announce file", async move {
        tokio::select! {
            ready = readiness.wait_for(|ready| *ready) => ready.map(drop)?,
            () = finished.cancelled() => return Ok(()),
        }
        announce::write(&path, &handle.bound())
            .map_err(|error| anyhow::anyhow!("announce file {}: {error}", path.display()))
    });
}

/// Runs the service to its end: drain, grace time, stop, join, close.
async fn run_lifecycle(
    daemon: Daemon,
    service: tokio::task::JoinHandle<anyhow::Result<()>>,
    grace: Duration,
) -> anyhow::Result<()> {
    let abort = service.abort_handle();
    let result = tokio::select! {
        result = join_service(&daemon, service) => result,
        () = grace_expired(&daemon, grace) => {
            warn!(grace = ?grace, tasks = daemon.tasks().len(), "not drained within the grace time; dropping the rest");
            abort.abort();
            Ok(())
        }
    };
    daemon.stopped().cancel();
    daemon.finished().cancel();
    daemon.infrastructure().close();
    if tokio::time::timeout(CLOSE_TIMEOUT, daemon.infrastructure().wait()).await.is_err() {
        warn!("infrastructure did not close in time");
    }
    info!("stopped");
    match result {
        Ok(()) if daemon.has_failed() => anyhow::bail!("a task failed"),
        other => other,
    }
}

async fn join_service(
    daemon: &Daemon,
    service: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let result = match service.await {
        Ok(result) => result,
        Err(error) => Err(anyhow::anyhow!("the service panicked: {error}")),
    };
    if let Err(error) = &result {
        daemon.fail(&format!("{error:#}"));
    }
    daemon.drain("the service has ended");
    daemon.tasks().close();
    daemon.tasks().wait().await;
    result
}

/// Resolves when the grace time and the time to stop are over.
async fn grace_expired(daemon: &Daemon, grace: Duration) {
    daemon.draining().cancelled().await;
    tokio::time::sleep(grace).await;
    daemon.stopped().cancel();
    tokio::time::sleep(CLOSE_TIMEOUT).await;
}

impl Running {
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Waits until the daemon is ready, and returns its addresses.
    ///
    /// # Errors
    /// When the daemon ended before it was ready.
    pub async fn ready(&mut self) -> anyhow::Result<BoundAddresses> {
        let mut readiness = self.daemon.readiness();
        tokio::select! {
            _ = readiness.wait_for(|ready| *ready) => Ok(self.daemon.bound()),
            ended = &mut self.lifecycle => {
                ended??;
                anyhow::bail!("the daemon ended before it was ready")
            }
        }
    }

    /// Drains the daemon and waits for its end.
    ///
    /// # Errors
    /// When the daemon failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.daemon.drain("stop");
        self.join().await
    }

    /// Waits for the end of the daemon.
    ///
    /// # Errors
    /// When the daemon failed.
    pub async fn join(self) -> anyhow::Result<()> {
        self.lifecycle.await?
    }
}

//! `shardkeep up`: the whole cluster on this machine, fourteen processes of this one binary.

mod network;
mod plan;
mod reachable;
mod region;
mod servers;
mod settings;
mod supervisor;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use shardkeep_cluster::certs;
use shardkeep_types::{DaemonKind, WorldId};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{
    network::{Network, NetworkArgs},
    plan::{Child, ClusterOptions},
    region::Region,
    supervisor::{Running, Supervisor},
};
use crate::{
    data_dir::{Announcement, DataDir},
    operator::Operator,
    orphan,
    program::{self, Program},
    terminal::{self, emit},
};

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Folder for certificates, databases and logs
    #[arg(long, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    pub data_dir: PathBuf,
    /// First of the ports the cluster uses: login is +100, gateways +200, console +300, DNS +53; 0 takes free ones
    #[arg(long, default_value_t = 7000, value_parser = port_base())]
    pub port_base: u16,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// PostgreSQL database for all state (postgres://user:password@host/database); SQLite files when absent
    #[arg(long, env = "SHARDKEEP_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Redis for the chat bus (redis://host:port); in memory when absent
    #[arg(long, env = "SHARDKEEP_REDIS", hide_env_values = true)]
    pub redis: Option<String>,
    /// Name of this region among several that share accounts; the home region, which keeps them, unless --home names
    /// another
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Data folder of the home region's cluster on this machine; this region shares its accounts and its authority
    #[arg(long, value_name = "DATA_DIR", requires = "region")]
    pub home: Option<PathBuf>,
    /// TOML file with settings for the daemons, in the sections they read ([zone], [gateway], …)
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Show no progress bar
    #[arg(long, short)]
    pub quiet: bool,
    /// Drain when standard input closes, which tells that the parent process has ended
    #[arg(long)]
    pub supervised: bool,
}

/// Of a command-line argument: a base from which every planned port is one.
pub fn port_base() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(..=i64::from(plan::HIGHEST_BASE))
}

/// Runs until Ctrl-C, then drains; a second Ctrl-C ends everything at once.
pub async fn run(args: UpArgs) -> Result<()> {
    if args.supervised {
        orphan::drain_with_parent();
    }
    let dir = DataDir::new(&args.data_dir)?;
    let _lock = dir.take()?;
    let home = args.home.as_deref();
    let region = args.region.as_deref().map(|name| region::open(name, home, &dir)).transpose()?;
    let options = options(&args, region)?;
    if let Some(file) = &args.config {
        settings::check(&options, &dir, file)?;
    }
    let children = plan::children(args.port_base);
    for child in &children {
        let config = plan::config(&options, &dir, child, None);
        network::check_console(&config)?;
        check_ports_free(child, &config, args.port_base)?;
    }
    for warning in options.network.warnings() {
        emit(warning);
    }
    certificates(&dir, &options, &children)?;
    servers::report_unreachable(&options).await;

    let kill = CancellationToken::new();
    let interrupted = interrupts(kill.clone())?;
    let started = Instant::now();
    let mut supervisor = Supervisor::new(options, dir.clone(), Program::this()?);
    let mut running = Vec::new();
    let result = tokio::select! {
        result = start_all(&mut supervisor, children, &mut running, &kill, args.quiet) => result,
        () = interrupted.cancelled() => Ok(Vec::new()),
    };
    match result {
        Ok(announced) if !interrupted.is_cancelled() => {
            print_ready(&dir, &announced, started.elapsed()).await;
            if let Some(name) = &args.region {
                emit(region::join_hint(name, home, &dir));
            }
            interrupted.cancelled().await;
            stop_all(running, &kill).await;
            Ok(())
        }
        Ok(_) => {
            stop_all(running, &kill).await;
            Ok(())
        }
        Err(error) => {
            stop_all(running, &kill).await;
            Err(error)
        }
    }
}

fn options(args: &UpArgs, region: Option<Region>) -> Result<ClusterOptions> {
    Ok(ClusterOptions {
        network: Network::from(&args.network),
        postgres: args.postgres.clone(),
        redis: args.redis.clone(),
        region,
        overrides: args.config.as_deref().map_or_else(|| Ok(toml::Table::new()), overrides)?,
    })
}

fn overrides(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

/// Checks a settings file for a cluster that is the home region of this name, or no region.
pub fn check_settings(file: &Path, dir: &DataDir, region: Option<&str>) -> Result<()> {
    let region = region.map(|name| Region::Home { name: name.to_owned() });
    let options = ClusterOptions { region, overrides: overrides(file)?, ..ClusterOptions::default() };
    Ok(settings::check(&options, dir, file)?)
}

/// Reports a port that is in use before any daemon has started. `config` holds the addresses of the plan and those of the
/// user's settings.
fn check_ports_free(child: &Child, config: &toml::Table, port_base: u16) -> Result<()> {
    let kind = child.kind.as_str();
    let client = plan::client_setting(child.kind);
    for (section, setting) in [("daemon", "grpc"), ("daemon", "admin"), (kind, client)] {
        let address = config.get(section).and_then(|it| it.get(setting)?.as_str()?.parse().ok());
        let Some(address) = address.filter(|address: &SocketAddr| address.port() != 0) else { continue };
        // Players and resolvers also use UDP.
        let udp = section == kind && child.kind != DaemonKind::Gm;
        let free = TcpListener::bind(address).map(drop);
        let free = free.and_then(|()| if udp { UdpSocket::bind(address).map(drop) } else { Ok(()) });
        if let Err(error) = free {
            bail!(
                "{} cannot listen on {address} ({section}.{setting}): {error}; {}",
                child.name,
                fix_hint(&error, port_base)
            );
        }
    }
    Ok(())
}

fn fix_hint(error: &io::Error, base: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "--bind takes an address of this machine".to_owned(),
        _ => format!(
            "end the program that uses the port, or move all ports with --port-base (now {base}; 0 takes free ones)"
        ),
    }
}

fn certificates(dir: &DataDir, options: &ClusterOptions, children: &[Child]) -> Result<()> {
    let tls = dir.tls();
    certs::make_ca(&tls).context("cannot make the development CA")?;
    for child in children {
        let world = if plan::has_world(child.kind) { WorldId(1) } else { WorldId(0) };
        certs::issue(&tls, child.kind, &child.name, world)
            .with_context(|| format!("cannot make the certificate of {}", child.name))?;
    }
    certs::issue_players(&tls, &[&options.network.advertise])
        .context("cannot make the certificate for players")?;
    certs::issue(&tls, DaemonKind::Cli, "cli", WorldId(0)).context("cannot make this tool's certificate")?;
    Ok(())
}

/// The token returned is set by the first Ctrl-C or SIGTERM; the second sets `kill`.
fn interrupts(kill: CancellationToken) -> Result<CancellationToken> {
    let first = CancellationToken::new();
    let first_signal = first.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        first_signal.cancel();
        next().await;
        kill.cancel();
        // The children's pipes close with this process.
        std::process::exit(130);
    });
    Ok(first)
}

async fn start_all(
    supervisor: &mut Supervisor,
    children: Vec<Child>,
    running: &mut Vec<Running>,
    kill: &CancellationToken,
    quiet: bool,
) -> Result<Vec<Announcement>> {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(children.len() as u64) };
    if let Ok(style) = ProgressStyle::with_template("{spinner} starting {msg:12} {bar:30} {pos}/{len}") {
        bar.set_style(style);
    }
    let mut announced = Vec::new();
    for child in children {
        bar.set_message(child.name.clone());
        let (child, announcement) = supervisor.start(child, kill).await?;
        running.push(child);
        announced.push(announcement);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(announced)
}

async fn print_ready(dir: &DataDir, announced: &[Announcement], took: Duration) {
    let mut table = terminal::table(["daemon", "clients", "gRPC", "admin", "state"]);
    for it in announced {
        let client = if it.client.is_empty() { "-" } else { it.client.as_str() };
        table.add_row([it.name.as_str(), client, it.grpc.as_str(), it.admin.as_str(), "up"]);
    }
    emit(table);
    emit(format_args!(
        "{} daemons ready in {:.1} s; data in {}",
        announced.len(),
        took.as_secs_f32(),
        dir.path().display()
    ));
    match sign_in_link(dir).await {
        Ok(url) => emit(format_args!("console: {url}  (signs in once)")),
        Err(error) => emit(format_args!("console: no sign-in link: {error:#}")),
    }
    emit("players: each client address serves TCP, QUIC (UDP) and WebSockets (ws://, wss://)");
    emit("next, in another terminal:");
    for command in ["demo", "play", "status"] {
        emit(format_args!("  {}", program::hint(command, dir.path())));
    }
    emit("Ctrl-C drains and ends the cluster");
}

async fn sign_in_link(dir: &DataDir) -> Result<String> {
    Operator::local(dir).await?.one_time_link().await
}

/// Stops the players' daemons first and the stores last. Daemons of one rank stop side by side.
async fn stop_all(running: Vec<Running>, kill: &CancellationToken) {
    if running.is_empty() {
        return;
    }
    emit("draining (Ctrl-C again ends at once)");
    let mut ranks: Vec<Vec<Running>> = Vec::new();
    for child in running {
        let rank = stop_rank(child.child.kind);
        ranks.resize_with(ranks.len().max(rank + 1), Vec::new);
        ranks[rank].push(child);
    }
    for rank in ranks {
        futures::future::join_all(rank.into_iter().map(Running::stop)).await;
        if kill.is_cancelled() {
            return;
        }
    }
    emit("all daemons ended");
}

fn stop_rank(kind: DaemonKind) -> usize {
    match kind {
        DaemonKind::Dns | DaemonKind::Login | DaemonKind::Gm => 0,
        DaemonKind::Gateway => 1,
        DaemonKind::Zone | DaemonKind::Chat | DaemonKind::Ai => 2,
        DaemonKind::World | DaemonKind::Billing => 3,
        DaemonKind::Dbcache => 4,
        _ => 5,
    }
}

/// Every port that `up` would bind, with the daemon it is for.
pub fn planned_ports(base: u16) -> Vec<(String, u16)> {
    plan::children(base)
        .into_iter()
        .flat_map(|child| {
            [Some(child.ports.grpc), Some(child.ports.admin), child.ports.client]
                .into_iter()
                .flatten()
                .filter(|port| *port != 0)
                .map(move |port| (child.name.clone(), port))
        })
        .collect()
}

pub fn planned_names() -> Vec<String> {
    plan::children(0).into_iter().map(|child| child.name).collect()
}

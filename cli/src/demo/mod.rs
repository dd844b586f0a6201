//! `shardkeep demo`: headless players on the whole path, and a table of results. With `--chaos`, every daemon process is
//! killed once meanwhile. Conservation of items and coins is checked at the end.

mod chaos;
mod daemon_work;
mod lanes;
pub mod local;
mod pair;
pub mod player;
pub mod stats;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use shardkeep_client::Config;
use shardkeep_types::Secret;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    local::LocalCluster,
    pair::{Pair, Report},
    player::{Credentials, PlayTarget},
    stats::Stats,
};
use crate::{
    account,
    data_dir::DataDir,
    lane::LaneArgs,
    ledger,
    operator::{ClusterArgs, Operator},
    program::Program,
    up,
};

/// Logins begun per second.
const ARRIVALS: u32 = 20;
/// Failures shown in full.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Players, in pairs; a world admits 1,000 unless [world] sets another capacity
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    players: u16,
    /// How long they play after all have arrived, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Address of the cluster's DNS server; the local cluster's when absent (one is started if none runs)
    #[arg(long)]
    dns: Option<String>,
    /// DNS zone of the cluster
    #[arg(long, default_value = "shardkeep.test")]
    zone: String,
    /// Name of the deployment
    #[arg(long, default_value = "dev")]
    deployment: String,
    /// World to play in
    #[arg(long, default_value_t = 1)]
    world: u32,
    /// Kill every daemon of the local cluster once (SIGKILL) while they play
    #[arg(long, conflicts_with = "dns")]
    chaos: bool,
    #[command(flatten)]
    lane: LaneArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Exit code 1 on any failure.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let dir = DataDir::new(&args.cluster.data_dir)?;
    let local = match args.dns {
        None => Some(LocalCluster::running_or_started(&dir, Program::this()?.command().0).await?),
        Some(_) => None,
    };
    let dns = match &args.dns {
        Some(address) => address.clone(),
        None => dir.announced("dns-1").context("the local cluster has no DNS server")?.client,
    };
    let play_target = PlayTarget {
        config: args.lane.choose(
            Config::with_dns(resolve(&dns).await?).deployment(&args.deployment),
            local.as_ref().map(|_| &dir),
        )?,
        zone: args.zone.clone(),
        world: args.world,
    };
    let operator = Operator::connect(&args.cluster).await?;
    let credentials = accounts(&operator, args.players).await?;

    let stop_watching = CancellationToken::new();
    let watching = local.as_ref().map(|_| {
        tokio::spawn(daemon_work::collect_work(dir.clone(), up::planned_names(), stop_watching.clone()))
    });
    let (stats, reports, killed) = play(&args, &dir, play_target, credentials).await?;
    stop_watching.cancel();

    println!("{}", stats.table());
    if let Some(watching) = watching {
        println!("{}", watching.await?.table());
    }
    let verdict = evaluate(&args, &operator, &stats, &reports, killed.as_deref()).await?;
    if let Some(local) = local {
        local.end().await?;
    }
    Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found =
        tokio::net::lookup_host(address).await.with_context(|| format!("{address:?} is not host:port"))?;
    found.next().with_context(|| format!("{address} has no address"))
}

/// Creates the accounts of this demo, or gives them a new random password.
async fn accounts(operator: &Operator, players: u16) -> Result<Vec<Credentials>> {
    let password = account::random_password()?;
    let bar = bar(u64::from(players), "{spinner} accounts {bar:30} {pos}/{len}");
    let mut accounts = operator.accounts().await?;
    let mut credentials = Vec::new();
    for number in 1..=players {
        let name = format!("demo-{number:04}");
        account::ensure(&mut accounts, &name, &password).await?;
        let password = Secret::new(password.clone());
        credentials.push(Credentials { account: name, password, character: character_name(number) });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(credentials)
}

/// Names are letters only: the number in letters.
fn character_name(number: u16) -> String {
    let digits = number.to_string();
    let letters = digits.bytes().map(|digit| char::from(b'a' + (digit - b'0')));
    format!("Demo{}", letters.collect::<String>())
}

async fn play(
    args: &DemoArgs,
    dir: &DataDir,
    play_target: PlayTarget,
    credentials: Vec<Credentials>,
) -> Result<(Arc<Stats>, Vec<Report>, Option<Vec<chaos::KilledDaemon>>)> {
    let stats = Arc::new(Stats::default());
    let stop = CancellationToken::new();
    let mut pairs = JoinSet::new();
    let mut lanes = lanes::free_lanes().into_iter().cycle();
    let mut arrivals = interval(Duration::from_secs(2) / ARRIVALS);
    let time = Duration::from_secs(args.seconds);
    let bar = bar(args.seconds, "{spinner} playing {bar:30} {pos}/{len} s  {msg}");
    let mut credentials = credentials.into_iter();
    while let (Some(one), Some(other)) = (credentials.next(), credentials.next()) {
        arrivals.tick().await;
        let pair = Pair {
            lane: lanes.next().context("the map has no free way over the border")?,
            play_target: play_target.clone(),
            credentials: [one, other],
            stats: stats.clone(),
            chaos: args.chaos,
        };
        pairs.spawn(pair.play(stop.clone()));
    }
    // The time begins after the last pair was started, because 500 players take longer to arrive than a short demo
    // lasts.
    let until = Instant::now() + time;
    let killing = async {
        if args.chaos { chaos::run(dir, until - Instant::now(), &bar).await.map(Some) } else { Ok(None) }
    };
    let (killed, ()) = tokio::join!(killing, show_time(&bar, until, &stats));
    stop.cancel();
    bar.set_message("leaving");
    let reports = pairs.join_all().await;
    bar.finish_and_clear();
    Ok((stats, reports, killed?))
}

async fn show_time(bar: &ProgressBar, until: Instant, stats: &Stats) {
    let started = Instant::now();
    let mut seconds = interval(Duration::from_millis(500));
    while Instant::now() < until {
        seconds.tick().await;
        bar.set_position(started.elapsed().as_secs());
        bar.set_message(format!("{} failures", stats.failures()));
    }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Prints the failures and returns the verdict. Under chaos a step may fail and be repeated, but no session and no property
/// may be lost.
async fn evaluate(
    args: &DemoArgs,
    operator: &Operator,
    stats: &Stats,
    reports: &[Report],
    killed: Option<&[chaos::KilledDaemon]>,
) -> Result<bool> {
    let rounds: u32 = reports.iter().map(|report| report.rounds).sum();
    let lost: Vec<&String> = reports.iter().flat_map(|report| &report.sessions_lost).collect();
    let failures: Vec<&String> = reports.iter().flat_map(|report| &report.failures).collect();
    println!(
        "{} players, {rounds} rounds, {} failed, {} sessions lost",
        args.players,
        failures.len(),
        lost.len()
    );
    if let Some(killed) = killed {
        let slowest = killed.iter().max_by_key(|it| it.recovery_time);
        if let Some(slowest) = slowest {
            println!(
                "{} daemons killed once each; slowest back: {} after {:.1} s",
                killed.len(),
                slowest.daemon,
                slowest.recovery_time.as_secs_f32()
            );
        }
    }
    for why in
        stats.failure_samples().iter().chain(failures.iter().copied()).chain(lost.iter().copied()).take(SHOWN)
    {
        println!("  {why}");
    }
    let totals = ledger::query(operator).await?;
    ledger::print(&totals);
    if rounds == 0 {
        bail!("no pair played a round");
    }
    let intact = lost.is_empty() && totals.holds;
    Ok(if args.chaos { intact } else { intact && failures.is_empty() && stats.failures() == 0 })
}

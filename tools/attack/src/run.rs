//! The run: honest players alone, then honest players under attack, and the verdict.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use shardkeep_cli::{
    account,
    data_dir::DataDir,
    demo::{
        local::LocalCluster,
        player::{Credentials, PlayTarget},
    },
    operator::{ClusterArgs, Operator},
    program, terminal,
};
use shardkeep_client::Config;
use shardkeep_types::{DaemonKind, Secret};
use tokio::{process::Command, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    attack_plan::{Account, Attack, AttackPlan},
    attacker_process,
    daemon_monitor::DaemonMonitor,
    honest_players,
    loopback::{self, Loopback, NotLoopback},
    outcome::{Attackers, Outcome, Phase},
};

/// Exit code for a target that is not on this machine.
const REFUSED: u8 = 2;
/// Accounts of the attackers, one for each attack from inside.
const ATTACKERS: usize = 5;
/// Honest play before the attack, for comparison.
const BASELINE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct AttackArgs {
    /// Only these attacks; all when absent
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Attack>,
    /// How long they attack
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Attempts a second of each attack (the DNS flood sends twenty queries for each)
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Connections that each attack keeps open at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=4_000))]
    open: u16,
    /// Share of one core that the attackers together may use, in percent
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=400))]
    cpu: u16,
    /// Honest players
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    players: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Loopback address of the cluster's DNS server; the local cluster's when absent
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
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Exit code 1 when honest visits fail, a daemon dies, a gateway uses too much processor time, an attack gets in, or a
/// requested attack makes no attempt; 2 when a target is not on this machine.
pub async fn run(args: AttackArgs) -> Result<ExitCode> {
    match attack(&args).await {
        Ok(outcome) => {
            if args.json {
                println!("{}", serde_json::to_string_pretty(&outcome)?);
                outcome.faults.iter().for_each(|fault| eprintln!("FAULT: {fault}"));
            } else {
                outcome.print();
            }
            Ok(if outcome.good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) if error.downcast_ref::<NotLoopback>().is_some() => {
            eprintln!("refused: {}", terminal::explain(&error));
            Ok(ExitCode::from(REFUSED))
        }
        Err(error) => Err(error),
    }
}

async fn attack(args: &AttackArgs) -> Result<Outcome> {
    // Checked before anything is started or sent.
    let given = match &args.dns {
        Some(name) => Loopback::resolve(name).await?.first().copied(),
        None => None,
    };
    if let Some(registry) = &args.cluster.registry {
        Loopback::resolve(registry).await?;
    }
    let dir = DataDir::new(&args.cluster.data_dir)?;
    let local = match given {
        None => Some(LocalCluster::running_or_started(&dir, Command::new(program::main_program()?)).await?),
        Some(_) => None,
    };
    let dns = match given {
        Some(dns) => dns,
        None => {
            let announced = dir.announced("dns-1").context("the local cluster has no DNS server")?.client;
            Loopback::resolve(&announced).await?.first().copied().context("the DNS server has no address")?
        }
    };
    let outcome = run_phases(args, dns).await;
    if let Some(local) = local {
        local.end().await?;
    }
    outcome
}

/// The phases: honest players alone, honest players under attack, and the daemons afterwards.
async fn run_phases(args: &AttackArgs, dns: Loopback) -> Result<Outcome> {
    let config = Config::with_dns(dns.address()).deployment(&args.deployment);
    let operator = local_operator(args).await?;
    let (players, accounts) = create_accounts(&operator, args.players).await?;
    let http = http_endpoints(&operator).await?;
    let attack_plan = AttackPlan { http, ..attack_plan(args, &config, dns, &players, accounts).await? };
    let play_target = PlayTarget { config, zone: args.zone.clone(), world: args.world };

    honest_players::first_visits(&play_target, &players)
        .await
        .context("honest players cannot enter before the attack")?;
    let baseline_done = CancellationToken::new();
    let baseline_time = BASELINE.min(Duration::from_secs(args.seconds));
    let watching = tokio::spawn(DaemonMonitor::new(&operator).await?.run_until(baseline_done.clone()));
    let (before, ()) = tokio::join!(honest_players::play(&play_target, &players, &baseline_done), async {
        sleep(baseline_time).await;
        baseline_done.cancel();
    });

    let baseline_usage = watching.await?;

    let attack_done = CancellationToken::new();
    let watching = tokio::spawn(
        DaemonMonitor::new(&operator).await?.with_baseline(&baseline_usage).run_until(attack_done.clone()),
    );
    let (under, report) = tokio::join!(honest_players::play(&play_target, &players, &attack_done), async {
        let report = attacker_process::attack(&attack_plan).await;
        attack_done.cancel();
        report
    });
    let report = report?;
    let daemons = watching.await?.settle().await;
    let attackers = Attackers {
        cap: attack_plan.cpu,
        cpu: report.cpu,
        seconds: report.seconds,
        rate: attack_plan.rate,
        open: attack_plan.open,
    };
    Ok(Outcome::evaluate(Phase::of(&before), Phase::of(&under), report, attackers, daemons, &args.only))
}

/// Resolves the registry again, because its name may lead elsewhere by now.
async fn local_operator(args: &AttackArgs) -> Result<Operator> {
    let mut cluster = args.cluster.clone();
    if let Some(registry) = &cluster.registry {
        let found = Loopback::resolve(registry).await?;
        cluster.registry = Some(found.first().context("the registry has no address")?.to_string());
    }
    Operator::connect(&cluster).await
}

/// Creates the accounts of the honest players and of the attackers, with new passwords.
async fn create_accounts(operator: &Operator, players: u16) -> Result<(Vec<Credentials>, Vec<Account>)> {
    let mut accounts = operator.accounts().await?;
    let mut honest_players = Vec::new();
    for number in 0..players {
        let (account, password) = (format!("honest-{number:03}"), account::random_password()?);
        account::ensure(&mut accounts, &account, &password).await?;
        let character = format!("Honest{}", letters(number));
        honest_players.push(Credentials { account, password: Secret::new(password), character });
    }
    let mut attackers = Vec::new();
    for number in 0..ATTACKERS {
        let (name, password) = (format!("attacker-{number}"), account::random_password()?);
        account::ensure(&mut accounts, &name, &password).await?;
        attackers.push(Account { name, password });
    }
    Ok((honest_players, attackers))
}

/// Character names contain letters only.
fn letters(number: u16) -> String {
    number.to_string().bytes().map(|digit| char::from(b'a' + (digit - b'0'))).collect()
}

/// The console and the admin ports that are bound to loopback addresses.
async fn http_endpoints(operator: &Operator) -> Result<Vec<Loopback>> {
    let mut addresses = Vec::new();
    for instance in operator.instances(&[]).await? {
        if instance.id.kind == DaemonKind::Gm {
            addresses.push(instance.client_address);
        }
        addresses.push(instance.admin_address);
    }
    let addresses = addresses.iter().filter_map(|address| address.parse::<SocketAddr>().ok());
    Ok(addresses.filter_map(|address| Loopback::try_from(address).ok()).collect())
}

/// Finds login servers and gateways as players do. Each of their addresses must be on this machine.
async fn attack_plan(
    args: &AttackArgs,
    config: &Config,
    dns: Loopback,
    players: &[Credentials],
    accounts: Vec<Account>,
) -> Result<AttackPlan> {
    let resolver = config.dns.as_ref().context("no DNS server")?;
    let mut targets = Vec::new();
    for service in ["login", "gateway"] {
        let name = format!("{service}.{}", args.zone);
        let found = resolver.service(&name).await.with_context(|| format!("{name} is not known"))?;
        targets.push(loopback::all(&name, found)?);
    }
    let gateways = targets.pop().unwrap_or_default();
    let login = targets.pop().unwrap_or_default();
    Ok(AttackPlan {
        dns,
        login,
        gateways,
        http: Vec::new(),
        zone: args.zone.clone(),
        deployment: args.deployment.clone(),
        world: args.world,
        attacks: if args.only.is_empty() { Attack::ALL.to_vec() } else { args.only.clone() },
        seconds: args.seconds,
        rate: args.rate,
        open: args.open.into(),
        cpu: f64::from(args.cpu) / 100.0,
        accounts,
        victims: players.iter().map(|player| player.account.clone()).collect(),
    })
}

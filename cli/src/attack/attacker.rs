//! The attackers' process: reads its orders from standard input, carries them out on one thread within their bounds,
//! and writes its report. It ends with whoever started it, and in any case soon after its time.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shardkeep_client::{
    Config,
    wire::preface::{Service, deployment_tag},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    attack_plan::{Account, Attack, AttackPlan, Report},
    attacks,
    limiter::{AttemptLimiter, CpuLimiter},
    loopback::Loopback,
    source,
    tally::Tally,
};

/// Beyond the time of the attack: for the last attempts, and to write the report.
const GRACE: Duration = Duration::from_secs(5);
/// Requests a second that a session may make of its world, less a few.
const SESSION_RATE: u32 = 8;

/// What every attack works with.
pub struct AttackContext {
    attack_plan: AttackPlan,
    pub config: Config,
    cpu_limiter: Arc<CpuLimiter>,
    until: Instant,
}

impl AttackContext {
    pub fn deployment(&self) -> u32 {
        self.config.deployment
    }

    pub fn limiter(&self) -> AttemptLimiter {
        AttemptLimiter::new(self.attack_plan.rate, self.until, self.cpu_limiter.clone())
    }

    /// For attacks from inside a session: within the rates that a session may have, so that it is not closed for them.
    pub fn session_limiter(&self) -> AttemptLimiter {
        AttemptLimiter::new(self.attack_plan.rate.min(SESSION_RATE), self.until, self.cpu_limiter.clone())
    }

    /// Waits while the attackers have used up their share of the processor.
    pub async fn wait_for_cpu(&self) {
        self.cpu_limiter.wait(self.until).await;
    }

    pub fn until(&self) -> Instant {
        self.until
    }

    /// Places for the connections that one attack keeps open at once.
    pub fn slots(&self) -> ConnectionSlots {
        ConnectionSlots(Arc::new(Semaphore::new(self.attack_plan.open)))
    }

    pub fn login(&self) -> Option<Loopback> {
        source::pick(&self.attack_plan.login).copied()
    }

    pub fn gateway(&self) -> Option<Loopback> {
        source::pick(&self.attack_plan.gateways).copied()
    }

    /// A login server or a gateway; `None`: the one that was picked is not there.
    pub fn player_endpoint(&self) -> Option<(Service, Loopback)> {
        match source::below(2) {
            0 => self.login().map(|at| (Service::Login, at)),
            _ => self.gateway().map(|at| (Service::Gateway, at)),
        }
    }

    pub fn dns(&self) -> Loopback {
        self.attack_plan.dns
    }

    /// A login server, a gateway or the name server.
    pub fn endpoint(&self) -> Endpoint {
        let targets = [
            self.login().map(Endpoint::Login),
            self.gateway().map(Endpoint::Gateway),
            Some(Endpoint::Dns(self.dns())),
        ];
        let targets: Vec<Endpoint> = targets.into_iter().flatten().collect();
        source::pick(&targets).copied().unwrap_or(Endpoint::Dns(self.dns()))
    }

    pub fn zone(&self) -> &str {
        &self.attack_plan.zone
    }

    pub fn world(&self) -> u32 {
        self.attack_plan.world
    }

    pub fn accounts(&self) -> &[Account] {
        &self.attack_plan.accounts
    }

    pub fn victim(&self) -> Option<&str> {
        source::pick(&self.attack_plan.victims).map(String::as_str)
    }
}

/// One door of the cluster.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint {
    Login(Loopback),
    Gateway(Loopback),
    Dns(Loopback),
}

impl Endpoint {
    pub fn at(self) -> Loopback {
        match self {
            Self::Login(at) | Self::Gateway(at) | Self::Dns(at) => at,
        }
    }
}

/// Bound of the connections open at once. Overflow: the attack waits, which its counts show.
#[derive(Clone)]
pub struct ConnectionSlots(Arc<Semaphore>);

impl ConnectionSlots {
    /// `None`: no place became free before the attack was over.
    pub async fn take(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(until, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

pub fn run() -> ExitCode {
    match execute_plan() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: attackers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute_plan() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("no orders")?;
    let attack_plan: AttackPlan = serde_json::from_str(&line).context("orders")?;
    exit_with_parent();
    exit_after(Duration::from_secs(attack_plan.seconds) + GRACE);
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(attack(attack_plan));
    // What still runs is cut off: its sockets close with it.
    runtime.shutdown_background();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    out.flush()?;
    Ok(())
}

/// The pipe of the orders stays open as long as the parent lives.
fn exit_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn exit_after(time: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        std::process::exit(1);
    });
}

/// As many files as the system lets this process have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Fails where the limits do not allow it; then the attacks find no sockets, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn attack(attack_plan: AttackPlan) -> Report {
    let started = Instant::now();
    let mut config = Config::with_dns(attack_plan.dns.address());
    config.deployment = deployment_tag(&attack_plan.deployment);
    let ctx = Arc::new(AttackContext {
        cpu_limiter: Arc::new(CpuLimiter::new(attack_plan.cpu)),
        until: started + Duration::from_secs(attack_plan.seconds),
        config,
        attack_plan,
    });
    let tallies: Vec<(Attack, Arc<Tally>)> =
        ctx.attack_plan.attacks.iter().map(|attack| (*attack, Arc::default())).collect();
    let mut running = JoinSet::new();
    for (attack, tally) in &tallies {
        running.spawn(attacks::run(*attack, ctx.clone(), tally.clone()));
    }
    let _ = timeout_at(ctx.until + GRACE / 2, running.join_all()).await;
    Report {
        attacks: tallies.iter().map(|(attack, tally)| (*attack, tally.counts())).collect(),
        cpu: ctx.cpu_limiter.mean(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

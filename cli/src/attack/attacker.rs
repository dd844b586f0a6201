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
    attacks,
    loopback::Loopback,
    orders::{Account, Attack, Orders, Report},
    pace::{Cap, Pace},
    source,
    tally::Tally,
};

/// Beyond the time of the attack: for the last attempts, and to write the report.
const GRACE: Duration = Duration::from_secs(5);
/// Requests a second that a session may make of its world, less a few.
const GENTLE: u32 = 8;

/// What every attack works with.
pub struct Field {
    orders: Orders,
    pub config: Config,
    cap: Arc<Cap>,
    until: Instant,
}

impl Field {
    pub fn deployment(&self) -> u32 {
        self.config.deployment
    }

    pub fn pace(&self) -> Pace {
        Pace::new(self.orders.rate, self.until, self.cap.clone())
    }

    /// For attacks from inside a session: within the rates that a session may have, so that it is not closed for them.
    pub fn gentle_pace(&self) -> Pace {
        Pace::new(self.orders.rate.min(GENTLE), self.until, self.cap.clone())
    }

    /// Waits while the attackers have used up their share of the processor.
    pub async fn breathe(&self) {
        self.cap.wait(self.until).await;
    }

    pub fn until(&self) -> Instant {
        self.until
    }

    /// Places for the connections that one attack keeps open at once.
    pub fn places(&self) -> Places {
        Places(Arc::new(Semaphore::new(self.orders.open)))
    }

    pub fn login(&self) -> Option<Loopback> {
        source::pick(&self.orders.login).copied()
    }

    pub fn gateway(&self) -> Option<Loopback> {
        source::pick(&self.orders.gateways).copied()
    }

    /// A login server or a gateway; `None`: the one that was picked is not there.
    pub fn player_door(&self) -> Option<(Service, Loopback)> {
        match source::below(2) {
            0 => self.login().map(|at| (Service::Login, at)),
            _ => self.gateway().map(|at| (Service::Gateway, at)),
        }
    }

    pub fn dns(&self) -> Loopback {
        self.orders.dns
    }

    /// A login server, a gateway or the name server.
    pub fn door(&self) -> Door {
        let doors =
            [self.login().map(Door::Login), self.gateway().map(Door::Gateway), Some(Door::Dns(self.dns()))];
        let doors: Vec<Door> = doors.into_iter().flatten().collect();
        source::pick(&doors).copied().unwrap_or(Door::Dns(self.dns()))
    }

    pub fn zone(&self) -> &str {
        &self.orders.zone
    }

    pub fn world(&self) -> u32 {
        self.orders.world
    }

    pub fn accounts(&self) -> &[Account] {
        &self.orders.accounts
    }

    pub fn victim(&self) -> Option<&str> {
        source::pick(&self.orders.victims).map(String::as_str)
    }
}

/// One door of the cluster.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    Login(Loopback),
    Gateway(Loopback),
    Dns(Loopback),
}

impl Door {
    pub fn at(self) -> Loopback {
        match self {
            Self::Login(at) | Self::Gateway(at) | Self::Dns(at) => at,
        }
    }
}

/// Bound of the connections open at once. Overflow: the attack waits, which its counts show.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Places {
    /// `None`: no place became free before the attack was over.
    pub async fn take(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(until, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

pub fn run() -> ExitCode {
    match carry_out() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: attackers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("no orders")?;
    let orders: Orders = serde_json::from_str(&line).context("orders")?;
    end_with_the_parent();
    end_in_time(Duration::from_secs(orders.seconds) + GRACE);
    allow_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(attack(orders));
    // What still runs is cut off: its sockets close with it.
    runtime.shutdown_background();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    out.flush()?;
    Ok(())
}

/// The pipe of the orders stays open as long as the parent lives.
fn end_with_the_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn end_in_time(time: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        std::process::exit(1);
    });
}

/// As many files as the system lets this process have.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // Fails where the limits do not allow it; then the attacks find no sockets, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn attack(orders: Orders) -> Report {
    let begun = Instant::now();
    let mut config = Config::with_dns(orders.dns.address());
    config.deployment = deployment_tag(&orders.deployment);
    let field = Arc::new(Field {
        cap: Arc::new(Cap::new(orders.cpu)),
        until: begun + Duration::from_secs(orders.seconds),
        config,
        orders,
    });
    let tallies: Vec<(Attack, Arc<Tally>)> =
        field.orders.attacks.iter().map(|attack| (*attack, Arc::default())).collect();
    let mut running = JoinSet::new();
    for (attack, tally) in &tallies {
        running.spawn(attacks::run(*attack, field.clone(), tally.clone()));
    }
    let _ = timeout_at(field.until + GRACE / 2, running.join_all()).await;
    Report {
        attacks: tallies.iter().map(|(attack, tally)| (*attack, tally.counts())).collect(),
        cpu: field.cap.mean(),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

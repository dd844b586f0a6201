//! The plan, the limits and the targets that all attacks share.

use std::{sync::Arc, time::Duration};

use shardkeep_client::{
    Config,
    wire::preface::{Service, deployment_tag},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    attack_plan::{Account, Attack, AttackPlan},
    limiter::{AttemptLimiter, CpuLimiter},
    loopback::Loopback,
    source,
};

/// Requests a second that a session may make of its world, less a few.
const SESSION_RATE: u32 = 8;

/// The targets, the accounts and the limits of all attacks.
pub struct AttackContext {
    attack_plan: AttackPlan,
    pub config: Config,
    cpu_limiter: Arc<CpuLimiter>,
    until: Instant,
}

impl AttackContext {
    pub fn new(attack_plan: AttackPlan) -> Self {
        let mut config = Config::with_dns(attack_plan.dns.address());
        config.deployment = deployment_tag(&attack_plan.deployment);
        Self {
            cpu_limiter: Arc::new(CpuLimiter::new(attack_plan.cpu)),
            until: Instant::now() + Duration::from_secs(attack_plan.seconds),
            config,
            attack_plan,
        }
    }

    pub fn attacks(&self) -> &[Attack] {
        &self.attack_plan.attacks
    }

    /// Mean share of one core that the attackers have used.
    pub fn mean_cpu(&self) -> f64 {
        self.cpu_limiter.mean()
    }

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

    /// Slots for the connections that one attack keeps open at once.
    pub fn slots(&self) -> ConnectionSlots {
        ConnectionSlots(Arc::new(Semaphore::new(self.attack_plan.open)))
    }

    pub fn login(&self) -> Option<Loopback> {
        source::pick(&self.attack_plan.login).copied()
    }

    pub fn gateway(&self) -> Option<Loopback> {
        source::pick(&self.attack_plan.gateways).copied()
    }

    /// The console or an admin port.
    pub fn http(&self) -> Option<Loopback> {
        source::pick(&self.attack_plan.http).copied()
    }

    /// A login server or a gateway at random. `None`: the cluster has none of that kind.
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

/// An address that clients reach.
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

/// Bounds the connections that one attack keeps open. At the bound the attack waits, and its counts show that.
#[derive(Clone)]
pub struct ConnectionSlots(Arc<Semaphore>);

impl ConnectionSlots {
    /// Returns `None` when no slot became free before the attack was over.
    pub async fn take(&self, until: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(until, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

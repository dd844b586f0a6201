//! What every connection shares: settings, store, pool, limits, and the views of the cluster.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_auth::{Key, registration::RegionKey};
use shardkeep_cluster::Node;
use shardkeep_daemon::{ConnectionLimiter, ConnectionLimits, Daemon, OverflowPolicy};
use shardkeep_store::{
    Database,
    accounts::{
        self, AccountGeneration, RevocationCause,
        logins::{LoginRules, Process},
    },
};
use shardkeep_update::Patches;
use shardkeep_wire::{
    payload::ErrorCode,
    preface::{self, Preface},
};

use crate::{
    Config, DuplicateLogins,
    account_batcher::AccountBatcher,
    account_details::AccountDetails,
    central::{CentralAccounts, FallbackSeeds},
    config,
    gateways::Gateways,
    groups::Groups,
    limits::Limits,
    pool::Pool,
    presence::Lease,
    puzzle::Puzzles,
    random,
    revocations::Revocations,
    secret_cipher::SecretCipher,
    step_gate::StepGate,
    worlds::Worlds,
};

pub(crate) struct LoginContext {
    pub(crate) config: Config,
    /// Of the services on this port: updates and logins.
    pub(crate) prefaces: [Preface; 2],
    pub(crate) database: Database,
    /// The same, for what many ask at once.
    pub(crate) account_batcher: AccountBatcher,
    /// Where this cluster is one of several regions.
    pub(crate) central: Option<CentralAccounts>,
    /// Makes the challenges of accounts that do not exist; the same on all replicas.
    pub(crate) decoy_seed: Key,
    /// The same while a centre is silent.
    pub(crate) fallback: FallbackSeeds,
    /// Which groups those have.
    pub(crate) groups: Groups,
    /// Bounds connections. Those who log in wait in a queue, so neighbours stay.
    pub(crate) connection_limiter: ConnectionLimiter,
    pub(crate) pool: Pool,
    /// When steps of the handshake end.
    pub(crate) step_gate: StepGate,
    pub(crate) puzzles: Puzzles,
    pub(crate) limits: Limits,
    pub(crate) worlds: Worlds,
    pub(crate) gateways: Gateways,
    pub(crate) patches: Patches,
    pub(crate) revocations: Arc<Revocations>,
    /// The secrets of second factors.
    pub(crate) secret_cipher: SecretCipher,
    /// What registrations are sealed to; the same on all replicas.
    pub(crate) region: RegionKey,
    /// Registrations per address.
    pub(crate) registrations: Limits,
    pub(crate) account_details: AccountDetails,
    daemon: Daemon,
}

/// Where accounts are kept.
pub(crate) struct Stores {
    pub(crate) database: Database,
    pub(crate) secret_cipher: SecretCipher,
    pub(crate) central: Option<CentralAccounts>,
}

impl LoginContext {
    pub(crate) async fn new(
        config: Config,
        deployment: &str,
        stores: Stores,
        worlds: Worlds,
        node: &Node,
        daemon: Daemon,
    ) -> anyhow::Result<Self> {
        let Stores { database, secret_cipher, central } = stores;
        let (fresh, fresh_puzzle) = (random::key()?, random::key()?);
        let puzzle_seed = accounts::shared_secret(&database, "puzzle seed", &fresh_puzzle).await?;
        let key = accounts::shared_secret(&database, "region key", &random::key()?).await?;
        let fallback = FallbackSeeds {
            decoy: accounts::shared_secret(&database, "silent decoy seed", &random::key()?).await?,
            choice: accounts::shared_secret(&database, "silent choice seed", &random::key()?).await?,
        };
        let process = Process::new(random::bytes()?);
        let revocations = Arc::new(Revocations::new(process));
        let rules = LoginRules {
            lease: lease(&config),
            cause: cause(ErrorCode::Displaced, "logged in elsewhere"),
            login_process: process,
        };
        let connections = config.max_connections;
        let attempts = config.registrations;
        let registrations = config::Limits { attempts, ..config.limits.clone() };
        Ok(Self {
            prefaces: [preface::Service::Update, preface::Service::Login]
                .map(|service| Preface::new(service, preface::deployment_tag(deployment))),
            decoy_seed: accounts::shared_secret(&database, "decoy seed", &fresh).await?,
            fallback,
            account_batcher: AccountBatcher::new(&database, rules, revocations.clone(), connections),
            gateways: Gateways::new(node, &database, connections),
            database,
            central,
            groups: Groups::default(),
            connection_limiter: ConnectionLimiter::new(ConnectionLimits {
                all: connections,
                per_origin: config.max_connections_per_address,
                overflow: OverflowPolicy::RefuseNewcomer,
            }),
            pool: Pool::new(&config),
            step_gate: StepGate::new().context("a thread for the ends of steps")?,
            puzzles: Puzzles::new(config.puzzle.clone(), puzzle_seed),
            limits: Limits::new(config.limits.clone()),
            worlds,
            patches: Patches::new(&config.patches)?,
            revocations,
            secret_cipher,
            region: RegionKey::new(&key).context("the region's key")?,
            registrations: Limits::new(registrations),
            account_details: AccountDetails::new(node, connections),
            config,
            daemon,
        })
    }

    pub(crate) fn ticket_lifetime_ms(&self) -> u32 {
        u32::try_from(self.config.ticket_lifetime.as_millis()).unwrap_or(u32::MAX)
    }

    /// Ends what the account runs below that generation; how many sessions that were.
    pub(crate) async fn end_sessions(&self, account: AccountGeneration, cause: &RevocationCause) -> u32 {
        self.revocations.notify_followers([account], cause);
        self.gateways.revoke_account(account, cause).await
    }

    /// How long the lease of a login lasts, where a second one is refused.
    pub(crate) fn lease(&self) -> Option<Duration> {
        lease(&self.config)
    }

    /// Keeps the lease that a login has taken.
    pub(crate) fn hold_lease(&self, holder: AccountGeneration) -> Option<Lease> {
        let ttl = self.lease()?;
        Some(Lease::hold(&self.daemon, self.database.clone(), holder, ttl))
    }
}

fn lease(config: &Config) -> Option<Duration> {
    (config.duplicate_logins == DuplicateLogins::Refuse).then_some(config.login_lease)
}

/// What those are told whose generation has passed.
pub(crate) fn cause(code: ErrorCode, detail: impl Into<String>) -> RevocationCause {
    RevocationCause { code: code as u32, detail: detail.into() }
}

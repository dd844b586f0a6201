//! What every connection shares: settings, store, pool, limits, and the views of the cluster.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_auth::{Key, registration::RegionKey};
use shardkeep_cluster::Node;
use shardkeep_daemon::{Crowd, CrowdBounds, Daemon, Neighbours};
use shardkeep_store::{
    Database,
    accounts::{
        self, Cause, Raised,
        logins::{Process, Rules},
    },
};
use shardkeep_wire::{
    payload::ErrorCode,
    preface::{self, Preface},
};

use crate::{
    Config, DuplicateLogins,
    central::{Centre, SilentSeeds},
    config,
    evenly::Moments,
    gateways::Gateways,
    gathered::Gathered,
    groups::Groups,
    known::Known,
    limits::Limits,
    pool::Pool,
    presence::Lease,
    puzzle::Puzzles,
    random,
    revocations::Revocations,
    update::Patches,
    vault::Vault,
    worlds::Worlds,
};

pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) preface: Preface,
    pub(crate) database: Database,
    /// The same, for what many ask at once.
    pub(crate) gathered: Gathered,
    /// Where this cluster is one of several regions.
    pub(crate) centre: Option<Centre>,
    /// Makes the challenges of accounts that do not exist; the same on all replicas.
    pub(crate) decoy_seed: Key,
    /// The same while a centre is silent.
    pub(crate) silent: SilentSeeds,
    /// Which groups those have.
    pub(crate) groups: Groups,
    /// Bounds connections. Those who log in wait in a queue, so neighbours stay.
    pub(crate) crowd: Crowd,
    pub(crate) pool: Pool,
    /// When steps of the handshake end.
    pub(crate) moments: Moments,
    pub(crate) puzzles: Puzzles,
    pub(crate) limits: Limits,
    pub(crate) worlds: Worlds,
    pub(crate) gateways: Gateways,
    pub(crate) patches: Patches,
    pub(crate) revocations: Arc<Revocations>,
    /// The secrets of second factors.
    pub(crate) vault: Vault,
    /// What registrations are sealed to; the same on all replicas.
    pub(crate) region: RegionKey,
    /// Registrations per address.
    pub(crate) registrations: Limits,
    pub(crate) known: Known,
    daemon: Daemon,
}

/// Where accounts are kept.
pub(crate) struct Stores {
    pub(crate) database: Database,
    pub(crate) vault: Vault,
    pub(crate) centre: Option<Centre>,
}

impl Door {
    pub(crate) async fn new(
        config: Config,
        deployment: &str,
        stores: Stores,
        worlds: Worlds,
        node: &Node,
        daemon: Daemon,
    ) -> anyhow::Result<Self> {
        let Stores { database, vault, centre } = stores;
        let (fresh, fresh_puzzle) = (random::key()?, random::key()?);
        let puzzle_seed = accounts::shared_secret(&database, "puzzle seed", &fresh_puzzle).await?;
        let key = accounts::shared_secret(&database, "region key", &random::key()?).await?;
        let silent = SilentSeeds {
            decoy: accounts::shared_secret(&database, "silent decoy seed", &random::key()?).await?,
            choice: accounts::shared_secret(&database, "silent choice seed", &random::key()?).await?,
        };
        let process = Process::new(random::bytes()?);
        let revocations = Arc::new(Revocations::new(process));
        let rules = Rules {
            lease: lease(&config),
            cause: cause(ErrorCode::Displaced, "logged in elsewhere"),
            by: process,
        };
        let connections = config.max_connections;
        let attempts = config.registrations;
        let registrations = config::Limits { attempts, ..config.limits.clone() };
        Ok(Self {
            preface: Preface::new(preface::Service::Login, preface::deployment_tag(deployment)),
            decoy_seed: accounts::shared_secret(&database, "decoy seed", &fresh).await?,
            silent,
            gathered: Gathered::new(&database, rules, revocations.clone(), connections),
            gateways: Gateways::new(node, &database, connections),
            database,
            centre,
            groups: Groups::default(),
            crowd: Crowd::new(CrowdBounds {
                all: connections,
                per_origin: config.max_connections_per_address,
                neighbours: Neighbours::Stay,
            }),
            pool: Pool::new(&config),
            moments: Moments::new().context("a thread for the ends of steps")?,
            puzzles: Puzzles::new(config.puzzle.clone(), puzzle_seed),
            limits: Limits::new(config.limits.clone()),
            worlds,
            patches: Patches::new(&config.patches)?,
            revocations,
            vault,
            region: RegionKey::new(&key).context("the region's key")?,
            registrations: Limits::new(registrations),
            known: Known::new(node, connections),
            config,
            daemon,
        })
    }

    pub(crate) fn ticket_lives_ms(&self) -> u32 {
        u32::try_from(self.config.ticket_lives.as_millis()).unwrap_or(u32::MAX)
    }

    /// Ends what the account runs below that generation; how many sessions that were.
    pub(crate) async fn end_sessions(&self, account: Raised, cause: &Cause) -> u32 {
        self.revocations.tell([account], cause);
        self.gateways.revoke_account(account, cause).await
    }

    /// How long the lease of a login lasts, where a second one is refused.
    pub(crate) fn lease(&self) -> Option<Duration> {
        lease(&self.config)
    }

    /// Keeps the lease that a login has taken.
    pub(crate) fn hold_lease(&self, of: Raised) -> Option<Lease> {
        let lasts = self.lease()?;
        Some(Lease::hold(&self.daemon, self.database.clone(), of, lasts))
    }
}

fn lease(config: &Config) -> Option<Duration> {
    (config.duplicate_logins == DuplicateLogins::Refuse).then_some(config.login_lease)
}

/// What those are told whose generation has passed.
pub(crate) fn cause(code: ErrorCode, detail: impl Into<String>) -> Cause {
    Cause { code: code as u32, detail: detail.into() }
}

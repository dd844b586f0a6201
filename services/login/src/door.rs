//! What every connection shares: settings, store, pool, limits, and the views of the cluster.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use shardkeep_auth::{Key, registration::RegionKey};
use shardkeep_cluster::{Directory, Node};
use shardkeep_daemon::{Crowd, CrowdBounds, Daemon, Neighbours};
use shardkeep_rpc::{
    billing::{ShowRequest, billing_client::BillingClient},
    dbcache::{CountCharactersRequest, db_cache_client::DbCacheClient},
};
use shardkeep_store::{
    Database,
    accounts::{self, Cause, Raised},
};
use shardkeep_types::{AccountId, DaemonKind};
use shardkeep_wire::{
    payload::ErrorCode,
    preface::{self, Preface},
};
use tokio::sync::Semaphore;
use tonic::Request;

use crate::{
    Config, DuplicateLogins,
    central::{Centre, SilentSeeds},
    config,
    evenly::Moments,
    gateways::Gateways,
    groups::Groups,
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

/// How long a welcome waits for the count of characters; without it the list says nothing of them.
const COUNT_DEADLINE: Duration = Duration::from_millis(300);
/// Accounts whose characters are counted again at the same time.
const COUNTING: usize = 32;
/// How long a welcome waits for billing; without an answer it says nothing of play time.
const BILLING_DEADLINE: Duration = Duration::from_millis(300);

pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) preface: Preface,
    pub(crate) database: Database,
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
    billing: Directory,
    characters: Directory,
    /// Bounds what those who are here ask about their characters. Overflow: they are told a little later.
    counting: Semaphore,
    node: Node,
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
        node: Node,
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
        let attempts = config.registrations;
        let registrations = config::Limits { attempts, ..config.limits.clone() };
        Ok(Self {
            preface: Preface::new(preface::Service::Login, preface::deployment_tag(deployment)),
            decoy_seed: accounts::shared_secret(&database, "decoy seed", &fresh).await?,
            silent,
            database,
            centre,
            groups: Groups::default(),
            crowd: Crowd::new(CrowdBounds {
                all: config.max_connections,
                per_origin: config.max_connections_per_address,
                neighbours: Neighbours::Stay,
            }),
            pool: Pool::new(&config),
            moments: Moments::new().context("a thread for the ends of steps")?,
            puzzles: Puzzles::new(config.puzzle.clone(), puzzle_seed),
            limits: Limits::new(config.limits.clone()),
            worlds,
            gateways: Gateways::new(&node),
            patches: Patches::new(&config.patches)?,
            revocations: Arc::default(),
            vault,
            region: RegionKey::new(&key).context("the region's key")?,
            registrations: Limits::new(registrations),
            characters: node.directory(DaemonKind::Dbcache),
            counting: Semaphore::new(COUNTING),
            billing: node.directory(DaemonKind::Billing),
            config,
            node,
            daemon,
        })
    }

    pub(crate) fn ticket_lives_ms(&self) -> u32 {
        u32::try_from(self.config.ticket_lives.as_millis()).unwrap_or(u32::MAX)
    }

    /// Ends what the account ran before. The welcome does not wait for that, and no gateway is called for it: each follows
    /// a replica, and hears of it from this one in milliseconds or from another within its next look at the store.
    /// Meanwhile worlds refuse the old generation.
    pub(crate) fn displace(&self, account: Raised, cause: &Cause) {
        self.revocations.tell(account, cause);
    }

    /// Ends what the account runs below that generation; how many sessions that were.
    pub(crate) async fn end_sessions(&self, account: Raised, cause: &Cause) -> u32 {
        self.revocations.tell(account, cause);
        self.gateways.revoke_account(account, cause).await
    }

    /// How long the lease of a login lasts, where a second one is refused.
    pub(crate) fn lease(&self) -> Option<Duration> {
        (self.config.duplicate_logins == DuplicateLogins::Refuse).then_some(self.config.login_lease)
    }

    /// Keeps the lease that a login has taken.
    pub(crate) fn hold_lease(&self, of: Raised) -> Option<Lease> {
        let lasts = self.lease()?;
        Some(Lease::hold(&self.daemon, self.database.clone(), of, lasts))
    }

    /// How many characters the account has in each world; `None` if the game's database does not answer.
    pub(crate) async fn characters(&self, account: AccountId) -> Option<HashMap<u32, u32>> {
        let dbcache = self.characters.lightest()?;
        let mut client = DbCacheClient::new(self.node.channel(DaemonKind::Dbcache, &dbcache.grpc_address));
        let mut request = Request::new(CountCharactersRequest { account: account.0 });
        request.set_timeout(COUNT_DEADLINE);
        match tokio::time::timeout(COUNT_DEADLINE, client.count_characters(request)).await {
            Ok(Ok(reply)) => Some(reply.into_inner().by_world),
            Ok(Err(status)) => {
                tracing::warn!(%status, "dbcache does not count characters");
                None
            }
            Err(_) => {
                tracing::warn!("dbcache does not answer in time");
                None
            }
        }
    }

    /// The same for an account that is here already; `None` also if as many as may be are asked about at the moment.
    pub(crate) async fn characters_again(&self, account: AccountId) -> Option<HashMap<u32, u32>> {
        let _room = self.counting.try_acquire().ok()?;
        self.characters(account).await
    }

    /// `None`: the account's plan does not meter, or billing does not answer.
    pub(crate) async fn play_time_left(&self, account: AccountId) -> Option<u64> {
        let billing = self.billing.lightest()?;
        let mut client = BillingClient::new(self.node.channel(DaemonKind::Billing, &billing.grpc_address));
        let mut request = Request::new(ShowRequest { account: account.0 });
        request.set_timeout(BILLING_DEADLINE);
        let answer = tokio::time::timeout(BILLING_DEADLINE, client.show(request)).await;
        match answer {
            Ok(Ok(reply)) => reply.into_inner().left_ms,
            Ok(Err(status)) => {
                tracing::warn!(%status, "billing does not tell the play time left");
                None
            }
            Err(_) => {
                tracing::warn!("billing does not answer in time");
                None
            }
        }
    }
}

/// What those are told whose generation has passed.
pub(crate) fn cause(code: ErrorCode, detail: impl Into<String>) -> Cause {
    Cause { code: code as u32, detail: detail.into() }
}

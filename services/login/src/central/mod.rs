//! Several regions with one account for each player. The home region's login servers keep the centre ([`store`], served
//! by [`service`]); every region asks it, over gRPC or in its own process, through [`CentralAccounts`]: for names that it does not
//! hold ([`look_up`]), before every change of what proves an account, and for changes made elsewhere ([`follow`]).
//! Without a region in the settings nothing of this exists.

mod batch;
mod config;
mod convert;
mod error;
pub(crate) mod follow;
pub(crate) mod look_up;
mod remote;
mod service;
mod store;
mod unreadable_accounts;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::bail;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use shardkeep_auth::Key;
use shardkeep_cluster::Node;
use shardkeep_store::{
    Database,
    accounts::{
        Ban, Proof,
        regional::{self, RegionMembership},
    },
    central::{Account, Activation},
};
use shardkeep_types::{AccountId, Secret};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use self::{follow::ChangeFeed, remote::Remote};
use crate::metrics;

pub use config::Config;
pub(crate) use error::CentralError;
pub(crate) use service::CentralService;
pub(crate) use store::{Selector, Store};

/// How long a change may take. What then has become of it is unknown, and asking again settles it.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// What this region knows of the centre.
pub(crate) struct CentralAccounts {
    region: String,
    backend: Backend,
    /// How long after its coming a `Hello` is gone on with.
    wait: Duration,
    /// Names being asked for. Overflow: the name counts as one that the centre said nothing about, and is counted.
    lookups: Semaphore,
    /// When the centre last told of changes, or that there are none.
    last_update: Mutex<Instant>,
}

enum Backend {
    /// The home region's own.
    Local(Arc<Store>),
    Remote(Remote),
}

/// What the centre says of a name.
pub(crate) enum CentralAnswer {
    Found(Box<Account>),
    Unknown,
    /// Nothing, or not in time.
    Unavailable,
}

/// An account as operators see it.
pub(crate) struct AccountOverview {
    pub(crate) id: AccountId,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) ban: Ban,
    pub(crate) second_factor: bool,
    pub(crate) active_in: Vec<Activation>,
}

impl CentralAccounts {
    /// `None`: this cluster belongs to no region of a centre.
    pub(crate) fn new(config: &Config, central_store: Option<Arc<Store>>, node: &Node) -> Option<Self> {
        let backend = match central_store {
            Some(store) => Backend::Local(store),
            None if config.region.is_empty() => return None,
            None => Backend::Remote(Remote::new(&config.servers, node)),
        };
        Some(Self {
            region: config.region.clone(),
            backend,
            wait: config.wait,
            lookups: Semaphore::new(config.lookups),
            last_update: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Asks for a name, until the deadline.
    async fn find(&self, name: &str, until: Instant) -> CentralAnswer {
        let Ok(_permit) = self.lookups.try_acquire() else {
            metrics::central_lookups_full();
            return CentralAnswer::Unavailable;
        };
        match Box::pin(measured("find", self.by_name(name, until))).await {
            Ok(Some(account)) => CentralAnswer::Found(Box::new(account)),
            Ok(None) => CentralAnswer::Unknown,
            Err(error) => {
                tracing::debug!(%error, "the centre says nothing of a name");
                CentralAnswer::Unavailable
            }
        }
    }

    async fn by_name(&self, name: &str, until: Instant) -> Result<Option<Account>, CentralError> {
        match &self.backend {
            Backend::Local(store) => {
                let found = timeout_at(until, store.find(name)).await;
                found.unwrap_or_else(|_| Err(CentralError::Unavailable("no answer in time".to_owned())))
            }
            Backend::Remote(remote) => remote.find(name, until).await,
        }
    }

    /// The id of a name, for an operator, who may wait; also of an account whose second factor nobody can read.
    pub(crate) async fn id_of(&self, name: &str) -> Result<AccountId, CentralError> {
        Ok(self.show(Selector::Name(name.to_owned())).await?.id)
    }

    /// The account is active in this region; how it is now.
    pub(crate) async fn activate(&self, id: AccountId) -> Result<Account, CentralError> {
        call_with_timeout("activate", async {
            match &self.backend {
                Backend::Local(store) => store.activate(id, &self.region).await,
                Backend::Remote(remote) => remote.activate(id, &self.region).await,
            }
        })
        .await
    }

    pub(crate) async fn create(&self, name: &str, proof: &Proof) -> Result<Account, CentralError> {
        call_with_timeout("create", async {
            match &self.backend {
                Backend::Local(store) => store.create(name, proof, &self.region).await,
                Backend::Remote(remote) => remote.create(name, proof, &self.region).await,
            }
        })
        .await
    }

    pub(crate) async fn set_proof(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        call_with_timeout("set_proof", async {
            match &self.backend {
                Backend::Local(store) => store.set_proof(id, expected_version, proof).await,
                Backend::Remote(remote) => remote.set_proof(id, expected_version, proof).await,
            }
        })
        .await
    }

    pub(crate) async fn set_factor(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        call_with_timeout("set_second_factor", async {
            match &self.backend {
                Backend::Local(store) => store.set_factor(id, expected_version, factor).await,
                Backend::Remote(remote) => remote.set_factor(id, expected_version, factor).await,
            }
        })
        .await
    }

    pub(crate) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        call_with_timeout("set_ban", async {
            match &self.backend {
                Backend::Local(store) => store.set_ban(id, ban).await,
                Backend::Remote(remote) => remote.set_ban(id, ban).await,
            }
        })
        .await
    }

    pub(crate) async fn show(&self, selector: Selector) -> Result<AccountOverview, CentralError> {
        call_with_timeout("show", async {
            match &self.backend {
                Backend::Local(store) => store.show(selector).await,
                Backend::Remote(remote) => remote.show(selector).await,
            }
        })
        .await
    }

    /// How many accounts have which group.
    pub(crate) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        call_with_timeout("groups", async {
            match &self.backend {
                Backend::Local(store) => store.groups().await,
                Backend::Remote(remote) => remote.groups().await,
            }
        })
        .await
    }

    /// What changes after this version.
    async fn changes(&self, after: u64) -> Result<ChangeFeed, CentralError> {
        call_with_timeout("follow", async {
            match &self.backend {
                Backend::Local(store) => {
                    store.clone().changes(self.region.clone(), after).map(ChangeFeed::Local)
                }
                Backend::Remote(remote) => {
                    let (at, changes) = remote.follow(&self.region, after).await?;
                    Ok(ChangeFeed::Remote { at, changes: Box::new(changes) })
                }
            }
        })
        .await
    }

    /// What it told of changes has broken off: another server goes on, where there is one.
    fn feed_failed(&self, feed: &ChangeFeed) {
        if let (Backend::Remote(remote), ChangeFeed::Remote { at, .. }) = (&self.backend, feed) {
            remote.demote(*at);
        }
    }

    fn note_update(&self) {
        *self.last_update.lock() = Instant::now();
    }

    /// How long ago the centre last told of changes, or that there are none. It says something every two seconds.
    pub(crate) fn lag(&self) -> Duration {
        self.last_update.lock().elapsed()
    }
}

/// Boxed: few logins ever come here, and none should carry the room for it.
fn call_with_timeout<'a, T: 'a>(
    call: &'static str,
    asked: impl Future<Output = Result<T, CentralError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, CentralError>> {
    let asked = timeout(CHANGE_WITHIN, asked);
    Box::pin(measured(call, async {
        asked.await.unwrap_or_else(|_| Err(CentralError::Unavailable("no answer in time".to_owned())))
    }))
}

async fn measured<T>(
    call: &'static str,
    asked: impl Future<Output = Result<T, CentralError>>,
) -> Result<T, CentralError> {
    let started = Instant::now();
    let answer = asked.await;
    let outcome = answer.as_ref().map_or_else(CentralError::label, |_| "ok");
    metrics::central_call(call, outcome, started.elapsed());
    answer
}

/// Makes the region's store part of this region, or refuses what would mix accounts that have nothing to do with each
/// other.
///
/// # Errors
/// When the store has a history that does not fit the settings.
pub(crate) async fn join(config: &Config, database: &Database) -> anyhow::Result<()> {
    let region = config.region.as_str();
    if region.is_empty() {
        return match regional::region(database).await? {
            None => Ok(()),
            Some(region) => bail!(
                "this account store is of the region `{region}` of a centre, and its accounts are copies of the \
                 centre's: set login.central.region = \"{region}\" and where the centre is, or give this cluster a \
                 store of its own (login.store)"
            ),
        };
    }
    match regional::join(database, region).await? {
        RegionMembership::Member(joined) if joined == region => Ok(()),
        RegionMembership::Member(joined) => bail!(
            "this account store is of the region `{joined}`, and login.central.region is `{region}`: a store keeps its \
             region; set the name back, or give the region `{region}` a store of its own (login.store)"
        ),
        RegionMembership::Standalone { accounts } => bail!(
            "this account store has {accounts} accounts of its own, which no centre knows: their ids would meet the \
             centre's. In the home region login.central.adopt = true makes them the centre's; any other region begins \
             with an empty store (login.store, or another data directory); without login.central this cluster goes on \
             alone"
        ),
    }
}

/// The seeds of what stands in for accounts while the centre is silent; the same on all replicas.
pub(crate) struct FallbackSeeds {
    /// Makes the stand-ins.
    pub(crate) decoy: Key,
    /// Chooses the names that get them.
    pub(crate) choice: Key,
}

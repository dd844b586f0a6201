//! Several regions with one account for each player. The home region's login servers keep the centre ([`store`], served
//! by [`service`]); every region asks it, over gRPC or in its own process, through [`Centre`]: for names that it does not
//! hold ([`look_up`]), before every change of what proves an account, and for changes made elsewhere ([`follow`]).
//! Without a region in the settings nothing of this exists.

mod config;
mod convert;
mod error;
pub(crate) mod follow;
mod left_out;
pub(crate) mod look_up;
mod news;
mod remote;
mod service;
mod store;

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
        regional::{self, Standing},
    },
    central::{Account, Activation},
};
use shardkeep_types::{AccountId, Secret};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use self::{follow::Feed, remote::Remote};
use crate::metrics;

pub use config::Config;
pub(crate) use error::CentralError;
pub(crate) use service::CentralService;
pub(crate) use store::{Store, Who};

/// How long a change may take. What then has become of it is unknown, and asking again settles it.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

/// What this region knows of the centre.
pub(crate) struct Centre {
    region: String,
    link: Link,
    /// How long after its coming a `Hello` is gone on with.
    wait: Duration,
    /// Names being asked for. Overflow: the name counts as one that the centre said nothing about, and is counted.
    lookups: Semaphore,
    /// When the centre last told of changes, or that there are none.
    heard: Mutex<Instant>,
}

enum Link {
    /// The home region's own.
    Home(Arc<Store>),
    Far(Remote),
}

/// What the centre says of a name.
pub(crate) enum Answer {
    Known(Box<Account>),
    Nobody,
    /// Nothing, or not in time.
    Silent,
}

/// An account as operators see it.
pub(crate) struct Shown {
    pub(crate) id: AccountId,
    pub(crate) name: String,
    pub(crate) created_ms: u64,
    pub(crate) ban: Ban,
    pub(crate) second_factor: bool,
    pub(crate) active_in: Vec<Activation>,
}

impl Centre {
    /// `None`: this cluster belongs to no region of a centre.
    pub(crate) fn new(config: &Config, home: Option<Arc<Store>>, node: &Node) -> Option<Self> {
        let link = match home {
            Some(store) => Link::Home(store),
            None if config.region.is_empty() => return None,
            None => Link::Far(Remote::new(&config.at, node)),
        };
        Some(Self {
            region: config.region.clone(),
            link,
            wait: config.wait,
            lookups: Semaphore::new(config.lookups),
            heard: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// Asks for a name, until the deadline.
    async fn find(&self, name: &str, until: Instant) -> Answer {
        let Ok(_turn) = self.lookups.try_acquire() else {
            metrics::central_lookups_full();
            return Answer::Silent;
        };
        match Box::pin(measured("find", self.by_name(name, until))).await {
            Ok(Some(account)) => Answer::Known(Box::new(account)),
            Ok(None) => Answer::Nobody,
            Err(error) => {
                tracing::debug!(%error, "the centre says nothing of a name");
                Answer::Silent
            }
        }
    }

    async fn by_name(&self, name: &str, until: Instant) -> Result<Option<Account>, CentralError> {
        match &self.link {
            Link::Home(store) => {
                let found = timeout_at(until, store.find(name)).await;
                found.unwrap_or_else(|_| Err(CentralError::Away("no answer in time".to_owned())))
            }
            Link::Far(remote) => remote.find(name, until).await,
        }
    }

    /// The id of a name, for an operator, who may wait; also of an account whose second factor nobody can read.
    pub(crate) async fn id_of(&self, name: &str) -> Result<AccountId, CentralError> {
        Ok(self.show(Who::Name(name.to_owned())).await?.id)
    }

    /// The account is active in this region; how it is now.
    pub(crate) async fn activate(&self, id: AccountId) -> Result<Account, CentralError> {
        change("activate", async {
            match &self.link {
                Link::Home(store) => store.activate(id, &self.region).await,
                Link::Far(remote) => remote.activate(id, &self.region).await,
            }
        })
        .await
    }

    pub(crate) async fn create(&self, name: &str, proof: &Proof) -> Result<Account, CentralError> {
        change("create", async {
            match &self.link {
                Link::Home(store) => store.create(name, proof, &self.region).await,
                Link::Far(remote) => remote.create(name, proof, &self.region).await,
            }
        })
        .await
    }

    pub(crate) async fn set_proof(
        &self,
        id: AccountId,
        known: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        change("set_proof", async {
            match &self.link {
                Link::Home(store) => store.set_proof(id, known, proof).await,
                Link::Far(remote) => remote.set_proof(id, known, proof).await,
            }
        })
        .await
    }

    pub(crate) async fn set_factor(
        &self,
        id: AccountId,
        known: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        change("set_second_factor", async {
            match &self.link {
                Link::Home(store) => store.set_factor(id, known, factor).await,
                Link::Far(remote) => remote.set_factor(id, known, factor).await,
            }
        })
        .await
    }

    pub(crate) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        change("set_ban", async {
            match &self.link {
                Link::Home(store) => store.set_ban(id, ban).await,
                Link::Far(remote) => remote.set_ban(id, ban).await,
            }
        })
        .await
    }

    pub(crate) async fn show(&self, who: Who) -> Result<Shown, CentralError> {
        change("show", async {
            match &self.link {
                Link::Home(store) => store.show(who).await,
                Link::Far(remote) => remote.show(who).await,
            }
        })
        .await
    }

    /// How many accounts have which group.
    pub(crate) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        change("groups", async {
            match &self.link {
                Link::Home(store) => store.groups().await,
                Link::Far(remote) => remote.groups().await,
            }
        })
        .await
    }

    /// What changes after this version.
    async fn changes(&self, after: u64) -> Result<Feed, CentralError> {
        change("follow", async {
            match &self.link {
                Link::Home(store) => store.clone().changes(self.region.clone(), after).map(Feed::Home),
                Link::Far(remote) => {
                    let (at, changes) = remote.follow(&self.region, after).await?;
                    Ok(Feed::Far { at, changes: Box::new(changes) })
                }
            }
        })
        .await
    }

    /// What it told of changes has broken off: another server goes on, where there is one.
    fn broke_off(&self, feed: &Feed) {
        if let (Link::Far(remote), Feed::Far { at, .. }) = (&self.link, feed) {
            remote.pass_by(*at);
        }
    }

    fn has_told(&self) {
        *self.heard.lock() = Instant::now();
    }

    /// How long ago the centre last told of changes, or that there are none. It says something every two seconds.
    pub(crate) fn behind(&self) -> Duration {
        self.heard.lock().elapsed()
    }
}

/// Boxed: few logins ever come here, and none should carry the room for it.
fn change<'a, T: 'a>(
    call: &'static str,
    asked: impl Future<Output = Result<T, CentralError>> + Send + 'a,
) -> BoxFuture<'a, Result<T, CentralError>> {
    let asked = timeout(CHANGE_WITHIN, asked);
    Box::pin(measured(call, async {
        asked.await.unwrap_or_else(|_| Err(CentralError::Away("no answer in time".to_owned())))
    }))
}

async fn measured<T>(
    call: &'static str,
    asked: impl Future<Output = Result<T, CentralError>>,
) -> Result<T, CentralError> {
    let begun = Instant::now();
    let answer = asked.await;
    let outcome = answer.as_ref().map_or_else(CentralError::label, |_| "ok");
    metrics::central_call(call, outcome, begun.elapsed());
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
        Standing::Of(joined) if joined == region => Ok(()),
        Standing::Of(joined) => bail!(
            "this account store is of the region `{joined}`, and login.central.region is `{region}`: a store keeps its \
             region; set the name back, or give the region `{region}` a store of its own (login.store)"
        ),
        Standing::Alone { accounts } => bail!(
            "this account store has {accounts} accounts of its own, which no centre knows: their ids would meet the \
             centre's. In the home region login.central.adopt = true makes them the centre's; any other region begins \
             with an empty store (login.store, or another data directory); without login.central this cluster goes on \
             alone"
        ),
    }
}

/// The seeds of what stands in for accounts while the centre is silent; the same on all replicas.
pub(crate) struct SilentSeeds {
    /// Makes the stand-ins.
    pub(crate) decoy: Key,
    /// Chooses the names that get them.
    pub(crate) choice: Key,
}

//! The centre as this region sees it: its own store in the home region, and remote servers elsewhere.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use shardkeep_cluster::Node;
use shardkeep_store::{
    accounts::{Ban, Proof},
    central::Account,
};
use shardkeep_types::{AccountId, Secret};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    central::{
        config::Config,
        error::CentralError,
        feed::ChangeFeed,
        overview::{AccountOverview, Selector},
        remote::Remote,
        store::Store,
    },
    metrics,
};

/// How long a change may take. The outcome of a change that takes longer is unknown; repeating it settles that.
const CHANGE_WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct CentralAccounts {
    region: String,
    backend: Backend,
    /// How long every `Hello` takes.
    hello_delay: Duration,
    /// Bounds concurrent look-ups of names. Overflow: the look-up is unavailable, and counted.
    lookups: Semaphore,
    /// When the last batch of changes came, empty ones included.
    last_update: Mutex<Instant>,
}

enum Backend {
    /// In the home region.
    Local(Arc<Store>),
    Remote(Remote),
}

/// The answer of the centre for a name.
pub(crate) enum CentralAnswer {
    Found(Box<Account>),
    Unknown,
    /// No answer in time.
    Unavailable,
}

impl CentralAccounts {
    /// `None`: this cluster is not a region of a centre.
    pub(crate) fn new(config: &Config, central_store: Option<Arc<Store>>, node: &Node) -> Option<Self> {
        let backend = match central_store {
            Some(store) => Backend::Local(store),
            None if config.region.is_empty() => return None,
            None => Backend::Remote(Remote::new(&config.servers, node)),
        };
        Some(Self {
            region: config.region.clone(),
            backend,
            hello_delay: config.wait,
            lookups: Semaphore::new(config.lookups),
            last_update: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// How long every `Hello` takes, so that the centre can answer meanwhile.
    pub(crate) fn hello_delay(&self) -> Duration {
        self.hello_delay
    }

    /// Looks up a name until the deadline.
    pub(crate) async fn find(&self, name: &str, until: Instant) -> CentralAnswer {
        let Ok(_permit) = self.lookups.try_acquire() else {
            metrics::central_lookups_full();
            return CentralAnswer::Unavailable;
        };
        match Box::pin(measured("find", self.by_name(name, until))).await {
            Ok(Some(account)) => CentralAnswer::Found(Box::new(account)),
            Ok(None) => CentralAnswer::Unknown,
            Err(error) => {
                tracing::debug!(%error, "the centre did not answer for a name");
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

    /// The id of a name, for an operator. Works also if the second factor cannot be decrypted.
    pub(crate) async fn id_of(&self, name: &str) -> Result<AccountId, CentralError> {
        Ok(self.show(Selector::Name(name.to_owned())).await?.id)
    }

    /// Makes the account active in this region, and returns its current state.
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

    /// The number of accounts of each SRP group.
    pub(crate) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        call_with_timeout("groups", async {
            match &self.backend {
                Backend::Local(store) => store.groups().await,
                Backend::Remote(remote) => remote.groups().await,
            }
        })
        .await
    }

    /// The stream of changes after this version.
    pub(super) async fn changes(&self, after: u64) -> Result<ChangeFeed, CentralError> {
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

    /// The stream failed: the next one comes from another server, if there is one.
    pub(super) fn feed_failed(&self, feed: &ChangeFeed) {
        if let (Backend::Remote(remote), Some(at)) = (&self.backend, feed.server()) {
            remote.demote(at);
        }
    }

    pub(super) fn note_update(&self) {
        *self.last_update.lock() = Instant::now();
    }

    /// Age of the last batch of changes. The centre sends one at least every two seconds.
    pub(crate) fn lag(&self) -> Duration {
        self.last_update.lock().elapsed()
    }
}

/// Boxed, because few logins call this, and the others should not reserve memory for it.
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

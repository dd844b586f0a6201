//! The centre itself: its accounts in a schema of their own, second factors enciphered by this server's key, and the
//! news of changes for those who follow.

use std::{sync::Arc, time::Duration};

use shardkeep_store::{
    Database, Schema,
    accounts::{Ban, Proof},
    central::{
        self as table, Account, Page, adopt,
        change::{self, Changed},
    },
};
use shardkeep_types::{AccountId, Secret, StoreMark};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{CentralError, Shown, news::News};
use crate::{metrics, outage::Outage, vault::Vault};

/// How often the store is looked at for what other replicas of the home region have changed.
const LOOK: Duration = Duration::from_millis(200);
/// A follower is told so often that there is nothing to tell.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// What is looked at for one message.
const PAGE: Page = Page { accounts: 500, versions: 50_000 };
/// Replicas of regions that follow one replica of the centre. Overflow: they are refused, and try the next one.
const FOLLOWERS: usize = 1_024;
/// Messages on the way to one follower. Overflow: its task waits, and reads the state again when there is room.
const ON_THE_WAY: usize = 4;

pub(crate) struct Store {
    database: Database,
    vault: Vault,
    /// The version of the newest change that this replica knows of.
    version: watch::Sender<u64>,
    followers: Arc<Semaphore>,
}

/// Whom an operator means.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    Name(String),
    Id(AccountId),
}

impl Store {
    pub(crate) async fn open(url: &str, vault: Vault) -> anyhow::Result<Arc<Self>> {
        let database = Database::open_patiently(url, Schema::Central).await?;
        let followers = Arc::new(Semaphore::new(FOLLOWERS));
        Ok(Arc::new(Self { database, vault, version: watch::Sender::new(0), followers }))
    }

    /// Takes over what accounts the home region's store has of its own, whose second factors the same key enciphers.
    pub(crate) async fn adopt(&self, region: &str, store: &Database) -> anyhow::Result<()> {
        let adopted = adopt::adopt(&self.database, store, region).await?;
        if adopted > 0 {
            info!(region, accounts = adopted, "the accounts of this region are the centre's now");
        }
        Ok(())
    }

    pub(crate) async fn mark(&self) -> Result<StoreMark, shardkeep_store::Error> {
        self.database.mark().await
    }

    pub(crate) async fn close(&self) {
        self.database.clone().close().await;
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Account>, CentralError> {
        table::by_name(&self.database, name).await?.map(|account| self.opened(account)).transpose()
    }

    pub(super) async fn activate(&self, id: AccountId, region: &str) -> Result<Account, CentralError> {
        let account = table::activate(&self.database, id, region).await?;
        self.opened(account.ok_or(CentralError::Unknown)?)
    }

    pub(super) async fn create(
        &self,
        name: &str,
        proof: &Proof,
        region: &str,
    ) -> Result<Account, CentralError> {
        let made = table::create(&self.database, name, proof, region).await?;
        self.changed(made.ok_or(CentralError::Taken)?)
    }

    pub(super) async fn set_proof(
        &self,
        id: AccountId,
        known: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        self.outcome(change::set_proof(&self.database, id, known, proof).await?)
    }

    pub(super) async fn set_factor(
        &self,
        id: AccountId,
        known: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        let there = table::by_id(&self.database, id).await?.ok_or(CentralError::Unknown)?;
        // One that can not be read is another one, and this is how an operator is rid of it.
        if let Ok(there) = self.opened(there)
            && there.factor.as_ref() == factor
        {
            return Ok(there);
        }
        let sealed = factor.map(|secret| self.vault.seal(id, secret.expose())).transpose();
        let sealed = sealed.map_err(|error| CentralError::Refused(error.to_string()))?;
        self.outcome(change::set_factor(&self.database, id, known, sealed.as_deref()).await?)
    }

    pub(super) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        self.outcome(change::set_ban(&self.database, id, ban).await?)
    }

    pub(super) async fn show(&self, who: Who) -> Result<Shown, CentralError> {
        let found = match who {
            Who::Name(name) => table::by_name(&self.database, &name).await?,
            Who::Id(id) => table::by_id(&self.database, id).await?,
        };
        let account = found.ok_or(CentralError::Unknown)?;
        Ok(Shown {
            id: account.id,
            name: account.name,
            created_ms: account.created_ms,
            ban: account.ban,
            second_factor: account.factor.is_some(),
            active_in: table::activations(&self.database, account.id).await?,
        })
    }

    pub(super) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        Ok(table::groups(&self.database).await?)
    }

    /// What changes after this version, in its order, until nobody listens. One task per follower.
    pub(super) fn changes(
        self: Arc<Self>,
        region: String,
        after: u64,
    ) -> Result<mpsc::Receiver<Result<News, CentralError>>, CentralError> {
        let full = |_| CentralError::Away("too many follow it".to_owned());
        let place = self.followers.clone().try_acquire_owned().map_err(full)?;
        let (out, changes) = mpsc::channel(ON_THE_WAY);
        tokio::spawn(async move {
            let _place = place;
            metrics::central_followers(1.0);
            let told = self.tell(&region, after, &out).await;
            metrics::central_followers(-1.0);
            if let Err(error) = told {
                // Whoever has gone needs no reason.
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(changes)
    }

    async fn tell(
        &self,
        region: &str,
        mut after: u64,
        out: &mpsc::Sender<Result<News, CentralError>>,
    ) -> Result<(), CentralError> {
        let newest = table::version(&self.database).await?;
        if newest < after {
            return Err(CentralError::Refused(format!(
                "region {region} has seen version {after}, and the centre's newest is {newest}: was its store put \
                 back to an earlier state?"
            )));
        }
        self.note(newest);
        let mut versions = self.version.subscribe();
        let mut due = Instant::now();
        loop {
            let changes = table::changes(&self.database, region, after, PAGE).await?;
            after = changes.through;
            let id = |account: &Account| account.id;
            let news = News::read(changes.accounts, after, id, |account| self.opened(account));
            if Instant::now() >= due || !news.is_empty() {
                if out.send(Ok(news)).await.is_err() {
                    return Ok(());
                }
                due = Instant::now() + HEARTBEAT;
            }
            // At once, if that was not all.
            let news = timeout_at(due, versions.wait_for(|version| *version > after));
            tokio::select! {
                _ = news => {}
                () = out.closed() => return Ok(()),
            }
        }
    }

    /// Looks at the store until told to stop, for what other replicas have changed.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut outage = Outage::default();
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            match table::version(&self.database).await {
                Ok(version) => {
                    outage.over();
                    self.note(version);
                }
                Err(error) => {
                    outage
                        .note(&error, "the central account store can not be read; regions wait for changes");
                }
            }
        }
        Ok(())
    }

    fn outcome(&self, changed: Changed) -> Result<Account, CentralError> {
        match changed {
            Changed::Is(account) => self.changed(*account),
            Changed::Unknown => Err(CentralError::Unknown),
            Changed::Meanwhile => Err(CentralError::Meanwhile),
        }
    }

    /// Those who follow need not wait for the next look.
    fn changed(&self, account: Account) -> Result<Account, CentralError> {
        self.note(account.version);
        self.opened(account)
    }

    fn note(&self, version: u64) {
        self.version.send_if_modified(|newest| {
            let newer = version > *newest;
            *newest = version.max(*newest);
            newer
        });
    }

    /// With a readable second factor.
    fn opened(&self, account: Account) -> Result<Account, CentralError> {
        let Some(sealed) = &account.factor else { return Ok(account) };
        let opened = self.vault.open(account.id, sealed.expose());
        let opened = opened.map_err(|error| CentralError::Refused(error.to_string()))?;
        Ok(Account { factor: Some(opened), ..account })
    }
}

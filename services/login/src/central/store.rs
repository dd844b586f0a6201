//! The store of the centre: accounts in a separate schema, second factors encrypted with this server's key, and the stream
//! of changes for followers.

use std::{sync::Arc, time::Duration};

use shardkeep_daemon::contained;
use shardkeep_store::{
    Database, Schema,
    accounts::{Ban, Proof},
    central::{
        self as table, Account, Page, adopt,
        change::{self, ChangeOutcome},
    },
};
use shardkeep_types::{AccountId, Secret, StoreIdentity};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    accounts::secret_cipher::SecretCipher,
    central::{
        batch::ChangeBatch,
        error::CentralError,
        overview::{AccountOverview, Selector},
    },
    metrics,
    outage::Outage,
};

/// How often the store is polled for changes by other replicas of the home region.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How often a follower gets an empty batch, which tells it that the stream is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Bounds of one batch.
const PAGE: Page = Page { accounts: 500, versions: 50_000 };
/// Followers of one replica of the centre. Overflow: a follower is refused and tries the next replica.
const MAX_FOLLOWERS: usize = 1_024;
/// Batches on the way to one follower. Overflow: its task waits, and reads the state again when there is room.
const FOLLOWER_QUEUE: usize = 4;

pub(crate) struct Store {
    database: Database,
    secret_cipher: SecretCipher,
    /// The version of the newest known change.
    version: watch::Sender<u64>,
    followers: Arc<Semaphore>,
}

impl Store {
    pub(crate) async fn open(url: &str, secret_cipher: SecretCipher) -> anyhow::Result<Arc<Self>> {
        let database = Database::open_with_retry(url, Schema::Central).await?;
        let followers = Arc::new(Semaphore::new(MAX_FOLLOWERS));
        Ok(Arc::new(Self { database, secret_cipher, version: watch::Sender::new(0), followers }))
    }

    /// Takes over the accounts of the home region's store. Both stores must encrypt second factors with the same key.
    pub(crate) async fn adopt(&self, region: &str, store: &Database) -> anyhow::Result<()> {
        let adopted = adopt::adopt(&self.database, store, region).await?;
        if adopted > 0 {
            info!(region, accounts = adopted, "the accounts of this region became accounts of the centre");
        }
        Ok(())
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) async fn identity(&self) -> Result<StoreIdentity, shardkeep_store::Error> {
        self.database.identity().await
    }

    pub(crate) async fn close(&self) {
        self.database.clone().close().await;
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Account>, CentralError> {
        table::by_name(&self.database, name).await?.map(|account| self.decrypted(account)).transpose()
    }

    pub(super) async fn activate(&self, id: AccountId, region: &str) -> Result<Account, CentralError> {
        let account = table::activate(&self.database, id, region).await?;
        self.decrypted(account.ok_or(CentralError::Unknown)?)
    }

    pub(super) async fn create(
        &self,
        name: &str,
        proof: &Proof,
        region: &str,
    ) -> Result<Account, CentralError> {
        let made = table::create(&self.database, name, proof, region).await?;
        self.changed(made.ok_or(CentralError::NameTaken)?)
    }

    pub(super) async fn set_proof(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        self.outcome(change::set_proof(&self.database, id, expected_version, proof).await?)
    }

    pub(super) async fn set_factor(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        let current = table::by_id(&self.database, id).await?.ok_or(CentralError::Unknown)?;
        // An operator replaces a factor that cannot be read in this way, so it counts as different.
        if let Ok(current) = self.decrypted(current)
            && current.factor.as_ref() == factor
        {
            return Ok(current);
        }
        let sealed = factor.map(|secret| self.secret_cipher.seal(id, secret.expose())).transpose();
        let sealed = sealed.map_err(|error| CentralError::Refused(error.to_string()))?;
        self.outcome(change::set_factor(&self.database, id, expected_version, sealed.as_deref()).await?)
    }

    pub(super) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        self.outcome(change::set_ban(&self.database, id, ban).await?)
    }

    pub(super) async fn show(&self, selector: Selector) -> Result<AccountOverview, CentralError> {
        let found = match selector {
            Selector::Name(name) => table::by_name(&self.database, &name).await?,
            Selector::Id(id) => table::by_id(&self.database, id).await?,
        };
        let account = found.ok_or(CentralError::Unknown)?;
        Ok(AccountOverview {
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

    /// Streams the changes after this version, in order, until the receiver is dropped. Each follower has one task.
    pub(super) fn changes(
        self: Arc<Self>,
        region: String,
        after: u64,
    ) -> Result<mpsc::Receiver<Result<ChangeBatch, CentralError>>, CentralError> {
        let full = |_| CentralError::Unavailable("it has too many followers".to_owned());
        let permit = self.followers.clone().try_acquire_owned().map_err(full)?;
        let (out, changes) = mpsc::channel(FOLLOWER_QUEUE);
        let follower = async move {
            let _permit = permit;
            metrics::central_followers(1.0);
            let sent = self.send_changes(&region, after, &out).await;
            metrics::central_followers(-1.0);
            if let Err(error) = sent {
                // The follower may have disconnected.
                let _ = out.send(Err(error)).await;
            }
        };
        tokio::spawn(contained("follower of the centre", follower));
        Ok(changes)
    }

    async fn send_changes(
        &self,
        region: &str,
        mut after: u64,
        out: &mpsc::Sender<Result<ChangeBatch, CentralError>>,
    ) -> Result<(), CentralError> {
        let newest = table::version(&self.database).await?;
        if newest < after {
            return Err(CentralError::Refused(format!(
                "region {region} has seen version {after}, but the newest version of the centre is {newest}: its store \
                 was restored from an older backup; restore a newer one"
            )));
        }
        self.note(newest);
        let mut versions = self.version.subscribe();
        let mut due = Instant::now();
        loop {
            let changes = table::changes(&self.database, region, after, PAGE).await?;
            after = changes.through;
            let id = |account: &Account| account.id;
            let batch = ChangeBatch::read(changes.accounts, after, id, |account| self.decrypted(account));
            if Instant::now() >= due || !batch.is_empty() {
                if out.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
                due = Instant::now() + HEARTBEAT;
            }
            // This returns at once if there are more changes.
            let batch = timeout_at(due, versions.wait_for(|version| *version > after));
            tokio::select! {
                _ = batch => {}
                () = out.closed() => return Ok(()),
            }
        }
    }

    /// Polls the store until `stop` for changes by other replicas.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut outage = Outage::default();
        while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            match table::version(&self.database).await {
                Ok(version) => {
                    outage.recovered();
                    self.note(version);
                }
                Err(error) => {
                    outage.note(&error, "cannot read the central account store; regions wait for changes");
                }
            }
        }
        Ok(())
    }

    fn outcome(&self, changed: ChangeOutcome) -> Result<Account, CentralError> {
        match changed {
            ChangeOutcome::Current(account) => self.changed(*account),
            ChangeOutcome::Unknown => Err(CentralError::Unknown),
            ChangeOutcome::Conflict => Err(CentralError::Conflict),
        }
    }

    /// Wakes the followers, which then do not wait for the next poll.
    fn changed(&self, account: Account) -> Result<Account, CentralError> {
        self.note(account.version);
        self.decrypted(account)
    }

    fn note(&self, version: u64) {
        self.version.send_if_modified(|newest| {
            let newer = version > *newest;
            *newest = version.max(*newest);
            newer
        });
    }

    /// Decrypts the second factor.
    fn decrypted(&self, account: Account) -> Result<Account, CentralError> {
        let Some(sealed) = &account.factor else { return Ok(account) };
        let decrypted = self.secret_cipher.open(account.id, sealed.expose());
        let decrypted = decrypted.map_err(|error| CentralError::Refused(error.to_string()))?;
        Ok(Account { factor: Some(decrypted), ..account })
    }
}

//! Writes the centre's changes into this region's store, and ends the sessions that a new password or a ban ends. Every
//! replica follows for itself, from the version in the region's store; writing a change twice is harmless.

use std::{convert::Infallible, sync::Arc};

use shardkeep_cluster::Backoff;
use shardkeep_store::{
    Database,
    accounts::regional::{self, CopyOutcome},
    central::Account,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    accounts::{regional_copy::RegionalCopy, revocations::hub::Revocations},
    central::{accounts::CentralAccounts, error::CentralError, unreadable_accounts::UnreadableAccounts},
    error::LoginError,
    metrics,
    outage::Outage,
};

pub(crate) struct ChangeFollower {
    database: Database,
    central: Arc<CentralAccounts>,
    copy: RegionalCopy,
    revocations: Arc<Revocations>,
}

impl ChangeFollower {
    pub(crate) fn new(
        database: Database,
        central: Arc<CentralAccounts>,
        copy: RegionalCopy,
        revocations: Arc<Revocations>,
    ) -> Self {
        Self { database, central, copy, revocations }
    }

    /// Follows until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut backoff, mut outage, mut unreadable) =
            (Backoff::default(), Outage::default(), UnreadableAccounts::default());
        loop {
            let mut connected = false;
            let ended = stop.run_until_cancelled(self.follow_changes(&mut unreadable, &mut connected)).await;
            let Some(Err(error)) = ended else { return Ok(()) };
            if connected {
                backoff = Backoff::default();
                outage.recovered();
            }
            outage.note(&error, "cannot follow changes of accounts; they arrive when the centre answers");
            if stop.run_until_cancelled(backoff.wait()).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Follows from the stored version until an error. While accounts are unreadable the stored version stays before
    /// them, so that a replica that starts later, with the right key or a newer release, gets them again.
    async fn follow_changes(
        &self,
        unreadable: &mut UnreadableAccounts,
        connected: &mut bool,
    ) -> Result<Infallible, LoginError> {
        let mut stored = regional::followed(&self.database).await?;
        let mut after = unreadable.seen().max(stored);
        let mut feed = self.central.changes(after).await?;
        loop {
            let batch = match feed.next().await {
                Ok(batch) => batch,
                Err(error) => {
                    self.central.feed_failed(&feed);
                    return Err(error.into());
                }
            };
            if !std::mem::replace(connected, true) {
                let region = self.central.region();
                info!(region, version = after, "following the changes of accounts");
            }
            for account in &batch.accounts {
                self.write_account(account).await?;
            }
            after = after.max(batch.through_version);
            unreadable.add(batch.unreadable, after);
            self.retry(unreadable).await?;
            if after > stored && unreadable.is_empty() {
                regional::follow(&self.database, after).await?;
                stored = after;
            }
            self.central.note_update();
        }
    }

    /// Writes one account. One that can never be written is counted, and does not delay the others.
    async fn write_account(&self, account: &Account) -> Result<(), LoginError> {
        match self.copy.apply(account).await {
            Ok(applied) => {
                let outcome = match &applied {
                    CopyOutcome::Inserted => "new",
                    CopyOutcome::Updated { .. } => "newer",
                    CopyOutcome::Unchanged => "kept",
                };
                metrics::central_applied(outcome);
                if let CopyOutcome::Updated { ended: Some((raised, cause)) } = applied {
                    // Followers tell the gateways. A call to each gateway for every account would be too many in a wave
                    // of bans.
                    self.revocations.notify_followers([raised], &cause);
                }
                Ok(())
            }
            Err(LoginError::Store(error)) if !error.retryable() => {
                metrics::central_applied("failed");
                tracing::error!(account = %account.id, %error, "cannot write an account of the centre");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Requests the unreadable accounts that are due, and writes those that can be read now.
    async fn retry(&self, unreadable: &mut UnreadableAccounts) -> Result<(), LoginError> {
        for id in unreadable.due(Instant::now()) {
            match self.central.activate(id).await {
                Ok(account) => {
                    self.write_account(&account).await?;
                    unreadable.recovered(id);
                    info!(account = %id, "an account that was unreadable is up to date again");
                }
                // No server answers: one failed call is enough, because each delays the changes of other accounts.
                Err(error @ CentralError::Unavailable(_)) => {
                    debug!(account = %id, %error, "an account is still unreadable");
                    break;
                }
                Err(error) => debug!(account = %id, %error, "an account is still unreadable"),
            }
        }
        Ok(())
    }
}

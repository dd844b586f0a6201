//! How a region keeps up with the centre: what changes there is written here, and sessions end that a new password or
//! a ban ends. Every replica follows for itself, from where the region's store says; writing twice is harmless.

use std::{convert::Infallible, sync::Arc, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_rpc::central as wire;
use shardkeep_store::{
    accounts::regional::{self, CopyOutcome, RevocationCauses},
    central::Account,
};
use shardkeep_wire::payload::ErrorCode;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::info;

use super::{CentralAccounts, CentralError, batch::ChangeBatch, unreadable_accounts::UnreadableAccounts};
use crate::{
    LoginError,
    context::{LoginContext, cause},
    error::ban_detail,
    metrics,
    outage::Outage,
    requests::FACTOR_ADDED,
};

/// The centre says something every two seconds; one that is silent for so long stands still.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// Where changes come from.
pub(super) enum ChangeFeed {
    Local(mpsc::Receiver<Result<ChangeBatch, CentralError>>),
    /// From which of the centre's servers.
    Remote {
        at: usize,
        changes: Box<Streaming<wire::Changes>>,
    },
}

impl ChangeFeed {
    async fn next(&mut self) -> Result<ChangeBatch, CentralError> {
        let ended = || CentralError::Unavailable("it has ended the stream of changes".to_owned());
        let next = async {
            match self {
                Self::Local(changes) => changes.recv().await.unwrap_or_else(|| Err(ended())),
                Self::Remote { changes, .. } => {
                    changes.message().await?.map(ChangeBatch::from_wire).ok_or_else(ended)
                }
            }
        };
        let next = timeout(STREAM_TIMEOUT, next).await;
        next.unwrap_or_else(|_| Err(CentralError::Unavailable("it tells of no changes".to_owned())))
    }
}

/// Follows until told to stop, for as long as there is a centre.
pub(crate) async fn follow(context: Arc<LoginContext>, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(central) = &context.central else { return Ok(()) };
    let (mut backoff, mut outage, mut unreadable_accounts) =
        (Backoff::default(), Outage::default(), UnreadableAccounts::default());
    loop {
        let mut connected = false;
        let ended = stop
            .run_until_cancelled(follow_changes(&context, central, &mut unreadable_accounts, &mut connected))
            .await;
        let Some(Err(error)) = ended else { return Ok(()) };
        if connected {
            backoff = Backoff::default();
            outage.recovered();
        }
        outage.note(&error, "changes of accounts can not be followed; they come when the centre is back");
        if stop.run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(());
        }
    }
}

/// From where the store is, until something breaks. The store stays before what was left out, so that whoever starts
/// anew, with the right key or a newer version, is told of it again.
async fn follow_changes(
    context: &LoginContext,
    central: &CentralAccounts,
    unreadable_accounts: &mut UnreadableAccounts,
    connected: &mut bool,
) -> Result<Infallible, LoginError> {
    let mut stored = regional::followed(&context.database).await?;
    let mut after = unreadable_accounts.seen().max(stored);
    let mut feed = central.changes(after).await?;
    loop {
        let batch = match feed.next().await {
            Ok(batch) => batch,
            Err(error) => {
                central.feed_failed(&feed);
                return Err(error.into());
            }
        };
        if !std::mem::replace(connected, true) {
            info!(region = central.region(), version = after, "follows the changes of accounts");
        }
        for account in &batch.accounts {
            write_account(context, account).await?;
        }
        after = after.max(batch.through_version);
        unreadable_accounts.add(batch.unreadable, after);
        unreadable_accounts.retry_due(context, central).await?;
        if after > stored && unreadable_accounts.is_empty() {
            regional::follow(&context.database, after).await?;
            stored = after;
        }
        central.note_update();
    }
}

/// Writes one account. What can never be written is counted and must not keep the others waiting.
pub(super) async fn write_account(context: &LoginContext, account: &Account) -> Result<(), LoginError> {
    match apply(context, account).await {
        Ok(applied) => {
            let outcome = match &applied {
                CopyOutcome::Inserted => "new",
                CopyOutcome::Updated { .. } => "newer",
                CopyOutcome::Unchanged => "kept",
            };
            metrics::central_applied(outcome);
            if let CopyOutcome::Updated { ended: Some((raised, cause)) } = applied {
                // Gateways hear of it at once; in a wave of bans a call to each for every account would be too many.
                context.revocations.notify_followers([raised], &cause);
            }
            Ok(())
        }
        Err(LoginError::Store(error)) if !error.retryable() => {
            metrics::central_applied("failed");
            tracing::error!(account = %account.id, %error, "an account of the centre can not be written here");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes this region's copy as new as this, with the second factor enciphered by this region's key.
pub(crate) async fn apply(context: &LoginContext, account: &Account) -> Result<CopyOutcome, LoginError> {
    let sealed = match &account.factor {
        Some(secret) => Some(context.secret_cipher.seal(account.id, secret.expose())?.into()),
        None => None,
    };
    let copy = Account { factor: sealed, ..account.clone() };
    let ban = &account.ban;
    let causes = RevocationCauses {
        password: cause(ErrorCode::Kicked, "the password was changed"),
        factor: cause(ErrorCode::Kicked, FACTOR_ADDED),
        ban: cause(ErrorCode::Banned, ban_detail(ban.until_ms, &ban.reason)),
    };
    Ok(Box::pin(regional::apply(&context.database, &copy, &causes)).await?)
}

//! How a region keeps up with the centre: what changes there is written here, and sessions end that a new password or
//! a ban ends. Every replica follows for itself, from where the region's store says; writing twice is harmless.

use std::{convert::Infallible, sync::Arc, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_rpc::central as wire;
use shardkeep_store::{
    accounts::regional::{self, Applied, Causes},
    central::{Account, Changes},
};
use shardkeep_wire::payload::ErrorCode;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::info;

use super::{CentralError, Centre, convert};
use crate::{
    LoginError,
    door::{Door, cause},
    error::ban_detail,
    metrics,
    outage::Outage,
    requests::FACTOR_ADDED,
};

/// The centre says something every two seconds; one that is silent for so long stands still.
const SILENCE: Duration = Duration::from_secs(8);

/// Where changes come from.
pub(super) enum Feed {
    Home(mpsc::Receiver<Result<Changes, CentralError>>),
    Far(Box<Streaming<wire::Changes>>),
}

impl Feed {
    async fn next(&mut self) -> Result<Changes, CentralError> {
        let ended = || CentralError::Away("it has ended the stream of changes".to_owned());
        let next = async {
            match self {
                Self::Home(changes) => changes.recv().await.unwrap_or_else(|| Err(ended())),
                Self::Far(changes) => {
                    let changes = changes.message().await?.ok_or_else(ended)?;
                    let accounts =
                        changes.accounts.into_iter().map(convert::from_wire).collect::<Result<_, _>>()?;
                    Ok(Changes { accounts, through: changes.through_version })
                }
            }
        };
        let next = timeout(SILENCE, next).await;
        next.unwrap_or_else(|_| Err(CentralError::Away("it tells of no changes".to_owned())))
    }
}

/// Follows until told to stop, for as long as there is a centre.
pub(crate) async fn follow(door: Arc<Door>, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(centre) = &door.centre else { return Ok(()) };
    let (mut backoff, mut outage) = (Backoff::default(), Outage::default());
    loop {
        let mut began = false;
        let ended = stop.run_until_cancelled(rounds(&door, centre, &mut began)).await;
        let Some(Err(error)) = ended else { return Ok(()) };
        if began {
            backoff = Backoff::default();
            outage.over();
        }
        outage.note(&error, "changes of accounts can not be followed; they come when the centre is back");
        if stop.run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(());
        }
    }
}

/// From where the store is, until something breaks.
async fn rounds(door: &Door, centre: &Centre, began: &mut bool) -> Result<Infallible, LoginError> {
    let mut after = regional::followed(&door.database).await?;
    let mut feed = centre.changes(after).await?;
    loop {
        let changes = feed.next().await?;
        if !std::mem::replace(began, true) {
            info!(region = centre.region(), version = after, "follows the changes of accounts");
        }
        for account in &changes.accounts {
            take(door, account).await?;
        }
        if changes.through > after {
            after = changes.through;
            regional::follow(&door.database, after).await?;
        }
        centre.has_told();
    }
}

/// Writes one account. What can never be written is counted and must not keep the others waiting.
async fn take(door: &Door, account: &Account) -> Result<(), LoginError> {
    match apply(door, account).await {
        Ok(applied) => {
            let outcome = match &applied {
                Applied::New => "new",
                Applied::Newer { .. } => "newer",
                Applied::Kept => "kept",
            };
            metrics::central_applied(outcome);
            if let Applied::Newer { ended: Some((raised, cause)) } = applied {
                // Gateways hear of it at once; in a wave of bans a call to each for every account would be too many.
                door.revocations.tell([raised], &cause);
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
pub(crate) async fn apply(door: &Door, account: &Account) -> Result<Applied, LoginError> {
    let sealed = match &account.factor {
        Some(secret) => Some(door.vault.seal(account.id, secret.expose())?.into()),
        None => None,
    };
    let copy = Account { factor: sealed, ..account.clone() };
    let ban = &account.ban;
    let causes = Causes {
        password: cause(ErrorCode::Kicked, "the password was changed"),
        factor: cause(ErrorCode::Kicked, FACTOR_ADDED),
        ban: cause(ErrorCode::Banned, ban_detail(ban.until_ms, &ban.reason)),
    };
    Ok(Box::pin(regional::apply(&door.database, &copy, &causes)).await?)
}

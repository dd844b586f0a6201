//! How a region keeps up with the centre: what changes there is written here, and sessions end that a new password or
//! a ban ends. Every replica follows for itself, from where the region's store says; writing twice is harmless.

use std::{convert::Infallible, sync::Arc, time::Duration};

use shardkeep_cluster::Backoff;
use shardkeep_rpc::central as wire;
use shardkeep_store::{
    accounts::regional::{self, Applied, Causes},
    central::Account,
};
use shardkeep_wire::payload::ErrorCode;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::info;

use super::{CentralError, Centre, left_out::LeftOut, news::News};
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
    Home(mpsc::Receiver<Result<News, CentralError>>),
    /// From which of the centre's servers.
    Far {
        at: usize,
        changes: Box<Streaming<wire::Changes>>,
    },
}

impl Feed {
    async fn next(&mut self) -> Result<News, CentralError> {
        let ended = || CentralError::Away("it has ended the stream of changes".to_owned());
        let next = async {
            match self {
                Self::Home(changes) => changes.recv().await.unwrap_or_else(|| Err(ended())),
                Self::Far { changes, .. } => changes.message().await?.map(News::from_wire).ok_or_else(ended),
            }
        };
        let next = timeout(SILENCE, next).await;
        next.unwrap_or_else(|_| Err(CentralError::Away("it tells of no changes".to_owned())))
    }
}

/// Follows until told to stop, for as long as there is a centre.
pub(crate) async fn follow(door: Arc<Door>, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(centre) = &door.centre else { return Ok(()) };
    let (mut backoff, mut outage, mut left_out) = (Backoff::default(), Outage::default(), LeftOut::default());
    loop {
        let mut began = false;
        let ended = stop.run_until_cancelled(rounds(&door, centre, &mut left_out, &mut began)).await;
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

/// From where the store is, until something breaks. The store stays before what was left out, so that whoever starts
/// anew, with the right key or a newer version, is told of it again.
async fn rounds(
    door: &Door,
    centre: &Centre,
    left_out: &mut LeftOut,
    began: &mut bool,
) -> Result<Infallible, LoginError> {
    let mut stored = regional::followed(&door.database).await?;
    let mut after = left_out.seen().max(stored);
    let mut feed = centre.changes(after).await?;
    loop {
        let news = match feed.next().await {
            Ok(news) => news,
            Err(error) => {
                centre.broke_off(&feed);
                return Err(error.into());
            }
        };
        if !std::mem::replace(began, true) {
            info!(region = centre.region(), version = after, "follows the changes of accounts");
        }
        for account in &news.accounts {
            take(door, account).await?;
        }
        after = after.max(news.through);
        left_out.add(news.unreadable, after);
        left_out.ask_again(door, centre).await?;
        if after > stored && left_out.is_empty() {
            regional::follow(&door.database, after).await?;
            stored = after;
        }
        centre.has_told();
    }
}

/// Writes one account. What can never be written is counted and must not keep the others waiting.
pub(super) async fn take(door: &Door, account: &Account) -> Result<(), LoginError> {
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

//! Streams the prepaid accounts to login servers, which then call billing only for these.

use std::{pin::Pin, time::Duration};

use futures::{Stream, stream};
use shardkeep_rpc::billing::PrepaidAccounts;
use shardkeep_store::billing::{Billing as Ledger, PrepaidCursor};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Accounts in one message.
const PAGE: u32 = 10_000;
/// How often the store is read for new prepaid accounts. Each time a message goes out.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type PrepaidStream = Pin<Box<dyn Stream<Item = Result<PrepaidAccounts, Status>> + Send>>;

/// Streams until the store fails or the daemon drains.
pub(crate) fn follow(ledger: Ledger, draining: CancellationToken) -> PrepaidStream {
    let first = (ledger, draining, PrepaidCursor::default(), false);
    Box::pin(stream::try_unfold(first, |(ledger, draining, cursor, complete)| async move {
        if complete && draining.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
            return Ok(None);
        }
        let page = ledger.prepaid_after(cursor, PAGE).await;
        let (accounts, next) = page.map_err(|error| Status::unavailable(error.to_string()))?;
        let complete = accounts.len() < PAGE as usize;
        let message =
            PrepaidAccounts { accounts: accounts.into_iter().map(|account| account.0).collect(), complete };
        Ok(Some((message, (ledger, draining, next, complete))))
    }))
}

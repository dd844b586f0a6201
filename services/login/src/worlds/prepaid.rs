//! The prepaid accounts, as billing streams them. A login of another account then needs no call to billing.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shardkeep_cluster::{Backoff, Directory, Node};
use shardkeep_rpc::billing::{FollowPrepaidRequest, PrepaidAccounts, billing_client::BillingClient};
use shardkeep_types::{AccountId, DaemonKind};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{metrics, outage::Outage};

/// Billing sends a message every second. A stream that is silent for this time is broken.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Accounts that are remembered. Overflow: login asks billing at every login.
const MAX_ACCOUNTS: usize = 1_000_000;

/// `None`: not known, so that every account may be prepaid.
#[derive(Default)]
pub(crate) struct PrepaidList(Mutex<Option<HashSet<u64>>>);

impl PrepaidList {
    pub(crate) fn may_be_prepaid(&self, account: AccountId) -> bool {
        self.0.lock().as_ref().is_none_or(|known| known.contains(&account.0))
    }

    fn set(&self, accounts: Option<HashSet<u64>>) {
        metrics::prepaid_known(accounts.as_ref().map(HashSet::len));
        *self.0.lock() = accounts;
    }

    fn extend(&self, accounts: Vec<u64>) {
        if let Some(known) = self.0.lock().as_mut() {
            known.extend(accounts);
            metrics::prepaid_known(Some(known.len()));
        }
    }
}

/// Follows billing until `stop`.
pub(crate) async fn follow(
    node: Node,
    billings: Directory,
    list: Arc<PrepaidList>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (mut backoff, mut outage) = (Backoff::default(), Outage::default());
    loop {
        let mut complete = false;
        let following = follow_one(&node, &billings, &list, &mut complete);
        let Some(error) = stop.run_until_cancelled(following).await else { return Ok(()) };
        list.set(None);
        if complete {
            backoff = Backoff::default();
            outage.recovered();
        }
        outage.note(&error, "cannot follow the prepaid accounts; login asks billing at every login");
        if stop.run_until_cancelled(backoff.wait()).await.is_none() {
            return Ok(());
        }
    }
}

/// Follows one billing daemon, and returns why that ended.
async fn follow_one(node: &Node, billings: &Directory, list: &PrepaidList, complete: &mut bool) -> Status {
    let Some(billing) = billings.least_loaded() else {
        return Status::unavailable("no billing daemon is up");
    };
    let mut client = BillingClient::new(node.channel(DaemonKind::Billing, &billing.grpc_address));
    let mut stream = match client.follow_prepaid(FollowPrepaidRequest {}).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status,
    };
    let mut known = HashSet::new();
    loop {
        let PrepaidAccounts { accounts, complete: is_complete } = match next(&mut stream).await {
            Ok(message) => message,
            Err(status) => return status,
        };
        if *complete {
            list.extend(accounts);
            continue;
        }
        known.extend(accounts);
        if known.len() > MAX_ACCOUNTS {
            return Status::resource_exhausted("there are more prepaid accounts than login remembers");
        }
        if is_complete {
            list.set(Some(std::mem::take(&mut known)));
            *complete = true;
        }
    }
}

async fn next(stream: &mut Streaming<PrepaidAccounts>) -> Result<PrepaidAccounts, Status> {
    let message = timeout(STREAM_TIMEOUT, stream.message()).await;
    let message = message.unwrap_or_else(|_| Err(Status::deadline_exceeded("the stream is silent")))?;
    message.ok_or_else(|| Status::unavailable("billing ended the stream"))
}

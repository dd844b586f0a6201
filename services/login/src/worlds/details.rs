//! Data of other daemons about an account that logs in: dbcache counts its characters, and billing knows its play time. A
//! welcome waits for both only a short time, and leaves out what did not come.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shardkeep_cluster::{BatchPolicy, Directory, Node, RequestBatcher};
use shardkeep_rpc::{
    billing::{TimeLeftRequest, billing_client::BillingClient},
    dbcache::{CountCharactersRequest, db_cache_client::DbCacheClient},
};
use shardkeep_types::{AccountId, DaemonKind};
use tokio::sync::Semaphore;
use tonic::{Request, Status};

use crate::worlds::prepaid::PrepaidList;

/// A welcome waits for at most twice this time.
const DEADLINE: Duration = Duration::from_millis(150);
/// Each connection asks one question at a time, so the bound of connections is never exceeded.
fn batch_policy(connections: usize) -> BatchPolicy {
    BatchPolicy {
        max_requests: 256,
        interval: Duration::from_millis(20),
        waiting: connections,
        deadline: DEADLINE,
    }
}

/// Concurrent repeated counts of characters.
const COUNTING: usize = 32;

type ByWorld = HashMap<u32, u32>;

pub(crate) struct AccountDetails {
    dbcaches: Directory,
    billings: Directory,
    prepaid: Arc<PrepaidList>,
    /// Keyed by the address of the dbcache.
    characters: RequestBatcher<String, u64, ByWorld, Status>,
    time_left: RequestBatcher<String, u64, Option<u64>, Status>,
    /// Bounds the repeated counts. Overflow: the next count of the connection tries again.
    counting: Semaphore,
}

impl AccountDetails {
    pub(crate) fn new(node: &Node, prepaid: Arc<PrepaidList>, connections: usize) -> Self {
        let batch_policy = batch_policy(connections);
        Self {
            dbcaches: node.directory(DaemonKind::Dbcache),
            billings: node.directory(DaemonKind::Billing),
            prepaid,
            characters: count_characters(node.clone(), batch_policy),
            time_left: time_left(node.clone(), batch_policy),
            counting: Semaphore::new(COUNTING),
        }
    }

    /// How many characters the account has in each world; `None`: dbcache does not answer.
    pub(crate) async fn characters(&self, account: AccountId) -> Option<ByWorld> {
        let dbcache = self.dbcaches.least_loaded()?;
        let counted = self.characters.submit(&dbcache.grpc_address, account.0).await;
        counted
            .inspect_err(
                |status| tracing::warn!(%status, "dbcache did not count the characters of an account"),
            )
            .ok()
    }

    /// Counts the characters of a logged-in account again; `None` also if too many counts are under way.
    pub(crate) async fn recount_characters(&self, account: AccountId) -> Option<ByWorld> {
        let _permit = self.counting.try_acquire().ok()?;
        self.characters(account).await
    }

    /// Play time left in milliseconds; `None`: the plan has no limit, or billing does not answer.
    pub(crate) async fn play_time_left(&self, account: AccountId) -> Option<u64> {
        if !self.prepaid.may_be_prepaid(account) {
            return None;
        }
        let billing = self.billings.least_loaded()?;
        let left = self.time_left.submit(&billing.grpc_address, account.0).await;
        left.inspect_err(
            |status| tracing::warn!(%status, "billing did not tell the play time left of an account"),
        )
        .ok()?
    }
}

fn count_characters(node: Node, batch_policy: BatchPolicy) -> RequestBatcher<String, u64, ByWorld, Status> {
    RequestBatcher::new("characters", batch_policy, move |address: String, accounts| {
        let mut client = DbCacheClient::new(node.channel(DaemonKind::Dbcache, &address));
        Box::pin(async move {
            let reply = client.count_characters(with_deadline(CountCharactersRequest { accounts })).await?;
            Ok(reply.into_inner().counts.into_iter().map(|it| it.by_world).collect())
        })
    })
}

fn time_left(node: Node, batch_policy: BatchPolicy) -> RequestBatcher<String, u64, Option<u64>, Status> {
    RequestBatcher::new("time_left", batch_policy, move |address: String, accounts: Vec<u64>| {
        let mut client = BillingClient::new(node.channel(DaemonKind::Billing, &address));
        Box::pin(async move {
            let reply =
                client.time_left(with_deadline(TimeLeftRequest { accounts: accounts.clone() })).await?;
            let left = reply.into_inner().left_ms;
            Ok(accounts.iter().map(|account| left.get(account).copied()).collect())
        })
    })
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

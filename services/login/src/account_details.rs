//! What other daemons know of an account that logs in: dbcache, how many characters it has; billing, how long it may
//! play. A welcome waits for both, but not for long: without an answer it says nothing of that.

use std::{collections::HashMap, time::Duration};

use shardkeep_cluster::{BatchPolicy, Directory, Node, RequestBatcher};
use shardkeep_rpc::{
    billing::{TimeLeftRequest, billing_client::BillingClient},
    dbcache::{CountCharactersRequest, db_cache_client::DbCacheClient},
};
use shardkeep_types::{AccountId, DaemonKind};
use tokio::sync::Semaphore;
use tonic::{Request, Status};

/// Twice this is how long a welcome waits at most.
const DEADLINE: Duration = Duration::from_millis(150);
/// Every question is of a connection, and so many there are at most: nothing is refused here.
fn batch_policy(connections: usize) -> BatchPolicy {
    BatchPolicy {
        max_requests: 256,
        interval: Duration::from_millis(20),
        waiting: connections,
        deadline: DEADLINE,
    }
}

/// Accounts whose characters are counted again at the same time.
const COUNTING: usize = 32;

type ByWorld = HashMap<u32, u32>;

pub(crate) struct AccountDetails {
    dbcaches: Directory,
    billings: Directory,
    /// By the address of who is asked.
    characters: RequestBatcher<String, u64, ByWorld, Status>,
    time_left: RequestBatcher<String, u64, Option<u64>, Status>,
    /// Bounds what those who are here ask about their characters. Overflow: they are told a little later.
    counting: Semaphore,
}

impl AccountDetails {
    pub(crate) fn new(node: &Node, connections: usize) -> Self {
        let batch_policy = batch_policy(connections);
        Self {
            dbcaches: node.directory(DaemonKind::Dbcache),
            billings: node.directory(DaemonKind::Billing),
            characters: count_characters(node.clone(), batch_policy),
            time_left: time_left(node.clone(), batch_policy),
            counting: Semaphore::new(COUNTING),
        }
    }

    /// How many characters the account has in each world; `None` if the game's database does not answer.
    pub(crate) async fn characters(&self, account: AccountId) -> Option<ByWorld> {
        let dbcache = self.dbcaches.least_loaded()?;
        let counted = self.characters.submit(&dbcache.grpc_address, account.0).await;
        counted.inspect_err(|status| tracing::warn!(%status, "dbcache does not count characters")).ok()
    }

    /// The same for an account that is here already; `None` also if as many as may be are asked about at the moment.
    pub(crate) async fn recount_characters(&self, account: AccountId) -> Option<ByWorld> {
        let _permit = self.counting.try_acquire().ok()?;
        self.characters(account).await
    }

    /// Milliseconds; `None`: the account's plan does not meter, or billing does not answer.
    pub(crate) async fn play_time_left(&self, account: AccountId) -> Option<u64> {
        let billing = self.billings.least_loaded()?;
        let left = self.time_left.submit(&billing.grpc_address, account.0).await;
        left.inspect_err(|status| tracing::warn!(%status, "billing does not tell the play time left")).ok()?
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

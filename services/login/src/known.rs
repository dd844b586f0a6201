//! What other daemons know of an account that logs in: dbcache, how many characters it has; billing, how long it may
//! play. A welcome waits for both, but not for long: without an answer it says nothing of that.

use std::{collections::HashMap, time::Duration};

use shardkeep_cluster::{Directory, Gather, Node, Pace};
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
fn pace(connections: usize) -> Pace {
    Pace { most: 256, interval: Duration::from_millis(20), waiting: connections, deadline: DEADLINE }
}

/// Accounts whose characters are counted again at the same time.
const COUNTING: usize = 32;

type ByWorld = HashMap<u32, u32>;

pub(crate) struct Known {
    dbcaches: Directory,
    billings: Directory,
    /// By the address of who is asked.
    characters: Gather<String, u64, ByWorld, Status>,
    time_left: Gather<String, u64, Option<u64>, Status>,
    /// Bounds what those who are here ask about their characters. Overflow: they are told a little later.
    counting: Semaphore,
}

impl Known {
    pub(crate) fn new(node: &Node, connections: usize) -> Self {
        let pace = pace(connections);
        Self {
            dbcaches: node.directory(DaemonKind::Dbcache),
            billings: node.directory(DaemonKind::Billing),
            characters: count_characters(node.clone(), pace),
            time_left: time_left(node.clone(), pace),
            counting: Semaphore::new(COUNTING),
        }
    }

    /// How many characters the account has in each world; `None` if the game's database does not answer.
    pub(crate) async fn characters(&self, account: AccountId) -> Option<ByWorld> {
        let dbcache = self.dbcaches.lightest()?;
        let counted = self.characters.ask(&dbcache.grpc_address, account.0).await;
        counted.inspect_err(|status| tracing::warn!(%status, "dbcache does not count characters")).ok()
    }

    /// The same for an account that is here already; `None` also if as many as may be are asked about at the moment.
    pub(crate) async fn characters_again(&self, account: AccountId) -> Option<ByWorld> {
        let _room = self.counting.try_acquire().ok()?;
        self.characters(account).await
    }

    /// Milliseconds; `None`: the account's plan does not meter, or billing does not answer.
    pub(crate) async fn play_time_left(&self, account: AccountId) -> Option<u64> {
        let billing = self.billings.lightest()?;
        let left = self.time_left.ask(&billing.grpc_address, account.0).await;
        left.inspect_err(|status| tracing::warn!(%status, "billing does not tell the play time left")).ok()?
    }
}

fn count_characters(node: Node, pace: Pace) -> Gather<String, u64, ByWorld, Status> {
    Gather::new("characters", pace, move |address: String, accounts| {
        let mut client = DbCacheClient::new(node.channel(DaemonKind::Dbcache, &address));
        Box::pin(async move {
            let reply = client.count_characters(in_time(CountCharactersRequest { accounts })).await?;
            Ok(reply.into_inner().counts.into_iter().map(|it| it.by_world).collect())
        })
    })
}

fn time_left(node: Node, pace: Pace) -> Gather<String, u64, Option<u64>, Status> {
    Gather::new("time_left", pace, move |address: String, accounts: Vec<u64>| {
        let mut client = BillingClient::new(node.channel(DaemonKind::Billing, &address));
        Box::pin(async move {
            let reply = client.time_left(in_time(TimeLeftRequest { accounts: accounts.clone() })).await?;
            let left = reply.into_inner().left_ms;
            Ok(accounts.iter().map(|account| left.get(account).copied()).collect())
        })
    })
}

fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

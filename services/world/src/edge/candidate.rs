//! Takes and renews the leadership row.

use std::time::{Duration, Instant};

use shardkeep_cluster::{Backoff, Directory, Node};
use shardkeep_rpc::dbcache::{LeadReply, LeadRequest, db_cache_client::DbCacheClient};
use shardkeep_types::{DaemonKind, Term};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{domain::leadership::LeaseAnswer, edge::service::Handle, metrics::LEAD_FAILURES};

/// Renewals per lease.
const RENEWALS: u32 = 5;
/// Delay after the first failure; later delays are longer.
const FIRST_RETRY: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(crate) struct Candidate {
    node: Node,
    databases: Directory,
    ttl: Duration,
}

impl Candidate {
    pub(crate) fn new(node: Node, ttl: Duration) -> Self {
        let databases = node.directory(DaemonKind::Dbcache);
        Self { node, databases, ttl }
    }

    /// Bids for the leadership until cancelled.
    pub(crate) async fn run(self, handle: Handle, stop: CancellationToken) -> anyhow::Result<()> {
        let interval = self.ttl / RENEWALS;
        let mut backoff = Backoff::new(FIRST_RETRY, interval);
        let mut failing = false;
        loop {
            let sent_at = Instant::now();
            let wait = match timeout(interval * 2, self.ask(self.ttl)).await {
                Ok(Ok(reply)) => {
                    backoff.reset();
                    failing = false;
                    let left = Duration::from_millis(reply.left_ms.into());
                    let (wait, answer) = match reply.leader {
                        true => (interval, LeaseAnswer::Granted(Term(reply.term))),
                        false => (interval.min(left), LeaseAnswer::HeldBy(reply.holder)),
                    };
                    let ttl = self.ttl;
                    handle.tell(move |app, now| app.lease_reply(now, sent_at, ttl, answer)).await;
                    wait.max(interval / 10)
                }
                failed => {
                    let why = failed
                        .map_or_else(|_| "no answer".to_owned(), |failed| failed.err().unwrap_or_default());
                    metrics::counter!(LEAD_FAILURES).increment(1);
                    if std::mem::replace(&mut failing, true) {
                        tracing::debug!(why, "the leadership is still not renewed");
                    } else {
                        tracing::warn!(why, "the bid for the leadership failed; retrying");
                    }
                    backoff.next_delay()
                }
            };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Releases the lease, so that a standby need not wait for its end. If the call fails, the lease ends by itself.
    pub(crate) async fn release_lease(self) {
        let _ = timeout(self.ttl / RENEWALS, self.ask(Duration::ZERO)).await;
    }

    async fn ask(&self, ttl: Duration) -> Result<LeadReply, String> {
        let address = self.databases.least_loaded().ok_or("no dbcache is up")?.grpc_address;
        let mut database = DbCacheClient::new(self.node.channel(DaemonKind::Dbcache, &address));
        let request = LeadRequest {
            world: self.node.world().0,
            holder: self.node.id().name.clone(),
            incarnation: self.node.id().incarnation,
            ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX),
        };
        let reply = database
            .lead(request)
            .await
            .map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
        Ok(reply.into_inner())
    }
}

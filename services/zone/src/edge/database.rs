//! Calls to dbcache: deadlines, retries, and the meaning of failures.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use shardkeep_cluster::{Backoff, Directory, MESSAGE_LIMIT, Node};
use shardkeep_rpc::dbcache::{
    ActionId, Character, HardAction, HardResult, LoadGroundReply, LoadGroundRequest, LoadRequest,
    LookupActionReply, LookupActionRequest, ReleaseRequest, SaveSoftRequest, TransferRequest,
    db_cache_client::DbCacheClient,
};
use shardkeep_types::{CharacterId, DaemonKind};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Channel};

/// The outcome of a call that takes longer is unknown.
const DEADLINE: Duration = Duration::from_secs(3);
/// The database is slow when a call waits longer than this. Then the zone begins no hand-over.
const SLOW_AFTER: Duration = Duration::from_millis(500);

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("another zone owns the character")]
    Stale,
    #[error("an item or a balance is not as the action assumes")]
    Refused,
    #[error("the action id belongs to another request, is too old or too far ahead")]
    Conflict,
    #[error("the database does not answer; the outcome is unknown")]
    Unknown,
}

impl DatabaseError {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }
}

impl From<&Status> for DatabaseError {
    fn from(status: &Status) -> Self {
        match status.code() {
            Code::Aborted | Code::NotFound => Self::Stale,
            Code::FailedPrecondition => Self::Refused,
            Code::AlreadyExists | Code::OutOfRange => Self::Conflict,
            Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented => {
                tracing::error!(%status, "dbcache refused a request of this zone as invalid or forbidden");
                Self::Refused
            }
            _ => Self::Unknown,
        }
    }
}

type Client = DbCacheClient<Channel>;

/// A handle to any dbcache. Clones share what is known of its answers.
#[derive(Clone)]
pub(crate) struct Database {
    node: Node,
    directory: Directory,
    reachable: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
    stopped: CancellationToken,
}

/// The calls that have no answer yet, by the time of their start.
#[derive(Default)]
struct Waiting {
    since: Mutex<BTreeSet<(Instant, u64)>>,
    last: AtomicU64,
}

impl Waiting {
    fn start(self: &Arc<Self>) -> WaitingCall {
        let key = (Instant::now(), self.last.fetch_add(1, Ordering::Relaxed));
        self.since.lock().insert(key);
        WaitingCall { waiting: self.clone(), key }
    }

    fn longest(&self) -> Duration {
        self.since.lock().first().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}

/// One of the calls that wait, until it is dropped.
struct WaitingCall {
    waiting: Arc<Waiting>,
    key: (Instant, u64),
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.waiting.since.lock().remove(&self.key);
    }
}

impl Database {
    pub(crate) fn new(node: Node, stopped: CancellationToken) -> Self {
        let directory = node.directory(DaemonKind::Dbcache);
        Self { node, directory, reachable: Arc::new(AtomicBool::new(true)), waiting: Arc::default(), stopped }
    }

    /// Whether the last call was answered, and none waits for long. Otherwise the zone begins no hand-over, because the
    /// hard actions of its avatar would wait.
    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed) && self.waiting.longest() < SLOW_AFTER
    }

    fn client(&self) -> Option<Client> {
        let instance = self.directory.least_loaded()?;
        let channel = self.node.channel(DaemonKind::Dbcache, &instance.grpc_address);
        Some(DbCacheClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
    }

    async fn call_once<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let waiting = self.waiting.start();
        let answer = match self.client() {
            None => Err(DatabaseError::Unknown),
            Some(client) => match tokio::time::timeout(DEADLINE, call(client)).await {
                Err(_) => Err(DatabaseError::Unknown),
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(DatabaseError::from(&status)),
            },
        };
        drop(waiting);
        let reachable = !matches!(answer, Err(DatabaseError::Unknown));
        if self.reachable.swap(reachable, Ordering::Relaxed) != reachable {
            tracing::warn!(
                reachable,
                "the database {}",
                if reachable { "answers again" } else { "does not answer" }
            );
        }
        answer
    }

    /// Repeats the same call until its outcome is known or the daemon stops.
    async fn call_until_known<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match self.call_once(&call).await {
                Err(DatabaseError::Unknown) => {}
                answer => return answer,
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.stopped.cancelled() => return Err(DatabaseError::Unknown),
            }
        }
    }

    /// The action carries its id or once key, so that a repeat changes nothing.
    pub(crate) async fn commit(&self, action: &HardAction) -> Result<HardResult, DatabaseError> {
        self.call_until_known(|mut client| {
            let action = action.clone();
            async move { client.commit(action).await }
        })
        .await
    }

    pub(crate) async fn transfer(&self, transfer: &TransferRequest) -> Result<u64, DatabaseError> {
        let reply = self.call_until_known(|mut client| {
            let transfer = transfer.clone();
            async move { client.transfer(transfer).await }
        });
        reply.await.map(|reply| reply.epoch)
    }

    pub(crate) async fn release(&self, release: &ReleaseRequest) -> Result<(), DatabaseError> {
        let reply = self.call_until_known(|mut client| {
            let release = *release;
            async move { client.release(release).await }
        });
        reply.await.map(drop)
    }

    pub(crate) async fn lookup_action(&self, action: &ActionId) -> Result<LookupActionReply, DatabaseError> {
        self.call_until_known(|mut client| {
            let request = LookupActionRequest { action: Some(action.clone()) };
            async move { client.lookup_action(request).await }
        })
        .await
    }

    /// One attempt to load one page.
    pub(crate) async fn load_ground(
        &self,
        request: LoadGroundRequest,
    ) -> Result<LoadGroundReply, DatabaseError> {
        self.call_once(|mut client| async move { client.load_ground(request).await }).await
    }

    pub(crate) async fn load(&self, character: CharacterId) -> Result<Character, DatabaseError> {
        self.call_once(|mut client| async move { client.load(LoadRequest { character: character.0 }).await })
            .await
    }

    /// Returns the characters that this zone no longer owns.
    pub(crate) async fn save(&self, request: SaveSoftRequest) -> Result<Vec<u64>, DatabaseError> {
        let saved = self.call_once(|mut client| async move { client.save_soft(Request::new(request)).await });
        saved.await.map(|reply| reply.stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_call_that_waits_counts() {
        let waiting = Arc::new(Waiting::default());
        assert_eq!(waiting.longest(), Duration::ZERO);
        let old = (Instant::now().checked_sub(SLOW_AFTER).unwrap(), u64::MAX);
        waiting.since.lock().insert(old);
        let call = waiting.start();
        assert!(waiting.longest() >= SLOW_AFTER);
        drop(WaitingCall { waiting: waiting.clone(), key: old });
        assert!(waiting.longest() < SLOW_AFTER);
        drop(call);
        assert!(waiting.since.lock().is_empty());
    }
}

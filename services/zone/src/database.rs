//! The way to the database: calls to dbcache with deadlines, and what their failures mean.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shardkeep_cluster::{Backoff, Directory, MESSAGE_LIMIT, Node};
use shardkeep_rpc::dbcache::{
    Character, HardAction, HardResult, LoadGroundReply, LoadGroundRequest, LoadRequest, ReleaseRequest,
    SaveSoftRequest, TransferRequest, db_cache_client::DbCacheClient,
};
use shardkeep_types::{CharacterId, DaemonKind};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Channel};

/// A call that takes longer has an unknown outcome.
const DEADLINE: Duration = Duration::from_secs(3);

/// What the database says no to, or could not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DatabaseError {
    #[error("another zone owns the character")]
    Stale,
    #[error("the action does not fit what is there")]
    Refused,
    #[error("the action id was used for another request or is too old")]
    Conflict,
    #[error("the database cannot be reached; the outcome is unknown")]
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
                tracing::error!(%status, "the database does not understand this zone");
                Self::Refused
            }
            _ => Self::Unknown,
        }
    }
}

type Client = DbCacheClient<Channel>;

/// Handle to any dbcache; clones share what they know of its health.
#[derive(Clone)]
pub(crate) struct Database {
    node: Node,
    directory: Directory,
    reachable: Arc<AtomicBool>,
    stopped: CancellationToken,
}

impl Database {
    pub(crate) fn new(node: Node, stopped: CancellationToken) -> Self {
        let directory = node.directory(DaemonKind::Dbcache);
        Self { node, directory, reachable: Arc::new(AtomicBool::new(true)), stopped }
    }

    /// Whether the last call was answered. While it is not, nothing is begun that would have to wait frozen.
    pub(crate) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
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
        let answer = match self.client() {
            None => Err(DatabaseError::Unknown),
            Some(client) => match tokio::time::timeout(DEADLINE, call(client)).await {
                Err(_) => Err(DatabaseError::Unknown),
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(DatabaseError::from(&status)),
            },
        };
        let reachable = !matches!(answer, Err(DatabaseError::Unknown));
        if self.reachable.swap(reachable, Ordering::Relaxed) != reachable {
            tracing::warn!(reachable, "the database is {}", if reachable { "back" } else { "away" });
        }
        answer
    }

    /// Repeats the same call until its outcome is known, or the daemon stops.
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

    /// The action carries its id or once-key, so that repeating it changes nothing.
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

    pub(crate) async fn load_ground(
        &self,
        request: &LoadGroundRequest,
    ) -> Result<LoadGroundReply, DatabaseError> {
        self.call_until_known(|mut client| {
            let request = *request;
            async move { client.load_ground(request).await }
        })
        .await
    }

    pub(crate) async fn load(&self, character: CharacterId) -> Result<Character, DatabaseError> {
        self.call_once(|mut client| async move { client.load(LoadRequest { character: character.0 }).await })
            .await
    }

    /// Returns the characters that this zone does not own any more.
    pub(crate) async fn save(&self, request: SaveSoftRequest) -> Result<Vec<u64>, DatabaseError> {
        let saved = self.call_once(|mut client| async move { client.save_soft(Request::new(request)).await });
        saved.await.map(|reply| reply.stale)
    }
}

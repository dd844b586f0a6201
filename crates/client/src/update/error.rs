//! Why an update did not come to its end, and whether it is worth trying again.

use std::{io, path::PathBuf};

use shardkeep_patch::{ChunkError, ChunkId, SignedError};
use shardkeep_wire::payload::ErrorCode;

use crate::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The network, or what the server said.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The manifest is not to be trusted.
    #[error("the manifest is refused: {0}")]
    Signed(#[from] SignedError),
    #[error("the server sent a manifest that is not the one it named")]
    WrongManifest,
    #[error("chunk {id} came wrong {times} times: {error}")]
    Chunk { id: ChunkId, times: u32, error: ChunkError },
    /// The server may lag behind, or have lost it.
    #[error("no server that could be asked has chunk {0} of the release")]
    MissingChunk(ChunkId),
    /// Another release was published meanwhile.
    #[error("the release was taken back while it was fetched")]
    ReleaseWithdrawn,
    #[error("release {installed} is installed, and {offered} is older")]
    Older { installed: u64, offered: u64 },
    /// The servers may offer an old release although a newer one exists.
    #[error(
        "the newest release of the servers was signed {age_days} days ago, and at most {allowed_days} days are allowed: \
         the servers may be out of date; try another server, or ask the publisher to sign the release again"
    )]
    Stale { age_days: u64, allowed_days: u64 },
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: io::Error },
    #[error("{needed} bytes of disk are needed, {free} are free")]
    InsufficientSpace { needed: u64, free: u64 },
    #[error("another update of {0} is running")]
    Locked(PathBuf),
}

impl UpdateError {
    /// For `map_err` of what touches a file.
    pub(super) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { path, source }
    }

    /// Whether another server, or the same one over another connection, may do better.
    pub(super) fn another_connection_may_succeed(&self) -> bool {
        matches!(self, Self::Client(_) | Self::WrongManifest | Self::MissingChunk(_))
    }

    /// Whether asking the same servers again may do better.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Client(ClientError::Refused(refusal)) => {
                refusal.is_temporary() || matches!(refusal.code, ErrorCode::Draining | ErrorCode::TooSlow)
            }
            Self::Client(_) | Self::WrongManifest | Self::ReleaseWithdrawn => true,
            _ => false,
        }
    }
}

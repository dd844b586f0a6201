//! The stream of changes from the centre, in this process or over gRPC.

use std::time::Duration;

use shardkeep_rpc::central as wire;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

use crate::central::{batch::ChangeBatch, error::CentralError};

/// The centre sends a batch at least every two seconds. A stream that is silent for this time is broken.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) enum ChangeFeed {
    Local(mpsc::Receiver<Result<ChangeBatch, CentralError>>),
    Remote {
        /// Index of the server that sends it.
        at: usize,
        changes: Box<Streaming<wire::Changes>>,
    },
}

impl ChangeFeed {
    pub(super) async fn next(&mut self) -> Result<ChangeBatch, CentralError> {
        let ended = || CentralError::Unavailable("it ended the stream of changes".to_owned());
        let next = async {
            match self {
                Self::Local(changes) => changes.recv().await.unwrap_or_else(|| Err(ended())),
                Self::Remote { changes, .. } => {
                    changes.message().await?.map(ChangeBatch::from_wire).ok_or_else(ended)
                }
            }
        };
        let next = timeout(STREAM_TIMEOUT, next).await;
        next.unwrap_or_else(|_| Err(CentralError::Unavailable("its stream of changes is silent".to_owned())))
    }

    /// The server that sends it; `None`: this process.
    pub(super) fn server(&self) -> Option<usize> {
        match self {
            Self::Local(_) => None,
            Self::Remote { at, .. } => Some(*at),
        }
    }
}

//! Why a connection to the update service ends.

use std::{io, time::Duration};

use shardkeep_connection::{ConnectionError, Fault};
use shardkeep_wire::payload::{Error as Answer, ErrorCode};

/// When a client that found the service full may try again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// When a client may try again after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("this server has no patches")]
    NoPatches,
    /// A bound on connections is reached.
    #[error("too busy ({0})")]
    Full(&'static str),
    /// The service was full, and the slot went to a client of a network with fewer connections.
    #[error("a client of another network took this connection's slot")]
    Evicted,
    #[error("the store of patches failed: {0}")]
    Store(&'static str),
    #[error("this server is leaving service")]
    Draining,
}

impl UpdateError {
    /// Low-cardinality name for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connection(error) => error.label(),
            Self::NoPatches => "no_patches",
            Self::Full(_) => "busy",
            Self::Evicted => "slot_lost",
            Self::Store(_) => "internal",
            Self::Draining => "draining",
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            Self::Connection(error) => error.fault(),
            Self::NoPatches => Fault::Client,
            Self::Full(_) | Self::Store(_) => Fault::Us,
            Self::Evicted | Self::Draining => Fault::NoFault,
        }
    }

    /// The last message to the client; `None`: there is none.
    pub fn answer(&self) -> Option<Answer> {
        let answer = |code| Answer::of(code, self.to_string());
        match self {
            Self::Connection(error) => error.answer(),
            // The connection may be in the middle of a record.
            Self::Evicted => None,
            Self::NoPatches => Some(answer(ErrorCode::NotFound)),
            Self::Full(_) => Some(answer(ErrorCode::Unavailable).retry_after(FULL_RETRY)),
            Self::Store(_) => Some(
                Answer::of(ErrorCode::Unavailable, "the store of patches does not answer; try again")
                    .retry_after(STORE_RETRY),
            ),
            Self::Draining => Some(answer(ErrorCode::Draining)),
        }
    }
}

impl From<io::Error> for UpdateError {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

//! Why a connection ends without a session, or leaves its session.

use std::io;

use shardkeep_wire::{
    WireError,
    message::MessageError,
    payload::{Error, ErrorCode, PayloadError},
    preface::PrefaceError,
    proxy::ProxyError,
    record::RecordError,
    seal::SealError,
    session::SessionError,
};
use tonic::{Code, Status};

use crate::domain::session::RETRY;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("too slow")]
    Timeout,
    /// A trusted balancer sent no valid PROXY header.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("no suite in common")]
    Suite,
    /// The ticket or key is unknown, used, revoked, expired, or not proved. The client is not told which.
    #[error("ticket or resume key is not valid")]
    Ticket,
    #[error("this gateway is leaving")]
    Draining,
    #[error("the gateway is full")]
    Full,
    #[error("too many resumes from this address")]
    Throttled,
    #[error("a newer login has displaced the session")]
    Displaced,
    #[error("another resume of the session came between")]
    Overtaken,
    /// The fault is in the cluster, not in the client.
    #[error("the world does not answer: {0}")]
    World(String),
}

impl ConnectionError {
    /// Low-cardinality name for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.label(),
            Self::Io(_) => "io",
            Self::Timeout => "timeout",
            Self::Proxy(error) => error.label(),
            Self::Suite => "suite",
            Self::Ticket => "ticket",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Throttled => "throttled",
            Self::Displaced => "displaced",
            Self::Overtaken => "overtaken",
            Self::World(_) => "world",
        }
    }

    /// The error that the client gets; `None`: none.
    pub(crate) fn answer(&self) -> Option<Error> {
        let code = match self {
            Self::Wire(error) => error.code()?,
            Self::Io(_) | Self::Timeout | Self::Proxy(_) => return None,
            Self::Suite => ErrorCode::Malformed,
            Self::Ticket => ErrorCode::TicketInvalid,
            Self::Draining => ErrorCode::Draining,
            Self::Full | Self::World(_) | Self::Overtaken => ErrorCode::Unavailable,
            Self::Throttled => ErrorCode::Throttled,
            Self::Displaced => ErrorCode::Displaced,
        };
        let error = Error::of(code, self.to_string());
        Some(match code {
            ErrorCode::Unavailable | ErrorCode::Throttled => error.retry_after(RETRY),
            _ => error,
        })
    }
}

/// Maps a world's refusal to the error for the client.
impl From<Status> for ConnectionError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound | Code::PermissionDenied => Self::Ticket,
            Code::Aborted => Self::Displaced,
            Code::FailedPrecondition => Self::Overtaken,
            _ => Self::World(status.message().to_owned()),
        }
    }
}

macro_rules! through_wire {
    ($($error:ty),*) => {
        $(impl From<$error> for ConnectionError {
            fn from(error: $error) -> Self {
                Self::Wire(error.into())
            }
        })*
    };
}

through_wire!(MessageError, PayloadError, PrefaceError, RecordError, SealError, SessionError);

//! Why a command was not carried out, and whose fault that is.

use shardkeep_types::DaemonKind;
use tonic::{Code, Status};

use crate::role::Role;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("this needs the role {minimum_role}; you are {actual_role}")]
    Denied { minimum_role: Role, actual_role: Role },
    #[error("give a reason: it goes into the audit")]
    NoReason,
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    NotFound(String),
    /// None of this kind is up.
    #[error("no {0} is up")]
    NoneRunning(DaemonKind),
    #[error("{kind} {name}: {}", status.message())]
    Peer { kind: DaemonKind, name: String, status: Status },
    #[error("the operators' store: {0}")]
    Store(#[from] shardkeep_store::Error),
    #[error("too much to do at the moment; try again")]
    Busy,
    #[error("no answer in time; look whether it happened before you repeat it")]
    TimedOut,
}

impl CommandError {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::NoReason => "no_reason",
            Self::Malformed(_) => "malformed",
            Self::NotFound(_) => "not_found",
            Self::NoneRunning(_) => "absent",
            Self::Peer { .. } => "peer",
            Self::Store(_) => "store",
            Self::Busy => "busy",
            Self::TimedOut => "late",
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Denied { .. } => Code::PermissionDenied,
            Self::NoReason | Self::Malformed(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::NoneRunning(_) => Code::Unavailable,
            Self::Peer { status, .. } => status.code(),
            Self::Store(_) => Code::Internal,
            Self::Busy => Code::ResourceExhausted,
            Self::TimedOut => Code::DeadlineExceeded,
        }
    }
}

impl From<CommandError> for Status {
    fn from(error: CommandError) -> Self {
        Status::new(error.code(), error.to_string())
    }
}

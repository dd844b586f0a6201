//! Errors of operators' commands, with the gRPC status code and the metric label of each.

use shardkeep_types::DaemonKind;
use tonic::{Code, Status};

use crate::role::Role;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("this needs the role {minimum_role}; you are {actual_role}")]
    Denied { minimum_role: Role, actual_role: Role },
    #[error("give a reason; it is written to the audit")]
    NoReason,
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    NotFound(String),
    /// No daemon of this kind is up.
    #[error("no {0} is up; `shardkeep status` shows all daemons")]
    NoneRunning(DaemonKind),
    #[error("{kind} {name}: {}", status.message())]
    Peer { kind: DaemonKind, name: String, status: Status },
    #[error("the operators' store failed: {0}")]
    Store(#[from] shardkeep_store::Error),
    #[error("the console is busy; try again in a few seconds")]
    Busy,
    #[error("the command did not finish in time; check its effect before you repeat it")]
    TimedOut,
}

impl CommandError {
    /// Label in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::NoReason => "no_reason",
            Self::Malformed(_) => "malformed",
            Self::NotFound(_) => "not_found",
            Self::NoneRunning(_) => "none_running",
            Self::Peer { .. } => "peer",
            Self::Store(_) => "store",
            Self::Busy => "busy",
            Self::TimedOut => "timed_out",
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

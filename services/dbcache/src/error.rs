//! Maps refusals and failures to gRPC statuses. `proto/dbcache.proto` documents the mapping for callers.

use shardkeep_rpc::{Malformed, with_reason};
use shardkeep_store::{
    Error,
    game::{GameError, Refusal},
};
use tonic::{Code, Status};

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Game(#[from] GameError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The caller's certificate does not allow the request.
    #[error("{0}")]
    Forbidden(String),
    #[error("this dbcache is draining: ask another one")]
    Draining,
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Game(error.into())
    }
}

impl CallError {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Game(error) => error.label(),
            Self::Malformed(_) => "invalid",
            Self::Forbidden(_) => "forbidden",
            Self::Draining => "draining",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Game(GameError::Refused(refusal)) => code_of(refusal),
            Self::Game(GameError::Store(error)) => match error {
                Error::Busy => Code::ResourceExhausted,
                Error::OutOfRange(_) => Code::InvalidArgument,
                error if error.retryable() => Code::Unavailable,
                _ => Code::Internal,
            },
            Self::Malformed(_) => Code::InvalidArgument,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Draining => Code::Unavailable,
        }
    }
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::Forbidden(_) => Code::PermissionDenied,
        Refusal::NoSuchCharacter(_) => Code::NotFound,
        Refusal::StaleEpoch { .. } | Refusal::StaleRevision(_) => Code::Aborted,
        Refusal::StaleTerm(_)
        | Refusal::NotHeld(_)
        | Refusal::InsufficientCoins(_)
        | Refusal::InventoryFull(_) => Code::FailedPrecondition,
        Refusal::ActionConflict | Refusal::NameTaken => Code::AlreadyExists,
        Refusal::ActionTooOld | Refusal::ActionTooFar { .. } => Code::OutOfRange,
        Refusal::TooManyCharacters(_) => Code::ResourceExhausted,
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = error.code();
        if code == Code::Internal {
            tracing::error!(error = &error as &dyn std::error::Error, "the database failed");
        }
        let message = match code {
            Code::Unavailable => format!("{error}: try again"),
            Code::Internal => "the database failed: see the log of dbcache".to_owned(),
            _ => error.to_string(),
        };
        with_reason(Status::new(code, message), error.label())
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_rpc::reason;
    use shardkeep_types::{CharacterId, Epoch, Term};

    use super::*;

    #[test]
    fn stale_epoch_and_stale_term_map_to_different_codes() {
        let epoch = Refusal::StaleEpoch { character: CharacterId(1), epoch: Epoch(2) };
        let status = Status::from(CallError::Game(epoch.into()));
        assert_eq!((status.code(), reason(&status)), (Code::Aborted, Some("stale_epoch")));
        let status = Status::from(CallError::Game(Refusal::StaleTerm(Term(3)).into()));
        assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, Some("stale_term")));
    }

    #[test]
    fn unreachable_database_maps_to_unavailable() {
        let status = Status::from(CallError::from(Error::timed_out()));
        assert_eq!((status.code(), reason(&status)), (Code::Unavailable, Some("unavailable")));
        assert!(status.message().contains("try again"), "{}", status.message());
    }
}

//! Errors between a region and the centre, on both sides of the connection.

use shardkeep_store as store;
use tonic::{Code, Status};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CentralError {
    /// The change may or may not have happened; repeating it settles that.
    #[error("the central account store does not answer ({0})")]
    Unavailable(String),
    #[error("the centre does not know this account")]
    Unknown,
    #[error("the centre has an account with this name; choose another one")]
    NameTaken,
    #[error("another region changed the account at the same time; try again")]
    Conflict,
    /// An operator has to act.
    #[error("the centre refuses: {0}")]
    Refused(String),
}

impl CentralError {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "central_unavailable",
            Self::Unknown => "central_unknown",
            Self::NameTaken => "central_name_taken",
            Self::Conflict => "central_conflict",
            Self::Refused(_) => "central_refused",
        }
    }
}

impl From<store::Error> for CentralError {
    fn from(error: store::Error) -> Self {
        if error.retryable() {
            return Self::Unavailable(error.to_string());
        }
        tracing::error!(%error, "the central account store failed");
        Self::Refused("its store failed; its log has the cause".to_owned())
    }
}

impl From<CentralError> for Status {
    fn from(error: CentralError) -> Self {
        match error {
            CentralError::Unavailable(reason) => Self::unavailable(reason),
            CentralError::Unknown => Self::not_found("the centre does not know this account"),
            CentralError::NameTaken => Self::already_exists("the centre has an account with this name"),
            CentralError::Conflict => Self::aborted("the account changed meanwhile"),
            CentralError::Refused(reason) => Self::failed_precondition(reason),
        }
    }
}

impl From<Status> for CentralError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Unknown,
            Code::AlreadyExists => Self::NameTaken,
            Code::Aborted => Self::Conflict,
            // A broken connection has one of these codes too.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Internal => Self::Unavailable(status.message().to_owned()),
            Code::Unimplemented => Self::Refused(
                "a server in login.central.servers does not serve the centre: it has no login.central.store"
                    .into(),
            ),
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn central_error_survives_status_round_trip() {
        for error in [
            CentralError::Unavailable("why".into()),
            CentralError::Unknown,
            CentralError::NameTaken,
            CentralError::Conflict,
            CentralError::Refused("why".into()),
        ] {
            assert_eq!(CentralError::from(Status::from(error.clone())), error);
        }
        assert_eq!(CentralError::from(Status::unknown("transport error")).label(), "central_unavailable");
    }
}

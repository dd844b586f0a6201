//! What can go wrong between a region and the centre, on either side of the wire.

use shardkeep_store as store;
use tonic::{Code, Status};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CentralError {
    /// It may or may not have happened; asking again settles it.
    #[error("the central account store does not answer ({0})")]
    Away(String),
    #[error("the centre has no such account")]
    Unknown,
    #[error("the centre has an account of this name")]
    Taken,
    #[error("the account has just been changed in another region; try again")]
    Meanwhile,
    /// Only an operator can mend it.
    #[error("the centre refuses: {0}")]
    Refused(String),
}

impl CentralError {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Away(_) => "central_away",
            Self::Unknown => "central_unknown",
            Self::Taken => "central_taken",
            Self::Meanwhile => "central_meanwhile",
            Self::Refused(_) => "central_refused",
        }
    }
}

impl From<store::Error> for CentralError {
    fn from(error: store::Error) -> Self {
        if error.retryable() {
            return Self::Away(error.to_string());
        }
        tracing::error!(%error, "the central account store fails");
        Self::Refused("its store fails".to_owned())
    }
}

impl From<CentralError> for Status {
    fn from(error: CentralError) -> Self {
        match error {
            CentralError::Away(why) => Self::unavailable(why),
            CentralError::Unknown => Self::not_found("no such account"),
            CentralError::Taken => Self::already_exists("an account of this name"),
            CentralError::Meanwhile => Self::aborted("changed meanwhile"),
            CentralError::Refused(why) => Self::failed_precondition(why),
        }
    }
}

impl From<Status> for CentralError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Unknown,
            Code::AlreadyExists => Self::Taken,
            Code::Aborted => Self::Meanwhile,
            // Also what breaks on the way has one of these.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Internal => Self::Away(status.message().to_owned()),
            Code::Unimplemented => {
                Self::Refused("the server in login.central.at serves no centre (login.central.store)".into())
            }
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_cross_the_wire() {
        for error in [
            CentralError::Away("why".into()),
            CentralError::Unknown,
            CentralError::Taken,
            CentralError::Meanwhile,
            CentralError::Refused("why".into()),
        ] {
            assert_eq!(CentralError::from(Status::from(error.clone())), error);
        }
        assert_eq!(CentralError::from(Status::unknown("transport error")).label(), "central_away");
    }
}

//! Errors of calls as gRPC statuses.

use shardkeep_rpc::with_reason;
use shardkeep_store::{Error, billing::BillingError};
use tonic::{Code, Status};

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Billing(#[from] BillingError),
    #[error("the database does not answer")]
    Timeout,
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Billing(error.into())
    }
}

impl CallError {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Billing(error) => error.label(),
            Self::Timeout => "unavailable",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Billing(BillingError::Invalid(_)) => Code::InvalidArgument,
            Self::Billing(BillingError::KeyConflict) => Code::AlreadyExists,
            Self::Billing(BillingError::Store(Error::OutOfRange(_))) => Code::InvalidArgument,
            Self::Billing(BillingError::Store(error)) if !error.retryable() => Code::Internal,
            Self::Billing(BillingError::Store(_)) | Self::Timeout => Code::Unavailable,
        }
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let code = error.code();
        if code == Code::Internal {
            tracing::error!(error = &error as &dyn std::error::Error, "the database fails");
        }
        let message = match code {
            Code::Unavailable => format!("{error}: try again"),
            Code::Internal => "the database fails".to_owned(),
            _ => error.to_string(),
        };
        with_reason(Status::new(code, message), error.label())
    }
}

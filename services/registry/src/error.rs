//! Why the registry refuses a call. All of it is the peer's doing.

use tonic::Status;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("a later incarnation of this instance is registered, or this one has left")]
    Stale,
    #[error("an instance speaks for itself only")]
    IdentityMismatch,
    #[error("too many instances; remove offline ones")]
    Full,
    #[error("too many or too long attributes")]
    Oversize,
    #[error("no such instance")]
    Unknown,
    #[error("the instance is neither offline nor has it left")]
    NotOffline,
}

impl RegistryError {
    pub fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::IdentityMismatch => "identity_mismatch",
            Self::Full => "full",
            Self::Oversize => "oversize",
            Self::Unknown => "unknown",
            Self::NotOffline => "not_offline",
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Stale | RegistryError::NotOffline => Self::failed_precondition(text),
            RegistryError::IdentityMismatch => Self::permission_denied(text),
            RegistryError::Full => Self::resource_exhausted(text),
            RegistryError::Oversize => Self::invalid_argument(text),
            RegistryError::Unknown => Self::not_found(text),
        }
    }
}

//! Reasons to refuse a call. Each is the fault of the peer.

use tonic::Status;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("a later incarnation of this instance is registered, or this one has left")]
    Stale,
    #[error(
        "another process holds a live registration under this name; stop it, or wait until its lease has run out"
    )]
    Duplicate,
    #[error("an instance may register itself only: kind, name and world must match its certificate")]
    IdentityMismatch,
    #[error("the registration key must have 16 bytes")]
    Key,
    #[error(
        "too many instances; remove offline ones (`shardkeep gm remove`), or raise registry.max_instances"
    )]
    Full,
    #[error("too many or too long attributes")]
    Oversize,
    #[error("no such instance")]
    Unknown,
    #[error("the instance is alive; drain it first")]
    NotOffline,
}

impl RegistryError {
    /// Every label, so that each counter exists from the start.
    pub(crate) const LABELS: [&str; 8] =
        ["stale", "duplicate", "identity_mismatch", "key", "full", "oversize", "unknown", "not_offline"];

    pub fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::Key => "key",
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
            RegistryError::Duplicate => Self::already_exists(text),
            RegistryError::IdentityMismatch => Self::permission_denied(text),
            RegistryError::Full => Self::resource_exhausted(text),
            RegistryError::Oversize | RegistryError::Key => Self::invalid_argument(text),
            RegistryError::Unknown => Self::not_found(text),
        }
    }
}

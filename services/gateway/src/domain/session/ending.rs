//! Why a session ends.

use std::time::Duration;

use shardkeep_wire::payload::ErrorCode;

/// How long a client waits before it repeats a request that no backend could take.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The session is over. A connected client is told the code and the detail.
    Over { code: ErrorCode, detail: String },
    /// The client did not come back within `link_loss`.
    LinkLoss,
    /// Another gateway holds the session. Neither the client nor a backend gets a message.
    Moved,
}

impl Ending {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Over { code, detail: detail.into() }
    }

    /// Low-cardinality name for metrics and events.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Over { code, .. } => code.as_str_name(),
            Self::LinkLoss => "LINK_LOSS",
            Self::Moved => "MOVED",
        }
    }
}

//! Why a line is refused. The reason is always the speaker's, never a fault of this daemon.

use std::time::Duration;

use prost::Message;
use shardkeep_link::ServerMessage;
use shardkeep_wire::payload::{Error, ErrorCode};

/// How long it takes until chat knows a player who has just entered, or until a restarted world or chat knows all
/// players.
const PRESENCE_DELAY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the payload is not a line")]
    Malformed,
    #[error("chat has no such request")]
    UnknownRequest,
    #[error("a line must have 1 to 255 characters, and no control characters or bidirectional controls")]
    InvalidText,
    #[error("no such channel")]
    Channel,
    #[error("only who is in the world can talk")]
    NotInWorld,
    #[error("you are muted")]
    Muted { left: Duration },
    #[error("too many lines")]
    TooFast { wait: Duration },
    #[error("nobody of that name is in the world")]
    RecipientNotFound,
}

impl Refusal {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownRequest => "unknown",
            Self::InvalidText => "text",
            Self::Channel => "channel",
            Self::NotInWorld => "absent",
            Self::Muted { .. } => "muted",
            Self::TooFast { .. } => "too_fast",
            Self::RecipientNotFound => "nobody",
        }
    }

    pub(crate) fn reply(&self, request: u64) -> ServerMessage {
        let (code, wait) = match self {
            Self::Malformed => (ErrorCode::Malformed, Duration::ZERO),
            Self::UnknownRequest => (ErrorCode::OutOfPhase, Duration::ZERO),
            Self::InvalidText | Self::Channel => (ErrorCode::Refused, Duration::ZERO),
            Self::NotInWorld => (ErrorCode::Refused, PRESENCE_DELAY),
            Self::Muted { left } => (ErrorCode::Refused, *left),
            Self::TooFast { wait } => (ErrorCode::TooFast, *wait),
            Self::RecipientNotFound => (ErrorCode::NotFound, Duration::ZERO),
        };
        ServerMessage::refusal(request, Error::of(code, self.to_string()).retry_after(wait).encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaker_not_in_world_gets_retry_delay() {
        let wait = |refusal: Refusal| Error::decode(refusal.reply(1).payload).unwrap().retry_after_ms;
        assert_eq!((wait(Refusal::NotInWorld), wait(Refusal::InvalidText)), (500, 0));
    }
}

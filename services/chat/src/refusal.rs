//! Why a line is not said. Always the speaker's doing, or the speaker's bad luck; never an error of ours.

use std::time::Duration;

use prost::Message;
use shardkeep_cluster::link::ServerMessage;
use shardkeep_wire::payload::{Error, ErrorCode};

/// Who has just come, or whose world or chat has just started again, is known in so long.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the payload is not a line")]
    Malformed,
    #[error("chat has no such request")]
    Unknown,
    #[error("a line has 1 to 255 characters and no control characters")]
    Text,
    #[error("no such channel")]
    Channel,
    #[error("only who is in the world can talk")]
    Absent,
    #[error("you are muted")]
    Muted { left: Duration },
    #[error("too many lines")]
    TooFast { wait: Duration },
    #[error("nobody of that name is in the world")]
    Nobody,
}

impl Refusal {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Text => "text",
            Self::Channel => "channel",
            Self::Absent => "absent",
            Self::Muted { .. } => "muted",
            Self::TooFast { .. } => "too_fast",
            Self::Nobody => "nobody",
        }
    }

    pub(crate) fn reply(&self, request: u64) -> ServerMessage {
        let (code, wait) = match self {
            Self::Malformed => (ErrorCode::Malformed, Duration::ZERO),
            Self::Unknown => (ErrorCode::OutOfPhase, Duration::ZERO),
            Self::Text | Self::Channel => (ErrorCode::Refused, Duration::ZERO),
            Self::Absent => (ErrorCode::Refused, HEARD_WITHIN),
            Self::Muted { left } => (ErrorCode::Refused, *left),
            Self::TooFast { wait } => (ErrorCode::TooFast, *wait),
            Self::Nobody => (ErrorCode::NotFound, Duration::ZERO),
        };
        ServerMessage::refusal(request, Error::of(code, self.to_string()).retry_after(wait).encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_be_on_the_way_in_is_told_when_to_try_again() {
        let wait = |refusal: Refusal| Error::decode(refusal.reply(1).payload).unwrap().retry_after_ms;
        assert_eq!((wait(Refusal::Absent), wait(Refusal::Text)), (500, 0));
    }
}

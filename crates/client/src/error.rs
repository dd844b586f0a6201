//! Errors of the client: of the network, of the server, and refusals for the player to read.

use std::{fmt, io, net::SocketAddr, time::Duration};

use shardkeep_auth::{NameError, PasswordError, hybrid::ShareError, srp::SrpError};
use shardkeep_types::utc_minute;
use shardkeep_wire::{
    WireError,
    message::MessageError,
    movement::MovementError,
    payload::{Error as Payload, ErrorCode, PayloadError},
    record::RecordError,
    seal::SealError,
    session::SessionError,
};

use crate::dns::error::DnsError;

/// An error that the server answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    pub code: ErrorCode,
    pub detail: String,
    pub retry_after: Duration,
}

impl From<Payload> for Refusal {
    fn from(error: Payload) -> Self {
        let (code, retry_after) = (error.code(), Duration::from_millis(error.retry_after_ms.into()));
        Self { code, detail: error.detail, retry_after }
    }
}

/// Shows the end of a ban as a date, and the time to wait before the next attempt.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str_name())?;
        if !self.detail.is_empty() {
            f.write_str(": ")?;
            match self.banned_until() {
                Some((until, reason)) => write!(f, "until {until} UTC: {reason}")?,
                None => f.write_str(&self.detail)?,
            }
        }
        match self.retry_after.as_millis().div_ceil(1_000) {
            0 => Ok(()),
            seconds => write!(f, "; try again in {seconds} s"),
        }
    }
}

impl Refusal {
    /// When the ban of a BANNED answer ends, and why it is: its `detail` is `until <ms since 1970>: <reason>`
    /// (`docs/protocol.md`, section 16). `None` for one without end, and for other answers.
    fn banned_until(&self) -> Option<(String, &str)> {
        let (ms, reason) = self.detail.strip_prefix("until ")?.split_once(": ")?;
        let until = utc_minute(ms.parse().ok()?);
        (self.code == ErrorCode::Banned).then_some((until, reason))
    }

    /// Whether the same request may succeed after `retry_after`.
    pub fn is_temporary(&self) -> bool {
        matches!(self.code, ErrorCode::TooFast | ErrorCode::Throttled | ErrorCode::Unavailable)
    }
}

/// Why a session is over, for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnd {
    /// By the server: logged out, displaced, kicked, too slow …
    #[error("{0}")]
    Refused(Refusal),
    /// No gateway knows the session any more.
    #[error("the session is gone")]
    Gone,
    /// No gateway could be reached while the session may live.
    #[error("no gateway answered in time")]
    Unreachable,
    /// The server does not keep to the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
    /// Every handle was dropped.
    #[error("closed here")]
    Closed,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("dns: {0}")]
    Dns(#[from] DnsError),
    #[error("connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// A server closes the connection at a preface of another deployment.
    #[error(
        "{0} closed the connection at once: it belongs to another deployment than this client names, or is no server of this game"
    )]
    ClosedBeforeReply(SocketAddr),
    #[error("{0} did not come in time")]
    Timeout(&'static str),
    /// The server's bytes are not the protocol.
    #[error("server: {0}")]
    Wire(#[from] WireError),
    #[error("server sent opcode {opcode:#06x} while waiting for {waiting_for}")]
    Unexpected { opcode: u16, waiting_for: &'static str },
    /// The server does not know the password's verifier, or an attacker is between.
    #[error("the server could not prove itself: {0}")]
    UntrustedServer(&'static str),
    #[error(transparent)]
    Srp(#[from] SrpError),
    #[error("server: {0}")]
    KeyShare(#[from] ShareError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Refused(Refusal),
    #[error("session over: {0}")]
    Ended(SessionEnd),
    #[error("a message of {0} bytes does not fit into a record")]
    TooLarge(usize),
    #[error("no secure randomness from the system")]
    Random,
}

impl ClientError {
    /// The code the server refused with, if it did, as a reply or at the end of the session.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(refusal) | Self::Ended(SessionEnd::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    }

    /// Low-cardinality name for tables of failures.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Connect { .. } => "connect",
            Self::Io(_) | Self::ClosedBeforeReply(_) => "connection",
            Self::Timeout(_) => "timeout",
            Self::Wire(_) | Self::Unexpected { .. } | Self::TooLarge(_) => "protocol",
            Self::UntrustedServer(_) | Self::Srp(_) | Self::KeyShare(_) => "proof",
            Self::Name(_) | Self::Password(_) => "credentials",
            Self::Refused(refusal) => refusal.code.as_str_name(),
            Self::Ended(SessionEnd::Refused(refusal)) => refusal.code.as_str_name(),
            Self::Ended(_) => "ended",
            Self::Random => "random",
        }
    }
}

macro_rules! wire_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for ClientError {
            fn from(error: $error) -> Self {
                Self::Wire(error.into())
            }
        })*
    };
}

wire_errors!(RecordError, SealError, MessageError, PayloadError, MovementError, SessionError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_display_shows_code_detail_and_retry() {
        let refusal = Refusal::from(Payload::of(ErrorCode::Refused, "too far"));
        assert_eq!(refusal.to_string(), "REFUSED: too far");
        assert_eq!(ClientError::Refused(refusal).label(), "REFUSED");
        let shown = |error: Payload| Refusal::from(error).to_string();
        let banned = |detail| shown(Payload::of(ErrorCode::Banned, detail));
        assert_eq!(banned("until 1795732825157: too loud"), "BANNED: until 2026-11-26 22:40 UTC: too loud");
        assert_eq!(banned("for ever: cheats: many"), "BANNED: for ever: cheats: many");
        assert_eq!(banned("until then"), "BANNED: until then");
        let throttled = Payload::of(ErrorCode::Throttled, "too many attempts");
        let throttled = throttled.retry_after(Duration::from_millis(2_300));
        assert_eq!(shown(throttled), "THROTTLED: too many attempts; try again in 3 s");
        let over = SessionEnd::Refused(Payload::of(ErrorCode::Kicked, "").into());
        assert_eq!(ClientError::Ended(over).to_string(), "session over: KICKED");
    }
}

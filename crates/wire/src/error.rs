//! One error type for every fault in a peer's bytes: its metric label, its severity, and the error code for the
//! peer.

use crate::{
    message::MessageError,
    movement::MovementError,
    opcode::Violation,
    payload::{ErrorCode, PayloadError},
    preface::PrefaceError,
    range::RangeError,
    record::RecordError,
    seal::SealError,
    session::SessionError,
};

/// The consequence of a fault for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The message is dropped. Too many strikes close the connection.
    Strike,
    /// The connection closes, because the following bytes cannot be trusted.
    Fatal,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    Movement(#[from] MovementError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Range(#[from] RangeError),
}

impl WireError {
    /// Metric label with few distinct values.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Preface(error) => error.label(),
            Self::Record(error) => error.label(),
            Self::Seal(error) => error.label(),
            Self::Message(error) => error.label(),
            Self::Violation(error) => error.label(),
            Self::Payload(error) => error.label(),
            Self::Movement(error) => error.label(),
            Self::Session(error) => error.label(),
            Self::Range(_) => "range",
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            Self::Violation(_) | Self::Payload(_) | Self::Movement(_) | Self::Range(_) => Fault::Strike,
            _ => Fault::Fatal,
        }
    }

    /// Error code for the peer. `None` means that the peer gets no answer.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Preface(PrefaceError::Version(_)) => Some(ErrorCode::UnsupportedVersion),
            Self::Preface(_) | Self::Seal(_) | Self::Range(_) => None,
            Self::Record(RecordError::TooLarge { .. }) => Some(ErrorCode::TooLarge),
            Self::Violation(Violation::UnknownOpcode(_) | Violation::OutOfPhase { .. }) => {
                Some(ErrorCode::OutOfPhase)
            }
            Self::Violation(Violation::TooLarge { .. }) => Some(ErrorCode::TooLarge),
            Self::Violation(Violation::TooFast { .. }) => Some(ErrorCode::TooFast),
            Self::Session(SessionError::Overflow { .. }) => Some(ErrorCode::TooSlow),
            _ => Some(ErrorCode::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_record_is_fatal_and_unanswered() {
        let error = WireError::from(SealError::Forged);
        assert_eq!((error.fault(), error.code(), error.label()), (Fault::Fatal, None, "seal_forged"));
    }

    #[test]
    fn unknown_opcode_is_a_strike() {
        let error = WireError::from(Violation::UnknownOpcode(9));
        assert_eq!((error.fault(), error.code()), (Fault::Strike, Some(ErrorCode::OutOfPhase)));
    }
}

//! Why a login or its connection ends, whose fault that is, and what the client is told.

use std::{sync::Arc, time::Duration};

use shardkeep_auth::{hybrid::ShareError, srp::SrpError};
use shardkeep_connection::ConnectionError;
use shardkeep_store as store;
use shardkeep_update::UpdateError;
use shardkeep_wire::{
    WireError,
    payload::{Error as Answer, ErrorCode},
    proxy::ProxyError,
};

use crate::{central::CentralError, queue::Refusal};

pub(crate) use shardkeep_connection::Fault;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The client fetched patches.
    #[error(transparent)]
    Update(#[from] UpdateError),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("none of the offered {0} is served here")]
    NoneSupported(&'static str),
    #[error("client version {version} is older than {oldest}{}", if *update { "; service 3 of this port has the update" } else { "" })]
    Outdated { version: u32, oldest: u32, update: bool },
    #[error("wrong account or password")]
    Denied,
    #[error("banned: {reason}")]
    Banned { until_ms: u64, reason: String },
    /// Another login, or an operator, raised the generation while the connection was open.
    #[error("logged in elsewhere, or logged out by an operator")]
    Displaced,
    /// The password was right, and is not enough.
    #[error("a code of the second factor is needed")]
    CodeNeeded,
    #[error("that is not the code, or it was used already")]
    WrongCode,
    #[error("those are not two codes in a row, or one of them was used already")]
    WrongCodes,
    /// Of one code alone nothing is said for a while.
    #[error("too many wrong codes: give two in a row, the one that is shown now and behind it the next")]
    TwoCodesNeeded { wait: Duration },
    #[error("somebody is logged in to this account")]
    AlreadyLoggedIn { wait: Duration },
    /// It makes no sense as things are.
    #[error("{0}")]
    Refused(&'static str),
    #[error("too many attempts")]
    Throttled { limit: &'static str, wait: Duration },
    /// More than we can do at once.
    #[error("too busy ({0})")]
    Busy(&'static str),
    /// The exponentiations are taken, for so long.
    #[error("too many logins ({reason})")]
    PoolBusy { reason: &'static str, wait: Duration },
    /// The client was given a puzzle and is to come back with the answer.
    #[error("a puzzle first")]
    PuzzleRequired,
    /// A balancer that must speak PROXY protocol does not.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("no world {0}")]
    NoWorld(u32),
    #[error("{0}")]
    WorldUnavailable(&'static str),
    /// By operators, who say why.
    #[error("this world is closed: {0}")]
    WorldClosed(String),
    #[error("no gateway takes players now")]
    NoGateway,
    #[error(transparent)]
    Store(Arc<store::Error>),
    #[error(transparent)]
    Central(#[from] CentralError),
    #[error("internal: {0}")]
    Internal(&'static str),
    #[error("this server is leaving service")]
    Draining,
}

impl LoginError {
    /// For metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Connection(error) => error.label(),
            Self::Update(error) => error.label(),
            Self::Malformed(_) => "malformed",
            Self::NoneSupported(_) => "none_supported",
            Self::Outdated { .. } => "outdated",
            Self::Denied => "denied",
            Self::Banned { .. } => "banned",
            Self::Displaced => "displaced",
            Self::CodeNeeded => "code_needed",
            Self::WrongCode | Self::WrongCodes => "wrong_code",
            Self::TwoCodesNeeded { .. } => "two_codes_needed",
            Self::AlreadyLoggedIn { .. } => "already_logged_in",
            Self::Refused(_) => "refused",
            Self::Throttled { .. } => "throttled",
            Self::Busy(_) | Self::PoolBusy { .. } => "busy",
            Self::PuzzleRequired => "puzzle_required",
            Self::Proxy(error) => error.label(),
            Self::NoWorld(_) => "no_world",
            Self::WorldUnavailable(_) => "world_unavailable",
            Self::WorldClosed(_) => "world_closed",
            Self::NoGateway => "no_gateway",
            Self::Store(error) => error.label(),
            Self::Central(error) => error.label(),
            Self::Internal(_) => "internal",
            Self::Draining => "draining",
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match self {
            // Of a crowd nobody is guilty: it has a metric and an alert of its own.
            Self::Connection(error) => error.fault(),
            Self::Update(error) => error.fault(),
            Self::Displaced
            | Self::Draining
            | Self::PuzzleRequired
            | Self::PoolBusy { .. }
            | Self::WorldClosed(_) => Fault::NoFault,
            Self::Busy(_) | Self::Internal(_) => Fault::Us,
            Self::Proxy(_)
            | Self::Store(_)
            | Self::Central(_)
            | Self::NoGateway
            | Self::WorldUnavailable(_) => Fault::Peer,
            _ => Fault::Client,
        }
    }

    /// What the client is told; `None`: nothing.
    pub(crate) fn answer(&self) -> Option<Answer> {
        let with_retry = |code, wait| Some(Answer::of(code, self.to_string()).retry_after(wait));
        let without_retry = |code| Some(Answer::of(code, self.to_string()));
        match self {
            Self::Connection(error) => error.answer(),
            Self::Update(error) => error.answer(),
            Self::PuzzleRequired | Self::Proxy(_) => None,
            Self::Malformed(_) => without_retry(ErrorCode::Malformed),
            Self::NoneSupported(_) => without_retry(ErrorCode::Refused),
            Self::Outdated { .. } => without_retry(ErrorCode::UpdateRequired),
            Self::Denied => without_retry(ErrorCode::Denied),
            Self::Banned { until_ms, reason } => {
                Some(Answer::of(ErrorCode::Banned, ban_detail(*until_ms, reason)))
            }
            Self::Displaced => without_retry(ErrorCode::Displaced),
            Self::CodeNeeded => without_retry(ErrorCode::SecondFactor),
            Self::WrongCode | Self::WrongCodes => without_retry(ErrorCode::WrongCode),
            Self::TwoCodesNeeded { wait } => with_retry(ErrorCode::TwoCodes, *wait),
            Self::AlreadyLoggedIn { wait } => with_retry(ErrorCode::AlreadyLoggedIn, *wait),
            Self::Refused(_) => without_retry(ErrorCode::Refused),
            Self::Throttled { wait, .. } => with_retry(ErrorCode::Throttled, *wait),
            Self::PoolBusy { wait, .. } => with_retry(ErrorCode::Unavailable, *wait),
            Self::Busy(_) => with_retry(ErrorCode::Unavailable, Duration::from_millis(500)),
            Self::NoWorld(_) => without_retry(ErrorCode::NotFound),
            Self::WorldClosed(note) => Some(Answer::of(ErrorCode::Maintenance, note.as_str())),
            Self::WorldUnavailable(_) | Self::NoGateway => {
                with_retry(ErrorCode::Unavailable, Duration::from_secs(1))
            }
            Self::Central(CentralError::Unavailable(_)) => Some(
                Answer::of(ErrorCode::Unavailable, "the accounts of all regions are out of reach")
                    .retry_after(Duration::from_secs(2)),
            ),
            Self::Central(CentralError::NameTaken | CentralError::Conflict) => {
                without_retry(ErrorCode::Refused)
            }
            // What is wrong inside is nobody else's business.
            Self::Store(_) | Self::Central(_) | Self::Internal(_) => Some(
                Answer::of(ErrorCode::Unavailable, "temporarily impossible")
                    .retry_after(Duration::from_secs(1)),
            ),
            Self::Draining => without_retry(ErrorCode::Draining),
        }
    }
}

/// `detail` of a BANNED answer: until when, in milliseconds since the Unix epoch, and why.
pub(crate) fn ban_detail(until_ms: u64, reason: &str) -> String {
    if until_ms == store::accounts::FOREVER {
        format!("for ever: {reason}")
    } else {
        format!("until {until_ms}: {reason}")
    }
}

impl From<store::Error> for LoginError {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<std::io::Error> for LoginError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.into())
    }
}

impl From<WireError> for LoginError {
    fn from(error: WireError) -> Self {
        Self::Connection(error.into())
    }
}

impl From<Refusal> for LoginError {
    fn from(Refusal { reason, wait }: Refusal) -> Self {
        Self::PoolBusy { reason, wait }
    }
}

impl From<ShareError> for LoginError {
    fn from(_: ShareError) -> Self {
        Self::Malformed("that is no key share")
    }
}

impl From<SrpError> for LoginError {
    fn from(error: SrpError) -> Self {
        match error {
            SrpError::Denied => Self::Denied,
            SrpError::Malformed(what) => Self::Malformed(what),
            SrpError::Degenerate => Self::Malformed("degenerate public number"),
            SrpError::UnknownGroup => Self::NoneSupported("groups"),
            SrpError::Arithmetic(_) => Self::Internal("arithmetic"),
        }
    }
}

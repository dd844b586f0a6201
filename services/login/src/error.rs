//! Errors that end a login or a connection: the side at fault, the metric label, and the answer to the client.

use std::{sync::Arc, time::Duration};

use shardkeep_auth::{hybrid::ShareError, srp::SrpError};
use shardkeep_connection::{ConnectionError, Fault};
use shardkeep_store as store;
use shardkeep_update::UpdateError;
use shardkeep_wire::{
    WireError,
    payload::{Error as Answer, ErrorCode},
    proxy::ProxyError,
};

use crate::{accounts::causes::ban_detail, central::error::CentralError, door::queue::Refusal};

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
    /// The password was right.
    #[error("this account needs a code of its second factor")]
    CodeNeeded,
    #[error("the code is wrong, or was used before")]
    WrongCode,
    #[error("these are not two codes in a row, or one of them was used before")]
    WrongCodes,
    /// A single code is not checked for a while.
    #[error(
        "too many wrong codes: enter two codes in a row, the one that the app shows now and the next one"
    )]
    TwoCodesNeeded { wait: Duration },
    #[error("this account is logged in already")]
    AlreadyLoggedIn { wait: Duration },
    /// The request does not fit the current state.
    #[error("{0}")]
    Refused(&'static str),
    #[error("too many attempts")]
    Throttled { limit: &'static str, wait: Duration },
    /// A bound of this server is reached.
    #[error("too busy ({0})")]
    Busy(&'static str),
    /// The queue for exponentiations refused the job.
    #[error("too many logins ({reason})")]
    PoolBusy { reason: &'static str, wait: Duration },
    /// The client got a puzzle and must send its `Hello` with the answer.
    #[error("the client has to solve a puzzle")]
    PuzzleRequired,
    /// A trusted balancer did not send a PROXY protocol header.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("there is no world {0}; choose one from the list")]
    NoWorld(u32),
    #[error("{0}")]
    WorldUnavailable(&'static str),
    /// The reason of the operators.
    #[error("this world is closed: {0}")]
    WorldClosed(String),
    #[error("no gateway takes players now; try again")]
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
            // A busy pool has its own metric and alert.
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
            | Self::Central(CentralError::Unavailable(_))
            | Self::NoGateway
            | Self::WorldUnavailable(_) => Fault::Peer,
            _ => Fault::Client,
        }
    }

    /// The answer to the client; `None`: there is none.
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
                Answer::of(ErrorCode::Unavailable, "the account servers do not answer; try again")
                    .retry_after(Duration::from_secs(2)),
            ),
            Self::Central(CentralError::NameTaken | CentralError::Conflict) => {
                without_retry(ErrorCode::Refused)
            }
            // Internal causes are logged, and not told to clients.
            Self::Store(_) | Self::Central(_) | Self::Internal(_) => Some(
                Answer::of(ErrorCode::Unavailable, "this is impossible now; try again")
                    .retry_after(Duration::from_secs(1)),
            ),
            Self::Draining => without_retry(ErrorCode::Draining),
        }
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
            SrpError::Password(_) => Self::Malformed("the password has a forbidden character or length"),
            SrpError::Malformed(what) => Self::Malformed(what),
            SrpError::Degenerate => Self::Malformed("degenerate public number"),
            SrpError::UnknownGroup => Self::NoneSupported("groups"),
            SrpError::Arithmetic(_) => Self::Internal("arithmetic"),
        }
    }
}

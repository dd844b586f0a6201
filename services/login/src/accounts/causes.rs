//! Why sessions of an account end. The player reads these texts.

use shardkeep_store::accounts::{Ban, FOREVER, RevocationCause};
use shardkeep_wire::payload::ErrorCode;

pub(crate) fn displaced() -> RevocationCause {
    cause(ErrorCode::Displaced, "logged in elsewhere")
}

pub(crate) fn logged_out_everywhere() -> RevocationCause {
    cause(ErrorCode::Kicked, "logged out everywhere")
}

pub(crate) fn password_changed() -> RevocationCause {
    cause(ErrorCode::Kicked, "the password was changed")
}

/// Ends the sessions that logged in with the password alone.
pub(crate) fn factor_added() -> RevocationCause {
    cause(ErrorCode::Kicked, "a second factor was added")
}

pub(crate) fn banned(ban: &Ban) -> RevocationCause {
    cause(ErrorCode::Banned, ban_detail(ban.until_ms, &ban.reason))
}

/// `detail` of a BANNED answer: the end of the ban in milliseconds since the Unix epoch, and the reason.
pub(crate) fn ban_detail(until_ms: u64, reason: &str) -> String {
    if until_ms == FOREVER { format!("for ever: {reason}") } else { format!("until {until_ms}: {reason}") }
}

fn cause(code: ErrorCode, detail: impl Into<String>) -> RevocationCause {
    RevocationCause { code: code as u32, detail: detail.into() }
}

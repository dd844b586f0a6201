//! Gives an account hours of play. One that played freely is prepaid from then on.

use std::fmt;

use shardkeep_rpc::{billing, gm};
use shardkeep_types::DaemonKind;

use super::{Act, Desk, Outcome, name};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

/// Ten years: more is a mistake.
const MOST_HOURS: u64 = 10 * 365 * 24;

pub(crate) struct Credit {
    account: String,
    hours: u64,
    /// Makes repeating harmless; empty: the number in the audit, so that only this very command is not done twice.
    key: String,
}

impl TryFrom<gm::Credit> for Credit {
    type Error = CommandError;

    fn try_from(credit: gm::Credit) -> Result<Self, CommandError> {
        if !(1..=MOST_HOURS).contains(&credit.hours) {
            return Err(CommandError::Malformed(format!("hours: 1 to {MOST_HOURS}")));
        }
        if credit.key.len() > 100 {
            return Err(CommandError::Malformed("key: at most 100 characters".into()));
        }
        Ok(Self { account: name("account", &credit.account)?, hours: credit.hours, key: credit.key })
    }
}

impl fmt::Display for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credit account {} with {} hours", self.account, self.hours)
    }
}

impl Act for Credit {
    const NAME: &'static str = "credit";
    const RIGHT: Right = Right::Credit;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let account = desk.account(&self.account).await?;
        let of = desk.peers().any(DaemonKind::Billing)?;
        let key = match self.key.as_str() {
            "" => format!("gm-audit-{}", desk.audit),
            key => format!("gm-{}-{key}", desk.operator),
        };
        let request = billing::CreditRequest {
            account: account.id,
            hours: self.hours,
            key,
            reason: desk.reason.to_owned(),
        };
        let reply = desk.peers().billing_client(&of).credit(call(request)).await.map_err(refusal(&of))?;
        let left_ms = reply.into_inner().left_ms;
        let hours = left_ms as f64 / 3_600_000.0;
        let text = format!("{hours:.1} hours left: the account is prepaid, and its play ends with them");
        Ok(Outcome::counted(text, "left_ms", left_ms))
    }
}

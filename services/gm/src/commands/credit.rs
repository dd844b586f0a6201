//! Gives an account hours of play. One that played freely is prepaid from then on.

use std::fmt;

use shardkeep_rpc::{billing, gm};
use shardkeep_types::DaemonKind;

use super::{CommandContext, OperatorCommand, Outcome, name};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

/// Ten years: more is a mistake.
const MAX_HOURS: u64 = 10 * 365 * 24;

pub(crate) struct Credit {
    account: String,
    hours: u64,
    /// Makes repeating harmless; empty: the number in the audit, so that only this very command is not done twice.
    key: String,
}

impl TryFrom<gm::Credit> for Credit {
    type Error = CommandError;

    fn try_from(credit: gm::Credit) -> Result<Self, CommandError> {
        if !(1..=MAX_HOURS).contains(&credit.hours) {
            return Err(CommandError::Malformed(format!("hours: 1 to {MAX_HOURS}")));
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

impl OperatorCommand for Credit {
    const NAME: &'static str = "credit";
    const RIGHT: Right = Right::Credit;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let account = context.account(&self.account).await?;
        let daemon = context.peers().any(DaemonKind::Billing)?;
        let key = match self.key.as_str() {
            "" => format!("gm-audit-{}", context.audit),
            key => format!("gm-{}-{key}", context.operator),
        };
        let request = billing::CreditRequest {
            account: account.id,
            hours: self.hours,
            key,
            reason: context.reason.to_owned(),
        };
        let reply = context
            .peers()
            .billing_client(&daemon)
            .credit(with_deadline(request))
            .await
            .map_err(peer_error(&daemon))?;
        let left_ms = reply.into_inner().left_ms;
        let hours = left_ms as f64 / 3_600_000.0;
        let text = format!("{hours:.1} hours left: the account is prepaid, and its play ends with them");
        Ok(Outcome::counted(text, "left_ms", left_ms))
    }
}

//! Adds hours of play time to an account. The account is prepaid afterwards, even if it played without limit before.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{billing, gm};
use shardkeep_types::DaemonKind;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, peers::peer_error, role::Right};

/// Ten years. A larger number is probably a typing error.
const MAX_HOURS: u64 = 10 * 365 * 24;
const MAX_KEY_BYTES: usize = 100;
const HOUR_MS: f64 = 3_600_000.0;

pub(crate) struct Credit {
    account: String,
    hours: u64,
    /// A repeated command with the same key has no effect. If it is empty, the number of the audit entry is the key.
    key: String,
}

impl TryFrom<gm::Credit> for Credit {
    type Error = CommandError;

    fn try_from(credit: gm::Credit) -> Result<Self, CommandError> {
        if !(1..=MAX_HOURS).contains(&credit.hours) {
            return Err(CommandError::Malformed(format!("hours: {} is not 1 to {MAX_HOURS}", credit.hours)));
        }
        if credit.key.len() > MAX_KEY_BYTES {
            return Err(CommandError::Malformed(format!("key: longer than {MAX_KEY_BYTES} bytes")));
        }
        let account = checked_name("account", &credit.account)?;
        Ok(Self { account, hours: credit.hours, key: credit.key })
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
            "" => format!("gm-audit-{}", context.audit_entry()),
            key => format!("gm-{}-{key}", context.operator()),
        };
        let request = billing::CreditRequest {
            account: account.id,
            hours: self.hours,
            key,
            reason: context.reason().to_owned(),
        };
        let mut client = context.peers().billing_client(&daemon);
        let reply = client.credit(context.request(request)).await.map_err(peer_error(&daemon))?;
        let left_ms = reply.into_inner().left_ms;
        let hours = left_ms as f64 / HOUR_MS;
        let text = format!("account {} is prepaid and has {hours:.1} hours left", self.account);
        Ok(Outcome::new(text, json!({ "left_ms": left_ms })))
    }
}

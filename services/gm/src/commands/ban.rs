//! Bans an account, for some hours or permanently, and ends its sessions.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{accounts, gm};

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name, plural};
use crate::{error::CommandError, role::Right};

const HOUR_MS: u64 = 3_600_000;

pub(crate) struct Ban {
    account: String,
    /// 0: permanently.
    hours: u64,
}

impl TryFrom<gm::Ban> for Ban {
    type Error = CommandError;

    fn try_from(ban: gm::Ban) -> Result<Self, CommandError> {
        Ok(Self { account: checked_name("account", &ban.account)?, hours: ban.hours })
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hours {
            0 => write!(f, "ban account {} permanently", self.account),
            hours => write!(f, "ban account {} for {hours} hours", self.account),
        }
    }
}

impl OperatorCommand for Ban {
    const NAME: &'static str = "ban";
    const RIGHT: Right = Right::Ban;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let until_ms = match self.hours {
            0 => u64::MAX,
            hours => context.now_ms().saturating_add(hours.saturating_mul(HOUR_MS)),
        };
        let (name, reason) = (self.account.clone(), context.reason().to_owned());
        let request = accounts::BanRequest { name, until_ms, reason, everywhere: false };
        let ended = context
            .call_accounts(request, |mut client, request| async move { client.ban(request).await })
            .await?
            .sessions_ended;
        let text = format!("account {} is banned; {} ended", self.account, plural(ended, "session"));
        Ok(Outcome::new(text, json!({ "ended": ended })))
    }
}

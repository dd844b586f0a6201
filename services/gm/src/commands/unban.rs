//! Lifts the ban of an account.

use std::fmt;

use shardkeep_rpc::{accounts, gm, gm::target::Selector};

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, role::Right};

pub(crate) struct Unban {
    account: String,
}

impl TryFrom<gm::Target> for Unban {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Account(account)) => Ok(Self { account: checked_name("account", &account)? }),
            _ => Err(CommandError::Malformed("unban needs an account, not a character".into())),
        }
    }
}

impl fmt::Display for Unban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unban account {}", self.account)
    }
}

impl OperatorCommand for Unban {
    const NAME: &'static str = "unban";
    const RIGHT: Right = Right::Unban;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (name, reason) = (self.account.clone(), context.reason().to_owned());
        let request = accounts::UnbanRequest { name, reason, everywhere: false };
        context
            .call_accounts(request, |mut client, request| async move { client.unban(request).await })
            .await?;
        Ok(Outcome::text_only(format!("account {} may log in again", self.account)))
    }
}

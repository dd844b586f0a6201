//! Logs an account out everywhere: its sessions end and its tickets become invalid. The account may log in again.

use std::fmt;

use shardkeep_rpc::{accounts, gm, gm::target::Selector};

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, role::Right};

pub(crate) struct LogOut {
    account: String,
}

impl TryFrom<gm::Target> for LogOut {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Account(account)) => Ok(Self { account: checked_name("account", &account)? }),
            _ => Err(CommandError::Malformed("log-out needs an account, not a character".into())),
        }
    }
}

impl fmt::Display for LogOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log account {} out everywhere", self.account)
    }
}

impl OperatorCommand for LogOut {
    const NAME: &'static str = "log-out";
    const RIGHT: Right = Right::Kick;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let request = accounts::LogOutRequest { name: self.account.clone() };
        Ok(Outcome::sessions_ended(
            context
                .call_accounts(request, |mut client, request| async move {
                    client.log_out_everywhere(request).await
                })
                .await?
                .sessions_ended,
        ))
    }
}

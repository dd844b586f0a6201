//! Lifts the ban of an account.

use std::fmt;

use shardkeep_rpc::{accounts, gm, gm::target::Selector};
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

pub(crate) struct Unban {
    account: String,
}

impl TryFrom<gm::Target> for Unban {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Account(account)) => Ok(Self { account: name("account", &account)? }),
            _ => Err(CommandError::Malformed("bans are of accounts: say which".into())),
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
        let (mut client, login) = context.peers().accounts()?;
        let (name, reason) = (self.account.clone(), context.reason.to_owned());
        let request = accounts::UnbanRequest { name, reason, everywhere: false };
        client.unban(with_deadline(request)).await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => peer_error(&login)(status),
        })?;
        Ok(Outcome::done("may log in again"))
    }
}

//! Logs an account out everywhere: its sessions end, its tickets are void, and it may log in again.

use std::fmt;

use shardkeep_rpc::{accounts, gm, gm::target::Selector};
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name, plural};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
};

pub(crate) struct LogOut {
    account: String,
}

impl TryFrom<gm::Target> for LogOut {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Account(account)) => Ok(Self { account: name("account", &account)? }),
            _ => Err(CommandError::Malformed("accounts are logged out: say which".into())),
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
        let (client, login) = context.peers().accounts()?;
        let request = accounts::LogOutRequest { name: self.account.clone() };
        let done = retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.log_out_everywhere(request).await
        });
        let reply = done.await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => peer_error(&login)(status),
        })?;
        let ended = reply.sessions_ended;
        Ok(Outcome::counted(format!("{} ended", plural(ended, "session")), "ended", ended))
    }
}

//! Lifts the ban of an account.

use std::fmt;

use shardkeep_rpc::{accounts, gm, gm::target::Who};
use tonic::Code;

use super::{Act, Desk, Outcome, name};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

pub(crate) struct Unban {
    account: String,
}

impl TryFrom<gm::Target> for Unban {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.who {
            Some(Who::Account(account)) => Ok(Self { account: name("account", &account)? }),
            _ => Err(CommandError::Malformed("bans are of accounts: say which".into())),
        }
    }
}

impl fmt::Display for Unban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unban account {}", self.account)
    }
}

impl Act for Unban {
    const NAME: &'static str = "unban";
    const RIGHT: Right = Right::Unban;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let (mut client, login) = desk.peers().accounts()?;
        let request = accounts::UnbanRequest { name: self.account.clone(), everywhere: false };
        client.unban(call(request)).await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => refusal(&login)(status),
        })?;
        Ok(Outcome::done("may log in again"))
    }
}

//! Bans an account, for some hours or for ever; its sessions end.

use std::fmt;

use shardkeep_rpc::{accounts, gm};
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name, plural};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
};

const HOUR_MS: u64 = 3_600_000;

pub(crate) struct Ban {
    account: String,
    /// 0: for ever.
    hours: u64,
}

impl TryFrom<gm::Ban> for Ban {
    type Error = CommandError;

    fn try_from(ban: gm::Ban) -> Result<Self, CommandError> {
        Ok(Self { account: name("account", &ban.account)?, hours: ban.hours })
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hours {
            0 => write!(f, "ban account {} for ever", self.account),
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
            hours => context.now_ms.saturating_add(hours.saturating_mul(HOUR_MS)),
        };
        let (client, login) = context.peers().accounts()?;
        let (name, reason) = (self.account.clone(), context.reason.to_owned());
        let request = accounts::BanRequest { name, until_ms, reason, everywhere: false };
        let banned = retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.ban(request).await
        });
        let reply = banned.await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => peer_error(&login)(status),
        })?;
        let ended = reply.sessions_ended;
        Ok(Outcome::counted(format!("banned; {} ended", plural(ended, "session")), "ended", ended))
    }
}

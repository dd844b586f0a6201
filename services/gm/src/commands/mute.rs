//! Keeps a character from chatting for some minutes; 0 lets it speak again.

use std::fmt;

use shardkeep_rpc::{chat, gm};
use shardkeep_types::DaemonKind;

use super::{CommandContext, OperatorCommand, Outcome, name};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
};

const MINUTE_MS: u64 = 60_000;

pub(crate) struct Mute {
    character: String,
    minutes: u64,
}

impl TryFrom<gm::Mute> for Mute {
    type Error = CommandError;

    fn try_from(mute: gm::Mute) -> Result<Self, CommandError> {
        Ok(Self { character: name("character", &mute.character)?, minutes: mute.minutes })
    }
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minutes {
            0 => write!(f, "unmute {}", self.character),
            minutes => write!(f, "mute {} for {minutes} minutes", self.character),
        }
    }
}

impl OperatorCommand for Mute {
    const NAME: &'static str = "mute";
    const RIGHT: Right = Right::Mute;

    /// Told to every replica: one that is cut off from the others would not hear of it, and telling one twice changes
    /// nothing.
    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let replicas = context.peers().alive(DaemonKind::Chat);
        if replicas.is_empty() {
            return Err(CommandError::NoneRunning(DaemonKind::Chat));
        }
        let until_ms = match self.minutes {
            0 => 0,
            minutes => context.now_ms.saturating_add(minutes.saturating_mul(MINUTE_MS)),
        };
        for daemon in replicas {
            let (character, reason) = (self.character.clone(), context.reason.to_owned());
            let request = chat::MuteRequest { character, until_ms, reason };
            let client = context.peers().chat_client(&daemon);
            let muted = retry_while_unavailable(&client, &request, |mut client, request| async move {
                client.mute(request).await
            });
            muted.await.map_err(peer_error(&daemon))?;
        }
        Ok(Outcome::done(if self.minutes == 0 { "may speak again" } else { "muted" }))
    }
}

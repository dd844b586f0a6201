//! Mutes a character in chat for some minutes, or unmutes it.

use std::fmt;

use shardkeep_rpc::{chat, gm};
use shardkeep_store::mutes;
use shardkeep_types::DaemonKind;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, peers::peer_error, role::Right};

const MINUTE_MS: u64 = 60_000;
/// Chat daemons refuse longer names.
const MAX_NAME_BYTES: usize = 64;

pub(crate) struct Mute {
    character: String,
    /// 0: unmute.
    minutes: u64,
}

impl TryFrom<gm::Mute> for Mute {
    type Error = CommandError;

    fn try_from(mute: gm::Mute) -> Result<Self, CommandError> {
        let character = checked_name("character", &mute.character)?;
        if character.len() > MAX_NAME_BYTES {
            let message = format!("character: a name has at most {MAX_NAME_BYTES} bytes");
            return Err(CommandError::Malformed(message));
        }
        Ok(Self { character, minutes: mute.minutes })
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

    /// Stores the mute, then calls every chat replica, so that a replica without a connection to the others knows it
    /// too. A chat daemon that starts later gets the stored mutes from `mutes.rs`.
    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let issued_ms = context.now_ms();
        let until_ms = match self.minutes {
            0 => 0,
            minutes => issued_ms.saturating_add(minutes.saturating_mul(MINUTE_MS)),
        };
        let mute = mutes::Mute { name: self.character.clone(), until_ms, issued_ms };
        mutes::put(context.database(), &mute).await?;
        for daemon in context.peers().alive(DaemonKind::Chat) {
            let (character, reason) = (mute.name.clone(), context.reason().to_owned());
            let request = chat::MuteRequest { character, until_ms, reason, issued_ms, restored: false };
            let client = context.peers().chat_client(&daemon);
            let call = context
                .call(&client, &request, |mut client, request| async move { client.mute(request).await });
            call.await.map_err(peer_error(&daemon))?;
        }
        let name = &self.character;
        Ok(Outcome::text_only(match self.minutes {
            0 => format!("{name} may chat again"),
            minutes => format!("{name} is muted for {minutes} minutes"),
        }))
    }
}

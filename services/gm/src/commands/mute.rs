//! Keeps a character from chatting for some minutes; 0 lets it speak again.

use std::fmt;

use shardkeep_rpc::{chat, gm};
use shardkeep_types::DaemonKind;

use super::{Act, Desk, Outcome, name};
use crate::{
    error::CommandError,
    peers::{patiently, refusal},
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

impl Act for Mute {
    const NAME: &'static str = "mute";
    const RIGHT: Right = Right::Mute;

    /// Told to every replica: one that is cut off from the others would not hear of it, and telling one twice changes
    /// nothing.
    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let replicas = desk.peers().alive(DaemonKind::Chat);
        if replicas.is_empty() {
            return Err(CommandError::Absent(DaemonKind::Chat));
        }
        let until_ms = match self.minutes {
            0 => 0,
            minutes => desk.now_ms.saturating_add(minutes.saturating_mul(MINUTE_MS)),
        };
        for of in replicas {
            let (character, reason) = (self.character.clone(), desk.reason.to_owned());
            let request = chat::MuteRequest { character, until_ms, reason };
            let client = desk.peers().chat_client(&of);
            let muted =
                patiently(&client, &request, |mut client, request| async move { client.mute(request).await });
            muted.await.map_err(refusal(&of))?;
        }
        Ok(Outcome::done(if self.minutes == 0 { "may speak again" } else { "muted" }))
    }
}

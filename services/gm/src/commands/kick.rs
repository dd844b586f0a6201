//! Ends a character's session, or every session of an account.

use std::fmt;

use shardkeep_rpc::{gateway, gm, gm::target::Selector, world};
use shardkeep_types::DaemonKind;
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name, plural};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
};

/// KICKED of the client protocol's error codes.
const KICKED: u32 = 10;

pub(crate) enum Kick {
    Character(String),
    Account(String),
}

impl TryFrom<gm::Target> for Kick {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Character(character)) => name("character", &character).map(Self::Character),
            Some(Selector::Account(account)) => name("account", &account).map(Self::Account),
            None => Err(CommandError::Malformed("whom to kick: a character or an account".into())),
        }
    }
}

impl fmt::Display for Kick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(character) => write!(f, "kick character {character}"),
            Self::Account(account) => write!(f, "kick account {account}"),
        }
    }
}

impl OperatorCommand for Kick {
    const NAME: &'static str = "kick";
    const RIGHT: Right = Right::Kick;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let ended = match self {
            Self::Character(character) => kick_character(context, character).await?,
            Self::Account(account) => kick_account(context, account).await?,
        };
        if ended == 0 {
            return Err(CommandError::NotFound(format!("nobody is online: {self}")));
        }
        Ok(Outcome::counted(format!("{} ended", plural(ended, "session")), "ended", ended))
    }
}

/// Names are unique per world, so the first world that knows the character is the one.
async fn kick_character(context: &CommandContext<'_>, character: &str) -> Result<u32, CommandError> {
    let worlds = context.peers().worlds();
    if worlds.is_empty() {
        return Err(CommandError::NoneRunning(DaemonKind::World));
    }
    let mut ended = 0;
    for daemon in worlds {
        let selector = Some(world::kick_request::Selector::Character(character.to_owned()));
        let request = world::KickRequest { selector, reason: context.reason.to_owned() };
        let client = context.peers().world_client(&daemon);
        match retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.kick(request).await
        })
        .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(peer_error(&daemon)(status)),
        }
    }
    Ok(ended)
}

/// At the gateways, so that those who wait in a queue are reached too.
async fn kick_account(context: &CommandContext<'_>, account: &str) -> Result<u32, CommandError> {
    let account = context.account(account).await?;
    let gateways = context.peers().alive(DaemonKind::Gateway);
    if gateways.is_empty() {
        return Err(CommandError::NoneRunning(DaemonKind::Gateway));
    }
    let mut ended = 0;
    for daemon in gateways {
        let selector = Some(gateway::kick_request::Selector::Account(account.id));
        let request = gateway::KickRequest { selector, code: KICKED, detail: context.reason.to_owned() };
        let client = context.peers().gateway_client(&daemon);
        match retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.kick(request).await
        })
        .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(peer_error(&daemon)(status)),
        }
    }
    Ok(ended)
}

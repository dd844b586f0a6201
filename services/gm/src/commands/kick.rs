//! Ends the session of a character, or all sessions of an account.

use std::fmt;

use shardkeep_rpc::{gateway, gm, gm::target::Selector, world};
use shardkeep_types::DaemonKind;
use tonic::Code;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, peers::peer_error, role::Right};

/// The error code KICKED of the client protocol.
const KICKED: u32 = 10;

pub(crate) enum Kick {
    Character(String),
    Account(String),
}

impl TryFrom<gm::Target> for Kick {
    type Error = CommandError;

    fn try_from(target: gm::Target) -> Result<Self, CommandError> {
        match target.selector {
            Some(Selector::Character(name)) => checked_name("character", &name).map(Self::Character),
            Some(Selector::Account(name)) => checked_name("account", &name).map(Self::Account),
            None => Err(CommandError::Malformed("kick needs a character or an account".into())),
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
        let (ended, kind, name) = match self {
            Self::Character(name) => (kick_character(context, name).await?, "character", name),
            Self::Account(name) => (kick_account(context, name).await?, "account", name),
        };
        if ended == 0 {
            return Err(CommandError::NotFound(format!("{kind} {name} is not online")));
        }
        Ok(Outcome::sessions_ended(ended))
    }
}

/// Asks every world, because a name is unique only within a world.
async fn kick_character(context: &CommandContext<'_>, character: &str) -> Result<u32, CommandError> {
    let worlds = context.peers().worlds();
    if worlds.is_empty() {
        return Err(CommandError::NoneRunning(DaemonKind::World));
    }
    let mut ended = 0;
    for daemon in worlds {
        let selector = Some(world::kick_request::Selector::Character(character.to_owned()));
        let request = world::KickRequest { selector, reason: context.reason().to_owned() };
        let client = context.peers().world_client(&daemon);
        match context
            .call(&client, &request, |mut client, request| async move { client.kick(request).await })
            .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(peer_error(&daemon)(status)),
        }
    }
    Ok(ended)
}

/// Asks the gateways and not the worlds, so that sessions in an entry queue end too.
async fn kick_account(context: &CommandContext<'_>, account: &str) -> Result<u32, CommandError> {
    let account = context.account(account).await?;
    let mut ended = 0;
    for daemon in context.peers().alive_or_error(DaemonKind::Gateway)? {
        let selector = Some(gateway::kick_request::Selector::Account(account.id));
        let request = gateway::KickRequest { selector, code: KICKED, detail: context.reason().to_owned() };
        let client = context.peers().gateway_client(&daemon);
        match context
            .call(&client, &request, |mut client, request| async move { client.kick(request).await })
            .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(peer_error(&daemon)(status)),
        }
    }
    Ok(ended)
}

//! Ends a character's session, or every session of an account.

use std::fmt;

use shardkeep_rpc::{gateway, gm, gm::target::Who, world};
use shardkeep_types::DaemonKind;
use tonic::Code;

use super::{Act, Desk, Outcome, name, plural};
use crate::{
    error::CommandError,
    peers::{patiently, refusal},
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
        match target.who {
            Some(Who::Character(character)) => name("character", &character).map(Self::Character),
            Some(Who::Account(account)) => name("account", &account).map(Self::Account),
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

impl Act for Kick {
    const NAME: &'static str = "kick";
    const RIGHT: Right = Right::Kick;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let ended = match self {
            Self::Character(character) => kick_character(desk, character).await?,
            Self::Account(account) => kick_account(desk, account).await?,
        };
        if ended == 0 {
            return Err(CommandError::NotFound(format!("nobody is online: {self}")));
        }
        Ok(Outcome::counted(format!("{} ended", plural(ended, "session")), "ended", ended))
    }
}

/// Names are unique per world, so the first world that knows the character is the one.
async fn kick_character(desk: &Desk<'_>, character: &str) -> Result<u32, CommandError> {
    let worlds = desk.peers().worlds();
    if worlds.is_empty() {
        return Err(CommandError::Absent(DaemonKind::World));
    }
    let mut ended = 0;
    for of in worlds {
        let who = Some(world::kick_request::Who::Character(character.to_owned()));
        let request = world::KickRequest { who, reason: desk.reason.to_owned() };
        let client = desk.peers().world_client(&of);
        match patiently(&client, &request, |mut client, request| async move { client.kick(request).await })
            .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(refusal(&of)(status)),
        }
    }
    Ok(ended)
}

/// At the gateways, so that those who wait in a queue are reached too.
async fn kick_account(desk: &Desk<'_>, account: &str) -> Result<u32, CommandError> {
    let account = desk.account(account).await?;
    let gateways = desk.peers().alive(DaemonKind::Gateway);
    if gateways.is_empty() {
        return Err(CommandError::Absent(DaemonKind::Gateway));
    }
    let mut ended = 0;
    for of in gateways {
        let who = Some(gateway::kick_request::Who::Account(account.id));
        let request = gateway::KickRequest { who, code: KICKED, detail: desk.reason.to_owned() };
        let client = desk.peers().gateway_client(&of);
        match patiently(&client, &request, |mut client, request| async move { client.kick(request).await })
            .await
        {
            Ok(reply) => ended += reply.ended,
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(refusal(&of)(status)),
        }
    }
    Ok(ended)
}

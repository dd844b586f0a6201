//! A line to everybody in a world, or in all of them.

use std::fmt;

use shardkeep_rpc::{gateway, gm, world};
use shardkeep_types::{DaemonKind, WorldId};

use super::{CommandContext, OperatorCommand, Outcome, plural};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

const MAX_TEXT_CHARS: usize = 500;

pub(crate) struct Broadcast {
    /// 0: everybody, also who is not in a world yet.
    world: WorldId,
    text: String,
}

impl TryFrom<gm::Broadcast> for Broadcast {
    type Error = CommandError;

    fn try_from(broadcast: gm::Broadcast) -> Result<Self, CommandError> {
        let text = broadcast.text.trim();
        if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS || text.chars().any(char::is_control) {
            return Err(CommandError::Malformed(format!(
                "the line to broadcast: 1 to {MAX_TEXT_CHARS} characters"
            )));
        }
        Ok(Self { world: WorldId(broadcast.world), text: text.to_owned() })
    }
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.world.0 {
            0 => write!(f, "broadcast to everybody: {}", self.text),
            world => write!(f, "broadcast to world {world}: {}", self.text),
        }
    }
}

impl OperatorCommand for Broadcast {
    const NAME: &'static str = "broadcast";
    const RIGHT: Right = Right::Broadcast;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let reached = match self.world.0 {
            0 => self.to_all_gateways(context).await?,
            _ => self.to_world(context).await?,
        };
        Ok(Outcome::counted(format!("reached {}", plural(reached, "session")), "reached", reached))
    }
}

impl Broadcast {
    async fn to_world(&self, context: &CommandContext<'_>) -> Result<u32, CommandError> {
        let daemon = context.peers().world(self.world)?;
        let request = with_deadline(world::AnnounceRequest { text: self.text.clone() });
        let reply =
            context.peers().world_client(&daemon).announce(request).await.map_err(peer_error(&daemon))?;
        Ok(reply.into_inner().reached)
    }

    async fn to_all_gateways(&self, context: &CommandContext<'_>) -> Result<u32, CommandError> {
        let gateways = context.peers().alive(DaemonKind::Gateway);
        if gateways.is_empty() {
            return Err(CommandError::NoneRunning(DaemonKind::Gateway));
        }
        let mut reached = 0;
        for daemon in gateways {
            let to = Some(gateway::announce_request::To::Everyone(true));
            let request = with_deadline(gateway::AnnounceRequest { text: self.text.clone(), to });
            let reply = context
                .peers()
                .gateway_client(&daemon)
                .announce(request)
                .await
                .map_err(peer_error(&daemon))?;
            reached += reply.into_inner().reached;
        }
        Ok(reached)
    }
}

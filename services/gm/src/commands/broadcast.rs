//! Shows a line of text to all players of a world, or to all players of the cluster.

use std::fmt;

use serde_json::json;
use shardkeep_names::is_plain_line;
use shardkeep_rpc::{gateway, gm, world};
use shardkeep_types::{DaemonKind, WorldId};

use super::command::{CommandContext, OperatorCommand, Outcome, plural};
use crate::{error::CommandError, peers::peer_error, role::Right};

const MAX_TEXT_CHARS: usize = 500;

pub(crate) struct Broadcast {
    /// 0: all sessions, including those that are in no world yet.
    world: WorldId,
    text: String,
}

impl TryFrom<gm::Broadcast> for Broadcast {
    type Error = CommandError;

    fn try_from(broadcast: gm::Broadcast) -> Result<Self, CommandError> {
        let text = broadcast.text.trim();
        if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS || !is_plain_line(text) {
            return Err(CommandError::Malformed(format!(
                "text: must have 1 to {MAX_TEXT_CHARS} characters, in one line and without bidirectional controls"
            )));
        }
        Ok(Self { world: WorldId(broadcast.world), text: text.to_owned() })
    }
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.world.0 {
            0 => write!(f, "broadcast to all worlds: {}", self.text),
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
        Ok(Outcome::new(format!("sent to {}", plural(reached, "session")), json!({ "reached": reached })))
    }
}

impl Broadcast {
    async fn to_world(&self, context: &CommandContext<'_>) -> Result<u32, CommandError> {
        let daemon = context.peers().world(self.world)?;
        let request = context.request(world::AnnounceRequest { text: self.text.clone() });
        let mut client = context.peers().world_client(&daemon);
        Ok(client.announce(request).await.map_err(peer_error(&daemon))?.into_inner().reached)
    }

    async fn to_all_gateways(&self, context: &CommandContext<'_>) -> Result<u32, CommandError> {
        let mut reached = 0;
        for daemon in context.peers().alive_or_error(DaemonKind::Gateway)? {
            let to = Some(gateway::announce_request::To::Everyone(true));
            let request = context.request(gateway::AnnounceRequest { text: self.text.clone(), to });
            let mut client = context.peers().gateway_client(&daemon);
            reached += client.announce(request).await.map_err(peer_error(&daemon))?.into_inner().reached;
        }
        Ok(reached)
    }
}

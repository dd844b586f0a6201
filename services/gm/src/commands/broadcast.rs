//! A line to everybody in a world, or in all of them.

use std::fmt;

use shardkeep_rpc::{gateway, gm, world};
use shardkeep_types::{DaemonKind, WorldId};

use super::{Act, Desk, Outcome, plural};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

const LONGEST: usize = 500;

pub(crate) struct Broadcast {
    /// 0: everybody, also who is not in a world yet.
    world: WorldId,
    text: String,
}

impl TryFrom<gm::Broadcast> for Broadcast {
    type Error = CommandError;

    fn try_from(broadcast: gm::Broadcast) -> Result<Self, CommandError> {
        let text = broadcast.text.trim();
        if text.is_empty() || text.chars().count() > LONGEST || text.chars().any(char::is_control) {
            return Err(CommandError::Malformed(format!("the line to broadcast: 1 to {LONGEST} characters")));
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

impl Act for Broadcast {
    const NAME: &'static str = "broadcast";
    const RIGHT: Right = Right::Broadcast;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let reached = match self.world.0 {
            0 => self.to_everybody(desk).await?,
            _ => self.to_world(desk).await?,
        };
        Ok(Outcome::counted(format!("reached {}", plural(reached, "session")), "reached", reached))
    }
}

impl Broadcast {
    async fn to_world(&self, desk: &Desk<'_>) -> Result<u32, CommandError> {
        let of = desk.peers().world(self.world)?;
        let request = call(world::AnnounceRequest { text: self.text.clone() });
        let reply = desk.peers().world_client(&of).announce(request).await.map_err(refusal(&of))?;
        Ok(reply.into_inner().reached)
    }

    async fn to_everybody(&self, desk: &Desk<'_>) -> Result<u32, CommandError> {
        let gateways = desk.peers().alive(DaemonKind::Gateway);
        if gateways.is_empty() {
            return Err(CommandError::Absent(DaemonKind::Gateway));
        }
        let mut reached = 0;
        for of in gateways {
            let to = Some(gateway::announce_request::To::Everyone(true));
            let request = call(gateway::AnnounceRequest { text: self.text.clone(), to });
            let reply = desk.peers().gateway_client(&of).announce(request).await.map_err(refusal(&of))?;
            reached += reply.into_inner().reached;
        }
        Ok(reached)
    }
}

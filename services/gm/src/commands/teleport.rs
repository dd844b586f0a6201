//! Moves an avatar to another position.

use std::fmt;

use shardkeep_rpc::{gm, world};
use shardkeep_types::{Position, SpaceId, WorldId};
use tonic::Code;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name};
use crate::{error::CommandError, peers::peer_error, role::Right};

pub(crate) struct Teleport {
    world: WorldId,
    character: String,
    to: Position,
}

impl TryFrom<gm::Teleport> for Teleport {
    type Error = CommandError;

    fn try_from(teleport: gm::Teleport) -> Result<Self, CommandError> {
        if teleport.x_mm < 0 || teleport.y_mm < 0 {
            return Err(CommandError::Malformed("x, y: coordinates must not be negative".into()));
        }
        let to = Position::flat(SpaceId(teleport.space.max(1)), teleport.x_mm, teleport.y_mm);
        let character = checked_name("character", &teleport.character)?;
        Ok(Self { world: WorldId(teleport.world), character, to })
    }
}

impl fmt::Display for Teleport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metres = |mm: i32| f64::from(mm) / 1000.0;
        let (x, y) = (metres(self.to.x_mm), metres(self.to.y_mm));
        write!(f, "teleport {} to ({x:.1} m, {y:.1} m) in space {}", self.character, self.to.space)
    }
}

impl OperatorCommand for Teleport {
    const NAME: &'static str = "teleport";
    const RIGHT: Right = Right::Teleport;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let daemon = context.peers().world(self.world)?;
        let request = world::TeleportRequest { character: self.character.clone(), to: Some(self.to.into()) };
        let client = context.peers().world_client(&daemon);
        context
            .call(&client, &request, |mut client, request| async move { client.teleport(request).await })
            .await
            .map_err(|status| match status.code() {
                Code::NotFound => CommandError::NotFound(format!("{} is not online", self.character)),
                _ => peer_error(&daemon)(status),
            })?;
        Ok(Outcome::text_only(format!("{} was moved", self.character)))
    }
}

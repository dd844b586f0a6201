//! Puts an avatar somewhere else.

use std::fmt;

use shardkeep_rpc::{gm, world};
use shardkeep_types::{MapId, Position, WorldId};
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
};

pub(crate) struct Teleport {
    world: WorldId,
    character: String,
    to: Position,
}

impl TryFrom<gm::Teleport> for Teleport {
    type Error = CommandError;

    fn try_from(teleport: gm::Teleport) -> Result<Self, CommandError> {
        let map = u16::try_from(teleport.map.max(1)).map(MapId);
        let map =
            map.map_err(|_| CommandError::Malformed(format!("map {}: there is no such map", teleport.map)))?;
        if teleport.x_mm < 0 || teleport.y_mm < 0 {
            return Err(CommandError::Malformed("a place has no negative coordinates".into()));
        }
        let to = Position::new(map, teleport.x_mm, teleport.y_mm);
        Ok(Self { world: WorldId(teleport.world), character: name("character", &teleport.character)?, to })
    }
}

impl fmt::Display for Teleport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metres = |mm: i32| f64::from(mm) / 1000.0;
        let (x, y) = (metres(self.to.x_mm), metres(self.to.y_mm));
        write!(f, "teleport {} to ({x:.1} m, {y:.1} m) of map {}", self.character, self.to.map.0)
    }
}

impl OperatorCommand for Teleport {
    const NAME: &'static str = "teleport";
    const RIGHT: Right = Right::Teleport;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let daemon = context.peers().world(self.world)?;
        let request = world::TeleportRequest { character: self.character.clone(), to: Some(self.to.into()) };
        let client = context.peers().world_client(&daemon);
        let teleport = retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.teleport(request).await
        });
        teleport.await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(format!("{} is not online", self.character)),
            _ => peer_error(&daemon)(status),
        })?;
        Ok(Outcome::done("teleported"))
    }
}

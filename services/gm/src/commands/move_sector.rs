//! Moves a sector to a zone and pins it there, or removes the pin.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{
    gm,
    world::{self, change_layout_request::Change},
};
use shardkeep_types::{SectorId, WorldId};

use super::{
    command::{CommandContext, OperatorCommand, Outcome, checked_name},
    layout::change_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct MoveSector {
    world: WorldId,
    sector: SectorId,
    /// `None` removes the pin.
    zone: Option<String>,
}

impl TryFrom<gm::MoveSector> for MoveSector {
    type Error = CommandError;

    fn try_from(command: gm::MoveSector) -> Result<Self, CommandError> {
        let gm::MoveSector { world, sector, zone } = command;
        let zone = if zone.is_empty() { None } else { Some(checked_name("zone", &zone)?) };
        Ok(Self { world: WorldId(world), sector: SectorId(sector), zone })
    }
}

impl fmt::Display for MoveSector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "move sector {} to {zone}", self.sector),
            None => write!(f, "unpin sector {}", self.sector),
        }
    }
}

impl OperatorCommand for MoveSector {
    const NAME: &'static str = "move-sector";
    const RIGHT: Right = Right::ChangeLayout;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let zone = self.zone.clone().unwrap_or_default();
        let change = Change::Move(world::MoveSector { sector: self.sector.0, zone });
        let done = change_layout(context, self.world, change).await?;
        let text = match &self.zone {
            Some(zone) => format!("sector {} is pinned to {zone} and moves there", self.sector),
            None => format!("sector {} is not pinned to a zone", self.sector),
        };
        Ok(Outcome::new(text, json!({ "revision": done.revision })))
    }
}

//! Merges two adjacent sectors of one owner.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{
    gm,
    world::{self, change_layout_request::Change},
};
use shardkeep_types::{SectorId, WorldId};

use super::{
    command::{CommandContext, OperatorCommand, Outcome},
    layout::change_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct MergeSectors {
    world: WorldId,
    first: SectorId,
    second: SectorId,
}

impl TryFrom<gm::MergeSectors> for MergeSectors {
    type Error = CommandError;

    fn try_from(command: gm::MergeSectors) -> Result<Self, CommandError> {
        let gm::MergeSectors { world, first, second } = command;
        Ok(Self { world: WorldId(world), first: SectorId(first), second: SectorId(second) })
    }
}

impl fmt::Display for MergeSectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "merge sector {} into sector {}", self.second, self.first)
    }
}

impl OperatorCommand for MergeSectors {
    const NAME: &'static str = "merge-sectors";
    const RIGHT: Right = Right::ChangeLayout;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (first, second) = (self.first.0, self.second.0);
        let change = Change::Merge(world::MergeSectors { first, second });
        let done = change_layout(context, self.world, change).await?;
        let text = format!("sector {second} is now part of sector {first}");
        Ok(Outcome::new(text, json!({ "revision": done.revision, "sector": done.made })))
    }
}

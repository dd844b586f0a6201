//! Creates a space: another instance of a map.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{
    gm,
    world::{self, change_layout_request::Change},
};
use shardkeep_types::WorldId;

use super::{
    command::{CommandContext, OperatorCommand, Outcome, checked_name},
    layout::change_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct CreateSpace {
    world: WorldId,
    map: String,
    /// 0: as space 1.
    tick_hz: u32,
}

impl TryFrom<gm::CreateSpace> for CreateSpace {
    type Error = CommandError;

    fn try_from(command: gm::CreateSpace) -> Result<Self, CommandError> {
        let gm::CreateSpace { world, map, tick_hz } = command;
        Ok(Self { world: WorldId(world), map: checked_name("map", &map)?, tick_hz })
    }
}

impl fmt::Display for CreateSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "create a space of map {}", self.map)?;
        if self.tick_hz > 0 { write!(f, " with {} ticks per second", self.tick_hz) } else { Ok(()) }
    }
}

impl OperatorCommand for CreateSpace {
    const NAME: &'static str = "create-space";
    const RIGHT: Right = Right::ChangeLayout;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let change = Change::Create(world::CreateSpace { map: self.map.clone(), tick_hz: self.tick_hz });
        let done = change_layout(context, self.world, change).await?;
        let text = format!("space {} of map {} is created", done.made, self.map);
        Ok(Outcome::new(text, json!({ "revision": done.revision, "space": done.made })))
    }
}

//! Closes a space. Avatars inside go to space 1, and the space is removed when it is empty.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{
    gm,
    world::{self, change_layout_request::Change},
};
use shardkeep_types::{SpaceId, WorldId};

use super::{
    command::{CommandContext, OperatorCommand, Outcome},
    layout::change_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct CloseSpace {
    world: WorldId,
    space: SpaceId,
}

impl TryFrom<gm::CloseSpace> for CloseSpace {
    type Error = CommandError;

    fn try_from(command: gm::CloseSpace) -> Result<Self, CommandError> {
        Ok(Self { world: WorldId(command.world), space: SpaceId(command.space) })
    }
}

impl fmt::Display for CloseSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "close space {}", self.space)
    }
}

impl OperatorCommand for CloseSpace {
    const NAME: &'static str = "close-space";
    const RIGHT: Right = Right::ChangeLayout;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let change = Change::Close(world::CloseSpace { space: self.space.0 });
        let done = change_layout(context, self.world, change).await?;
        let text = format!("space {} is closing; it is removed when it is empty", self.space);
        Ok(Outcome::new(text, json!({ "revision": done.revision })))
    }
}

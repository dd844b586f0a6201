//! Splits a sector in two.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{
    gm::{self, split_sector::Line},
    world::{self, change_layout_request::Change, split_line::Axis},
};
use shardkeep_types::{SectorId, WorldId};

use super::{
    command::{CommandContext, OperatorCommand, Outcome},
    layout::change_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct SplitSector {
    world: WorldId,
    sector: SectorId,
    line: Option<Line>,
}

impl TryFrom<gm::SplitSector> for SplitSector {
    type Error = CommandError;

    fn try_from(command: gm::SplitSector) -> Result<Self, CommandError> {
        let gm::SplitSector { world, sector, line } = command;
        Ok(Self { world: WorldId(world), sector: SectorId(sector), line })
    }
}

impl fmt::Display for SplitSector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "split sector {}", self.sector)?;
        match self.line {
            Some(Line::X(x)) => write!(f, " at x {x}"),
            Some(Line::Y(y)) => write!(f, " at y {y}"),
            None => Ok(()),
        }
    }
}

impl OperatorCommand for SplitSector {
    const NAME: &'static str = "split-sector";
    const RIGHT: Right = Right::ChangeLayout;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let axis = self.line.map(|line| match line {
            Line::X(x) => Axis::X(x),
            Line::Y(y) => Axis::Y(y),
        });
        let line = axis.map(|axis| world::SplitLine { axis: Some(axis) });
        let change = Change::Split(world::SplitSector { sector: self.sector.0, line });
        let done = change_layout(context, self.world, change).await?;
        let text = format!("sector {} is split; the second part is sector {}", self.sector, done.made);
        Ok(Outcome::new(text, json!({ "revision": done.revision, "sector": done.made })))
    }
}

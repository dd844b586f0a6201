//! Lists the spaces of a world.

use std::fmt;

use serde_json::{Value, json};
use shardkeep_rpc::{
    gm,
    world::{Partition, Space},
};
use shardkeep_types::WorldId;

use super::{
    command::{CommandContext, OperatorCommand, Outcome, plural},
    layout::fetch_layout,
};
use crate::{error::CommandError, role::Right};

pub(crate) struct Spaces {
    world: WorldId,
}

impl TryFrom<gm::Spaces> for Spaces {
    type Error = CommandError;

    fn try_from(command: gm::Spaces) -> Result<Self, CommandError> {
        Ok(Self { world: WorldId(command.world) })
    }
}

impl fmt::Display for Spaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("list the spaces")
    }
}

impl OperatorCommand for Spaces {
    const NAME: &'static str = "spaces";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let layout = fetch_layout(context, self.world).await?;
        let lines: Vec<String> = layout.spaces.iter().map(|space| line(&layout, space)).collect();
        let text =
            if lines.is_empty() { "the layout is not loaded yet".to_owned() } else { lines.join("\n") };
        let spaces: Vec<Value> = layout.spaces.iter().map(|space| listed(&layout, space)).collect();
        Ok(Outcome::new(text, json!({ "revision": layout.epoch, "spaces": spaces })))
    }
}

/// The number of sectors of a space, and of avatars inside.
fn counts(layout: &Partition, space: &Space) -> (u32, u32) {
    let is_inside = |cells: Option<_>| {
        cells.is_some_and(|cells: shardkeep_rpc::common::CellRect| cells.space == space.space)
    };
    let sectors = layout.sectors.iter().filter(|sector| is_inside(sector.cells));
    sectors.fold((0, 0), |(count, avatars), sector| (count + 1, avatars + sector.avatars))
}

fn line(layout: &Partition, space: &Space) -> String {
    let (sectors, avatars) = counts(layout, space);
    format!(
        "space {}  {}  {} × {} cells  {} ticks per second  {}  {}  {}",
        space.space,
        space.map,
        space.width,
        space.height,
        space.tick_hz,
        plural(sectors, "sector"),
        plural(avatars, "avatar"),
        if space.closing { "closing" } else { "open" },
    )
}

fn listed(layout: &Partition, space: &Space) -> Value {
    let (sectors, avatars) = counts(layout, space);
    json!({
        "space": space.space,
        "map": space.map,
        "width": space.width,
        "height": space.height,
        "tick_hz": space.tick_hz,
        "closing": space.closing,
        "sectors": sectors,
        "avatars": avatars,
    })
}

#[cfg(test)]
mod tests {
    use shardkeep_rpc::{common::CellRect, world::Sector};

    use super::*;

    #[test]
    fn line_counts_sectors_and_avatars_of_the_space() {
        let sector = |space, avatars| Sector {
            cells: Some(CellRect { space, ..CellRect::default() }),
            avatars,
            ..Sector::default()
        };
        let space =
            Space { space: 2, map: "meadow".into(), tick_hz: 20, width: 32, height: 32, closing: true };
        let sectors = vec![sector(1, 9), sector(2, 1), sector(2, 2)];
        let layout = Partition { sectors, ..Partition::default() };
        let expected = "space 2  meadow  32 × 32 cells  20 ticks per second  2 sectors  3 avatars  closing";
        assert_eq!(line(&layout, &space), expected);
    }
}

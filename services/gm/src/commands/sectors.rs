//! Lists the sectors of a world: cells, owner, epoch, and avatars.

use std::fmt;

use serde_json::{Value, json};
use shardkeep_rpc::{gm, world::Sector};
use shardkeep_types::WorldId;

use super::{
    command::{CommandContext, OperatorCommand, Outcome, plural},
    layout::{cells_text, fetch_layout},
};
use crate::{error::CommandError, role::Right};

pub(crate) struct Sectors {
    world: WorldId,
}

impl TryFrom<gm::Sectors> for Sectors {
    type Error = CommandError;

    fn try_from(command: gm::Sectors) -> Result<Self, CommandError> {
        Ok(Self { world: WorldId(command.world) })
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("list the sectors")
    }
}

impl OperatorCommand for Sectors {
    const NAME: &'static str = "sectors";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let layout = fetch_layout(context, self.world).await?;
        let lines: Vec<String> = layout.sectors.iter().map(line).collect();
        let text =
            if lines.is_empty() { "the layout is not loaded yet".to_owned() } else { lines.join("\n") };
        let sectors: Vec<Value> = layout.sectors.iter().map(listed).collect();
        Ok(Outcome::new(text, json!({ "revision": layout.epoch, "sectors": sectors })))
    }
}

fn line(sector: &Sector) -> String {
    let owner = if sector.zone.is_empty() { "no zone" } else { &sector.zone };
    let mut line = format!(
        "sector {}  space {}  {}  {owner}  epoch {}  {}",
        sector.sector,
        sector.cells.unwrap_or_default().space,
        cells_text(sector),
        sector.epoch,
        plural(sector.avatars, "avatar"),
    );
    if !sector.pinned.is_empty() {
        line += &format!("  pinned to {}", sector.pinned);
    }
    if !sector.moving_from.is_empty() {
        line += &format!("  moving from {}", sector.moving_from);
    }
    line
}

fn listed(sector: &Sector) -> Value {
    let cells = sector.cells.unwrap_or_default();
    json!({
        "sector": sector.sector,
        "space": cells.space,
        "x": [cells.x0, cells.x1],
        "y": [cells.y0, cells.y1],
        "zone": sector.zone,
        "epoch": sector.epoch,
        "avatars": sector.avatars,
        "pinned": sector.pinned,
        "moving_from": sector.moving_from,
    })
}

#[cfg(test)]
mod tests {
    use shardkeep_rpc::common::CellRect;

    use super::*;

    #[test]
    fn line_shows_pin_and_migration() {
        let sector = Sector {
            sector: 3,
            cells: Some(CellRect { space: 1, x0: 0, y0: 4, x1: 16, y1: 32 }),
            zone: "zone-2".into(),
            epoch: 7,
            pinned: "zone-2".into(),
            avatars: 1,
            moving_from: "zone-1".into(),
            ..Sector::default()
        };
        let expected = "sector 3  space 1  x 0–16, y 4–32  zone-2  epoch 7  1 avatar  pinned to zone-2  \
                        moving from zone-1";
        assert_eq!(line(&sector), expected);
        let unowned = line(&Sector { zone: String::new(), ..sector });
        assert!(unowned.contains("no zone"), "{unowned}");
    }
}

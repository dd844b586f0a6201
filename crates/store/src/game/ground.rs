//! What lies on the ground, and how far each spawn's loot has been minted.

use shardkeep_types::{CELL_MM, CellRect, ItemId, MapId, Position, WorldId};

use super::{Game, Item};
use crate::{Error, sql};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroundItem {
    pub item: Item,
    pub position: Position,
}

/// The hard state of a part of a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ground {
    pub items: Vec<GroundItem>,
    /// (spawn, highest generation that has minted loot), of the whole world.
    pub generations: Vec<(u64, u64)>,
}

impl Game {
    pub async fn load_ground(&self, world: WorldId, cells: CellRect) -> Result<Ground, Error> {
        let mm = |cell: u16| i64::from(cell) * i64::from(CELL_MM);
        let mut tx = self.database.snapshot().await?;
        let query = sql("SELECT id, template, count, map, x_mm, y_mm FROM items
             WHERE world = $1 AND map = $2 AND x_mm >= $3 AND x_mm < $4 AND y_mm >= $5 AND y_mm < $6 ORDER BY id");
        let query = query.bind(world.0).bind(cells.map.0).bind(mm(cells.x0)).bind(mm(cells.x1));
        let mut ground = Ground::default();
        for mut row in tx.fetch_all(query.bind(mm(cells.y0)).bind(mm(cells.y1))).await? {
            let item = Item { id: ItemId(row.take()?), template: row.take()?, count: row.take()? };
            let position = Position::new(MapId(row.take()?), row.take()?, row.take()?);
            ground.items.push(GroundItem { item, position });
        }
        let query =
            sql("SELECT spawn, generation FROM spawns WHERE world = $1 AND generation > 0").bind(world.0);
        for mut row in tx.fetch_all(query).await? {
            ground.generations.push((row.take()?, row.take()?));
        }
        tx.commit().await?;
        Ok(ground)
    }
}

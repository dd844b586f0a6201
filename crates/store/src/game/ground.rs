//! Reads what lies on the ground, and the loot generations of spawns, in pages.

use std::collections::BTreeMap;

use shardkeep_types::{CELL_MM, CellRect, ItemId, Position, SpaceId, WorldId};

use super::{characters::read_position, tables::Game, types::Item};
use crate::{Error, Tx, sql};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroundItem {
    pub item: Item,
    pub position: Position,
}

/// Where the next page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroundCursor {
    /// After this spawn.
    Spawn(u32),
    /// After this item, in the order of (y, id). This is the order of the index.
    Item { y_mm: i32, item: ItemId },
}

/// One page of the hard state of a part of a space: generations first, then items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroundPage {
    pub items: Vec<GroundItem>,
    /// The highest generation that has minted loot, by spawn of the whole space.
    pub generations: BTreeMap<u32, u64>,
    /// `None` on the last page.
    pub next: Option<GroundCursor>,
}

/// The cursor in front of every item.
const FIRST_ITEM: GroundCursor = GroundCursor::Item { y_mm: i32::MIN, item: ItemId(0) };

impl Game {
    /// The page after a cursor, with at most `limit` generations and `limit` items. An item that moves between two pages
    /// may be in both of them or in none.
    pub async fn load_ground(
        &self,
        world: WorldId,
        cells: CellRect,
        after: Option<GroundCursor>,
        limit: usize,
    ) -> Result<GroundPage, Error> {
        let mut page = GroundPage::default();
        let mut tx = self.database().snapshot().await?;
        let after = match after.unwrap_or(GroundCursor::Spawn(0)) {
            GroundCursor::Spawn(spawn) => {
                page.generations = read_generations(&mut tx, world, cells.space, spawn, limit).await?;
                let last = page.generations.keys().next_back().copied();
                if let Some(last) = last.filter(|_| page.generations.len() == limit) {
                    page.next = Some(GroundCursor::Spawn(last));
                    return Ok(page);
                }
                FIRST_ITEM
            }
            item @ GroundCursor::Item { .. } => item,
        };
        page.items = read_items(&mut tx, world, cells, after, limit).await?;
        tx.commit().await?;
        let last = page.items.last().filter(|_| page.items.len() == limit);
        page.next = last.map(|last| GroundCursor::Item { y_mm: last.position.y_mm, item: last.item.id });
        Ok(page)
    }
}

async fn read_generations(
    tx: &mut Tx,
    world: WorldId,
    space: SpaceId,
    after: u32,
    limit: usize,
) -> Result<BTreeMap<u32, u64>, Error> {
    let query = sql("SELECT spawn, generation FROM spawns
         WHERE world = $1 AND space = $2 AND spawn > $3 AND generation > 0 ORDER BY spawn LIMIT $4");
    let mut generations = BTreeMap::new();
    for mut row in tx.fetch_all(query.bind(world.0).bind(space.0).bind(after).bind(limit as u64)).await? {
        generations.insert(row.take()?, row.take()?);
    }
    Ok(generations)
}

async fn read_items(
    tx: &mut Tx,
    world: WorldId,
    cells: CellRect,
    after: GroundCursor,
    limit: usize,
) -> Result<Vec<GroundItem>, Error> {
    let GroundCursor::Item { y_mm, item } = after else { return Ok(Vec::new()) };
    let mm = |cell: u16| i64::from(cell) * i64::from(CELL_MM);
    let query = sql("SELECT id, template, count, space, layer, x_mm, y_mm, z_mm FROM items
         WHERE world = $1 AND space = $2 AND y_mm >= $3 AND y_mm < $4 AND x_mm >= $5 AND x_mm < $6
             AND (y_mm, id) > ($7, $8)
         ORDER BY y_mm, id LIMIT $9");
    let query = query.bind(world.0).bind(cells.space.0).bind(mm(cells.y0)).bind(mm(cells.y1));
    let query = query.bind(mm(cells.x0)).bind(mm(cells.x1)).bind(y_mm).bind(item.0).bind(limit as u64);
    let mut items = Vec::new();
    for mut row in tx.fetch_all(query).await? {
        let item = Item { id: ItemId(row.take()?), template: row.take()?, count: row.take()? };
        items.push(GroundItem { item, position: read_position(&mut row)? });
    }
    Ok(items)
}

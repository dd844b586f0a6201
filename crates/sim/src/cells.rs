//! Cells: a counting sort finds the bodies in each cell once per tick. Each cell stores what its watchers still
//! need.

use serde::{Deserialize, Serialize};
use shardkeep_types::{CellId, EntityId, ItemId, Position, SpaceId};

use crate::{
    Map,
    body::{Body, dirty},
    event::RemovalReason,
    input::Item,
    lookup::Lookup,
    ring::Ring,
};

/// One group of a cell, and what its watchers still need.
#[derive(Debug, Default, Clone)]
pub(crate) struct Feed {
    pub(crate) watched: bool,
    pub(crate) keyframe: bool,
    pub(crate) gone: Vec<(EntityId, RemovalReason)>,
}

impl Feed {
    fn record_gone(&mut self, entity: EntityId, why: RemovalReason) {
        if self.watched {
            self.gone.push((entity, why));
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroundItem {
    pub(crate) item: Item,
    pub(crate) at: Position,
    #[serde(skip, default = "unsent")]
    pub(crate) near: bool,
    #[serde(skip, default = "unsent")]
    pub(crate) outer: bool,
}

/// Watchers of a restored space know none of its items.
fn unsent() -> bool {
    true
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Cell {
    pub(crate) owned: bool,
    /// The ground is loaded, so creatures may live here.
    pub(crate) ready: bool,
    /// An avatar is in the cell or next to it.
    pub(crate) active: bool,
    pub(crate) near: Feed,
    pub(crate) outer: Feed,
    pub(crate) ground: Vec<GroundItem>,
}

impl Cell {
    pub(crate) fn feed(&mut self, ring: Ring) -> &mut Feed {
        match ring {
            Ring::Near => &mut self.near,
            Ring::Outer => &mut self.outer,
        }
    }

    pub(crate) fn record_gone(&mut self, entity: EntityId, why: RemovalReason) {
        if self.owned {
            self.near.record_gone(entity, why);
            self.outer.record_gone(entity, why);
        }
    }
}

/// All cells of a map, with the bodies sorted by cell.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    width: u16,
    height: u16,
    space: SpaceId,
    pub(crate) all: Vec<Cell>,
    /// The index of the cell of each item on the ground.
    item_cells: Lookup<ItemId, usize>,
    /// `sorted[starts[c]..starts[c + 1]]` are the bodies in cell `c`.
    starts: Vec<u32>,
    sorted: Vec<u32>,
}

impl Cells {
    pub(crate) fn new(space: SpaceId, map: &Map) -> Self {
        let count = usize::from(map.width) * usize::from(map.height);
        Self {
            width: map.width,
            height: map.height,
            space,
            all: vec![Cell::default(); count],
            item_cells: Lookup::default(),
            starts: vec![0; count + 1],
            sorted: Vec::new(),
        }
    }

    /// The owned cells, for a snapshot. Other cells have no state that outlives a restart.
    pub(crate) fn owned_states(&self) -> Vec<(u32, bool, &[GroundItem])> {
        let owned = self.all.iter().zip(0..).filter(|(cell, _)| cell.owned);
        owned.map(|(cell, index)| (index, cell.ready, cell.ground.as_slice())).collect()
    }

    /// Restores an owned cell. Returns false if the map has no such cell, or an item is on the ground twice.
    pub(crate) fn restore(&mut self, index: u32, ready: bool, ground: Vec<GroundItem>) -> bool {
        let index = index as usize;
        let Some(cell) = self.all.get_mut(index) else { return false };
        let is_new = ground.iter().all(|ground| self.item_cells.insert(ground.item.id, index).is_none());
        (cell.owned, cell.ready, cell.ground) = (true, ready, ground);
        for ring in [Ring::Near, Ring::Outer] {
            cell.feed(ring).keyframe = true;
        }
        is_new
    }

    pub(crate) fn index(&self, cell: CellId) -> Option<usize> {
        let inside = cell.space == self.space && cell.x < self.width && cell.y < self.height;
        inside.then(|| usize::from(cell.y) * usize::from(self.width) + usize::from(cell.x))
    }

    pub(crate) fn id(&self, index: usize) -> CellId {
        let width = usize::from(self.width);
        CellId { space: self.space, x: (index % width) as u16, y: (index / width) as u16 }
    }

    /// Index of the cell that contains the point. Points outside the map belong to the nearest cell.
    pub(crate) fn at(&self, x_mm: i32, y_mm: i32) -> u32 {
        let cell = Position::flat(self.space, x_mm, y_mm).cell();
        let (x, y) = (cell.x.min(self.width - 1), cell.y.min(self.height - 1));
        u32::from(y) * u32::from(self.width) + u32::from(x)
    }

    pub(crate) fn get_mut(&mut self, cell: CellId) -> Option<&mut Cell> {
        self.index(cell).map(|index| &mut self.all[index])
    }

    pub(crate) fn owned(&self, index: u32) -> bool {
        self.all.get(index as usize).is_some_and(|cell| cell.owned)
    }

    /// The cells at most `radius` away from this one, including itself.
    pub(crate) fn around(&self, index: usize, radius: u16) -> impl Iterator<Item = usize> + use<> {
        let width = usize::from(self.width);
        let near = self.id(index).around(radius, self.width, self.height);
        near.map(move |cell| usize::from(cell.y) * width + usize::from(cell.x))
    }

    /// Counting sort of all bodies by cell.
    pub(crate) fn sort(&mut self, bodies: &[Body]) {
        self.starts.fill(0);
        for body in bodies {
            self.starts[body.cell as usize + 1] += 1;
        }
        for cell in 1..self.starts.len() {
            self.starts[cell] += self.starts[cell - 1];
        }
        self.sorted.resize(bodies.len(), 0);
        // Filling from the back restores `starts`.
        let mut ends: Vec<u32> = self.starts[1..].to_vec();
        for (at, body) in bodies.iter().enumerate().rev() {
            let end = &mut ends[body.cell as usize];
            *end -= 1;
            self.sorted[*end as usize] = at as u32;
        }
    }

    /// The bodies in the cell, as of the last sort.
    pub(crate) fn inside(&self, index: usize) -> &[u32] {
        &self.sorted[self.starts[index] as usize..self.starts[index + 1] as usize]
    }

    /// Moves a body to another cell. Watchers of the old cell see it leave, watchers of the new cell see it appear.
    pub(crate) fn enter(&mut self, body: &mut Body, into: u32) {
        if body.cell != into {
            self.all[body.cell as usize].record_gone(body.id, RemovalReason::ToOtherCell);
            body.cell = into;
            body.touch(dirty::ALL);
        }
    }

    pub(crate) fn find_item(&self, item: EntityId) -> Option<(usize, usize)> {
        let item = item.as_item()?;
        let index = self.item_cells.get(&item)?;
        let place = self.all[index].ground.iter().position(|ground_item| ground_item.item.id == item)?;
        Some((index, place))
    }

    pub(crate) fn clear_ground(&mut self, index: usize) {
        for ground_item in std::mem::take(&mut self.all[index].ground) {
            self.item_cells.remove(&ground_item.item.id);
        }
    }

    pub(crate) fn place_item(&mut self, item: Item, at: Position) {
        let Some(index) = self.index(at.cell()) else { return };
        if self.all[index].owned && self.item_cells.get(&item.id).is_none() {
            self.item_cells.insert(item.id, index);
            self.all[index].ground.push(GroundItem { item, at, near: true, outer: true });
        }
    }

    pub(crate) fn remove_item(&mut self, item: EntityId) {
        if let Some((index, place)) = self.find_item(item) {
            let removed = self.all[index].ground.swap_remove(place);
            self.item_cells.remove(&removed.item.id);
            self.all[index].record_gone(item, RemovalReason::Left);
        }
    }
}

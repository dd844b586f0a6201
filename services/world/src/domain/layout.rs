//! The layout of a world: its spaces, and the sectors that divide each of them without gaps. Numbers of spaces and
//! sectors are never used again, and the epoch of a cell only rises.

mod reshape;

use std::collections::BTreeMap;

use shardkeep_types::{CellId, CellRect, Epoch, InstanceId, SectorId, SpaceId};

pub(crate) use reshape::{LayoutError, SplitLine};

/// The most spaces, and the most sectors, of a world. A complete table then fits into one message.
pub(crate) const MAX_SPACES: usize = 4_096;
pub(crate) const MAX_SECTORS: usize = 4_096;

/// An instance of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    id: SpaceId,
    map: String,
    /// Avatars leave the space, and none may enter.
    closing: bool,
    tick_hz: u32,
    /// In cells.
    width: u16,
    height: u16,
}

/// A part of a space with one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sector {
    id: SectorId,
    cells: CellRect,
    owner: Option<InstanceId>,
    epoch: Epoch,
    /// Name of the zone that an operator has chosen.
    pinned: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Number of stored changes. 0: nothing is stored.
    revision: u64,
    next_space: u32,
    next_sector: u32,
    spaces: BTreeMap<SpaceId, Space>,
    sectors: BTreeMap<SectorId, Sector>,
}

/// The rows in which one layout differs from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutChange {
    /// The revision of the earlier layout.
    pub(crate) revision: u64,
    pub(crate) next_space: u32,
    pub(crate) next_sector: u32,
    pub(crate) spaces: Vec<Space>,
    pub(crate) sectors: Vec<Sector>,
    pub(crate) removed_spaces: Vec<SpaceId>,
    pub(crate) removed_sectors: Vec<SectorId>,
}

impl Space {
    pub(crate) fn new(id: SpaceId, map: String, tick_hz: u32, width: u16, height: u16) -> Self {
        Self { id, map, closing: false, tick_hz, width, height }
    }

    pub(crate) fn stored(self, closing: bool) -> Self {
        Self { closing, ..self }
    }

    pub(crate) fn id(&self) -> SpaceId {
        self.id
    }

    pub(crate) fn map(&self) -> &str {
        &self.map
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn tick_hz(&self) -> u32 {
        self.tick_hz
    }

    /// Width and height in cells.
    pub(crate) fn size(&self) -> (u16, u16) {
        (self.width, self.height)
    }

    fn cells(&self) -> CellRect {
        CellRect { space: self.id, x0: 0, y0: 0, x1: self.width, y1: self.height }
    }
}

impl Sector {
    pub(crate) fn new(id: SectorId, cells: CellRect) -> Self {
        Self { id, cells, owner: None, epoch: Epoch(0), pinned: None }
    }

    pub(crate) fn stored(self, owner: Option<InstanceId>, epoch: Epoch, pinned: Option<String>) -> Self {
        Self { owner, epoch, pinned, ..self }
    }

    pub(crate) fn id(&self) -> SectorId {
        self.id
    }

    pub(crate) fn cells(&self) -> CellRect {
        self.cells
    }

    pub(crate) fn owner(&self) -> Option<&InstanceId> {
        self.owner.as_ref()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn pinned(&self) -> Option<&str> {
        self.pinned.as_deref()
    }
}

impl Layout {
    /// The first layout of a world: space 1, divided into `columns` sectors side by side.
    pub(crate) fn first(map: &str, tick_hz: u32, width: u16, height: u16, columns: u16) -> Self {
        let edge = |column: u16| {
            u16::try_from(u32::from(width) * u32::from(column) / u32::from(columns)).unwrap_or(width)
        };
        let space = Space::new(SpaceId::FIRST, map.to_owned(), tick_hz, width, height);
        let cells = |column| CellRect { x0: edge(column), x1: edge(column + 1), ..space.cells() };
        let sectors = (0..columns).map(|column| Sector::new(SectorId(u32::from(column) + 1), cells(column)));
        let sectors: Vec<Sector> = sectors.collect();
        Self::stored(0, 2, u32::from(columns) + 1, vec![space], sectors)
    }

    /// A layout from its rows.
    pub(crate) fn stored(
        revision: u64,
        next_space: u32,
        next_sector: u32,
        spaces: Vec<Space>,
        sectors: Vec<Sector>,
    ) -> Self {
        Self {
            revision,
            next_space,
            next_sector,
            spaces: spaces.into_iter().map(|space| (space.id, space)).collect(),
            sectors: sectors.into_iter().map(|sector| (sector.id, sector)).collect(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The same rows under the number of their stored revision.
    pub(crate) fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    pub(crate) fn spaces(&self) -> impl Iterator<Item = &Space> {
        self.spaces.values()
    }

    pub(crate) fn space(&self, id: SpaceId) -> Option<&Space> {
        self.spaces.get(&id)
    }

    pub(crate) fn sectors(&self) -> impl Iterator<Item = &Sector> {
        self.sectors.values()
    }

    pub(crate) fn sector(&self, id: SectorId) -> Option<&Sector> {
        self.sectors.get(&id)
    }

    /// The numbers of the sectors of this owner.
    pub(crate) fn sectors_of(&self, owner: &InstanceId) -> Vec<SectorId> {
        self.sectors().filter(|sector| sector.owner() == Some(owner)).map(Sector::id).collect()
    }

    /// Gives the sector to a zone and raises its epoch.
    pub(crate) fn assign(&mut self, sector: SectorId, owner: InstanceId) {
        if let Some(sector) = self.sectors.get_mut(&sector) {
            sector.owner = Some(owner);
            sector.epoch = sector.epoch.next();
        }
    }

    pub(crate) fn pin(&mut self, sector: SectorId, zone: Option<String>) {
        if let Some(sector) = self.sectors.get_mut(&sector) {
            sector.pinned = zone;
        }
    }

    /// The rows that differ from an earlier layout. `None`: there are none.
    pub(crate) fn changes_since(&self, before: &Self) -> Option<LayoutChange> {
        let spaces = self.spaces().filter(|space| before.space(space.id) != Some(space));
        let sectors = self.sectors().filter(|sector| before.sector(sector.id) != Some(sector));
        let change = LayoutChange {
            revision: before.revision,
            next_space: self.next_space,
            next_sector: self.next_sector,
            spaces: spaces.cloned().collect(),
            sectors: sectors.cloned().collect(),
            removed_spaces: before.spaces.keys().filter(|id| self.space(**id).is_none()).copied().collect(),
            removed_sectors: before
                .sectors
                .keys()
                .filter(|id| self.sector(**id).is_none())
                .copied()
                .collect(),
        };
        let rows = change.spaces.len() + change.sectors.len();
        (rows + change.removed_spaces.len() + change.removed_sectors.len() > 0).then_some(change)
    }

    /// The sector that contains a cell.
    pub(crate) fn sector_at(&self, cell: CellId) -> Option<&Sector> {
        self.sectors().find(|sector| sector.cells.contains(cell))
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// Space 1 with 32 × 32 cells.
    pub(crate) fn meadow(columns: u16) -> Layout {
        Layout::first("meadow", 20, 32, 32, columns)
    }

    /// Fails unless the sectors of each space cover each of its cells once.
    pub(crate) fn assert_tiles(layout: &Layout) {
        for space in layout.spaces() {
            let mut seen = std::collections::HashSet::new();
            let sectors = layout.sectors().filter(|sector| sector.cells().space == space.id());
            for cell in sectors.flat_map(|sector| sector.cells().cells()) {
                assert!(space.cells().contains(cell), "{cell} lies outside of its space");
                assert!(seen.insert(cell), "{cell} lies in two sectors");
            }
            let (width, height) = space.size();
            assert_eq!(seen.len(), usize::from(width) * usize::from(height), "space {} has gaps", space.id());
        }
        for sector in layout.sectors() {
            assert!(layout.space(sector.cells().space).is_some(), "{sector:?} lies in no space");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fixture::*, *};
    use crate::domain::zone::fixture::owner;

    #[test]
    fn first_layout_divides_space_into_columns() {
        let layout = Layout::first("meadow", 20, 10, 4, 3);
        assert_tiles(&layout);
        let columns: Vec<_> = layout.sectors().map(|it| (it.id().0, it.cells().x0, it.cells().x1)).collect();
        assert_eq!(columns, [(1, 0, 3), (2, 3, 6), (3, 6, 10)]);
        assert_eq!(layout.sector_at(CellId { space: SpaceId(1), x: 5, y: 3 }).unwrap().id(), SectorId(2));
        assert_eq!(layout.sector_at(CellId { space: SpaceId(2), x: 5, y: 3 }), None);
    }

    #[test]
    fn change_contains_only_differing_rows() {
        let before = meadow(4);
        assert_eq!(before.changes_since(&before), None);
        let first = before.changes_since(&Layout::default()).unwrap();
        assert_eq!((first.revision, first.spaces.len(), first.sectors.len()), (0, 1, 4));
        let mut after = before.clone().at_revision(7);
        after.assign(SectorId(2), owner("a", 1));
        after.merge(SectorId(3), SectorId(4)).unwrap();
        let change = after.changes_since(&before.at_revision(7)).unwrap();
        assert_eq!((change.revision, change.next_sector), (7, 5));
        assert_eq!(change.sectors.iter().map(Sector::id).collect::<Vec<_>>(), [SectorId(2), SectorId(3)]);
        assert_eq!((change.removed_sectors, change.spaces), (vec![SectorId(4)], vec![]));
    }
}

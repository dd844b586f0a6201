//! Changes of the shape of a layout: sectors are split and merged, spaces are created, closed and removed.

use shardkeep_types::{CellRect, SectorId, SpaceId};

use super::{Layout, MAX_SECTORS, MAX_SPACES, Sector, Space};

/// Tick rates that a space may have, in ticks per second.
const TICK_HZ: std::ops::RangeInclusive<u32> = 10..=60;

/// The line that divides a sector: the first column or row of the second part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitLine {
    X(u16),
    Y(u16),
}

/// Why a layout was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("the layout is not loaded yet; try again in a moment")]
    NotLoaded,
    #[error("there is no sector {sector}; the nearest number is {nearest}")]
    NoSuchSector { sector: SectorId, nearest: SectorId },
    #[error("there is no space {space}; the nearest number is {nearest}")]
    NoSuchSpace { space: SpaceId, nearest: SpaceId },
    #[error("sector {0} has one cell and cannot be split")]
    SingleCell(SectorId),
    #[error("sector {sector} cannot be split at {axis} {at}: {}", valid_lines(*axis, *first, *last))]
    LineOutside { sector: SectorId, axis: char, at: u16, first: u16, last: u16 },
    #[error("name two different sectors")]
    SameSector,
    #[error("sectors {0} and {1} are not adjacent rectangles that form a rectangle together")]
    NotAdjacent(SectorId, SectorId),
    #[error(
        "sector {first} belongs to {first_owner} and sector {second} to {second_owner}; move one of them first"
    )]
    OwnersDiffer { first: SectorId, first_owner: String, second: SectorId, second_owner: String },
    #[error("sector {sector} is moving away from {from}; try again when its avatars have arrived")]
    Moving { sector: SectorId, from: String },
    #[error("there is no zone {zone}; the zones are {known}")]
    NoSuchZone { zone: String, known: String },
    #[error("zone {zone} is {state}; choose a zone that is up")]
    ZoneNotUp { zone: String, state: &'static str },
    #[error("there is no map {map:?}; the maps are {known}")]
    UnknownMap { map: String, known: String },
    #[error("a space has {} to {} ticks per second, not {rate}", TICK_HZ.start(), TICK_HZ.end())]
    TickRate { rate: u32 },
    #[error("space 1 cannot be closed: avatars of closed spaces go there")]
    FirstSpace,
    #[error("space {0} is closing already")]
    AlreadyClosing(SpaceId),
    #[error("the world has {MAX_SECTORS} sectors, which is the limit")]
    TooManySectors,
    #[error("the world has {MAX_SPACES} spaces, which is the limit")]
    TooManySpaces,
}

fn valid_lines(axis: char, first: u16, last: u16) -> String {
    if first > last {
        format!("it has one cell along {axis}")
    } else {
        format!("{axis} must be {first} to {last}")
    }
}

impl Layout {
    /// Splits a sector along a line, or in the middle of its longer side. Returns the number of the second part. Both
    /// parts keep owner, epoch and pin.
    pub(crate) fn split(
        &mut self,
        sector: SectorId,
        line: Option<SplitLine>,
    ) -> Result<SectorId, LayoutError> {
        let whole = self.find_sector(sector)?.clone();
        let CellRect { x0, y0, x1, y1, .. } = whole.cells;
        let (width, height) = (x1 - x0, y1 - y0);
        if width == 1 && height == 1 {
            return Err(LayoutError::SingleCell(sector));
        }
        let middle =
            if width >= height { SplitLine::X(x0 + width / 2) } else { SplitLine::Y(y0 + height / 2) };
        let (axis, at, from, to) = match line.unwrap_or(middle) {
            SplitLine::X(at) => ('x', at, x0, x1),
            SplitLine::Y(at) => ('y', at, y0, y1),
        };
        if at <= from || at >= to {
            return Err(LayoutError::LineOutside { sector, axis, at, first: from + 1, last: to - 1 });
        }
        if self.sectors.len() >= MAX_SECTORS {
            return Err(LayoutError::TooManySectors);
        }
        let (first, second) = if axis == 'x' {
            (CellRect { x1: at, ..whole.cells }, CellRect { x0: at, ..whole.cells })
        } else {
            (CellRect { y1: at, ..whole.cells }, CellRect { y0: at, ..whole.cells })
        };
        let id = self.take_sector_number();
        self.sectors.insert(sector, Sector { cells: first, ..whole.clone() });
        self.sectors.insert(id, Sector { id, cells: second, ..whole });
        Ok(id)
    }

    /// The first sector takes the cells of the second one. Both must have the same owner. The epoch of the result is
    /// higher than both epochs.
    pub(crate) fn merge(&mut self, first: SectorId, second: SectorId) -> Result<SectorId, LayoutError> {
        let (one, other) = (self.find_sector(first)?.clone(), self.find_sector(second)?.clone());
        if first == second {
            return Err(LayoutError::SameSector);
        }
        let cells = joined(one.cells, other.cells).ok_or(LayoutError::NotAdjacent(first, second))?;
        if one.owner != other.owner {
            let name = |sector: &Sector| {
                sector.owner.as_ref().map_or_else(|| "no zone".to_owned(), |owner| owner.name.clone())
            };
            let (first_owner, second_owner) = (name(&one), name(&other));
            return Err(LayoutError::OwnersDiffer { first, first_owner, second, second_owner });
        }
        self.sectors.remove(&second);
        let epoch = one.epoch.max(other.epoch).next();
        self.sectors.insert(first, Sector { cells, epoch, pinned: one.pinned.or(other.pinned), ..one });
        Ok(first)
    }

    /// Creates a space with one sector.
    pub(crate) fn create_space(
        &mut self,
        map: &str,
        tick_hz: u32,
        (width, height): (u16, u16),
    ) -> Result<SpaceId, LayoutError> {
        if !TICK_HZ.contains(&tick_hz) {
            return Err(LayoutError::TickRate { rate: tick_hz });
        }
        if self.spaces.len() >= MAX_SPACES {
            return Err(LayoutError::TooManySpaces);
        }
        if self.sectors.len() >= MAX_SECTORS {
            return Err(LayoutError::TooManySectors);
        }
        let space = Space::new(SpaceId(self.next_space), map.to_owned(), tick_hz, width, height);
        self.next_space += 1;
        let sector = Sector::new(self.take_sector_number(), space.cells());
        self.sectors.insert(sector.id, sector);
        let id = space.id;
        self.spaces.insert(id, space);
        Ok(id)
    }

    /// Marks a space as closing.
    pub(crate) fn close_space(&mut self, id: SpaceId) -> Result<(), LayoutError> {
        let nearest = nearest(self.spaces.keys().copied(), id, |space| space.0).unwrap_or(SpaceId::FIRST);
        let space = self.spaces.get_mut(&id).ok_or(LayoutError::NoSuchSpace { space: id, nearest })?;
        if id == SpaceId::FIRST {
            return Err(LayoutError::FirstSpace);
        }
        if space.closing {
            return Err(LayoutError::AlreadyClosing(id));
        }
        space.closing = true;
        Ok(())
    }

    /// Removes a space and its sectors.
    pub(crate) fn remove_space(&mut self, id: SpaceId) {
        self.spaces.remove(&id);
        self.sectors.retain(|_, sector| sector.cells.space != id);
    }

    pub(crate) fn find_sector(&self, id: SectorId) -> Result<&Sector, LayoutError> {
        let nearest = || nearest(self.sectors.keys().copied(), id, |sector| sector.0).unwrap_or_default();
        self.sector(id).ok_or_else(|| LayoutError::NoSuchSector { sector: id, nearest: nearest() })
    }

    fn take_sector_number(&mut self) -> SectorId {
        let id = SectorId(self.next_sector);
        self.next_sector += 1;
        id
    }
}

/// The number closest to the wanted one; among equals the lower.
fn nearest<T: Copy>(all: impl Iterator<Item = T>, wanted: T, number: impl Fn(T) -> u32) -> Option<T> {
    all.min_by_key(|&id| (number(id).abs_diff(number(wanted)), number(id)))
}

/// The rectangle of both, if they share a whole side.
fn joined(one: CellRect, other: CellRect) -> Option<CellRect> {
    if one.space != other.space {
        return None;
    }
    let in_row = one.y0 == other.y0 && one.y1 == other.y1 && (one.x1 == other.x0 || other.x1 == one.x0);
    let in_column = one.x0 == other.x0 && one.x1 == other.x1 && (one.y1 == other.y0 || other.y1 == one.y0);
    (in_row || in_column).then(|| CellRect {
        x0: one.x0.min(other.x0),
        y0: one.y0.min(other.y0),
        x1: one.x1.max(other.x1),
        y1: one.y1.max(other.y1),
        ..one
    })
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Epoch;

    use super::*;
    use crate::domain::{
        layout::fixture::{assert_tiles, meadow},
        zone::fixture::owner,
    };

    fn cells(layout: &Layout, sector: u32) -> (u16, u16, u16, u16) {
        let CellRect { x0, y0, x1, y1, .. } = layout.sector(SectorId(sector)).unwrap().cells();
        (x0, y0, x1, y1)
    }

    #[test]
    fn split_defaults_to_middle_of_longer_side() {
        let mut layout = meadow(2);
        assert_eq!(layout.split(SectorId(1), None), Ok(SectorId(3)));
        assert_eq!((cells(&layout, 1), cells(&layout, 3)), ((0, 0, 16, 16), (0, 16, 16, 32)));
        assert_eq!(layout.split(SectorId(3), Some(SplitLine::X(15))), Ok(SectorId(4)));
        assert_eq!((cells(&layout, 3), cells(&layout, 4)), ((0, 16, 15, 32), (15, 16, 16, 32)));
        assert_tiles(&layout);
    }

    #[test]
    fn split_keeps_owner_and_epoch() {
        let mut layout = meadow(1);
        layout.assign(SectorId(1), owner("a", 1));
        layout.pin(SectorId(1), Some("a".to_owned()));
        layout.split(SectorId(1), None).unwrap();
        for sector in layout.sectors() {
            let found = (sector.owner(), sector.epoch(), sector.pinned());
            assert_eq!(found, (Some(&owner("a", 1)), Epoch(1), Some("a")));
        }
    }

    #[test]
    fn split_error_names_valid_lines() {
        let mut layout = meadow(2);
        let error = layout.split(SectorId(2), Some(SplitLine::X(16))).unwrap_err();
        assert_eq!(error.to_string(), "sector 2 cannot be split at x 16: x must be 17 to 31");
        let mut narrow = meadow(32);
        let error = narrow.split(SectorId(1), Some(SplitLine::X(0))).unwrap_err();
        assert_eq!(error.to_string(), "sector 1 cannot be split at x 0: it has one cell along x");
        let mut cell = Layout::first("meadow", 20, 1, 1, 1);
        assert_eq!(cell.split(SectorId(1), None), Err(LayoutError::SingleCell(SectorId(1))));
        let error = layout.split(SectorId(9), None).unwrap_err();
        assert_eq!(error.to_string(), "there is no sector 9; the nearest number is 2");
    }

    #[test]
    fn merge_raises_epoch_above_both() {
        let mut layout = meadow(2);
        layout.assign(SectorId(1), owner("b", 1));
        for sector in [1, 2] {
            layout.assign(SectorId(sector), owner("a", 1));
        }
        assert_eq!(layout.merge(SectorId(2), SectorId(1)), Ok(SectorId(2)));
        assert_eq!(layout.sector(SectorId(2)).unwrap().epoch(), Epoch(3));
        assert_tiles(&layout);
    }

    #[test]
    fn merge_requires_adjacent_rectangles_of_one_owner() {
        let mut layout = meadow(3);
        let merge =
            |layout: &mut Layout, one, other| layout.merge(SectorId(one), SectorId(other)).unwrap_err();
        let apart = LayoutError::NotAdjacent(SectorId(1), SectorId(3));
        assert_eq!(merge(&mut layout, 1, 3), apart);
        assert_eq!(merge(&mut layout, 1, 1), LayoutError::SameSector);
        layout.split(SectorId(2), Some(SplitLine::Y(10))).unwrap();
        assert_eq!(merge(&mut layout, 1, 2), LayoutError::NotAdjacent(SectorId(1), SectorId(2)));
        layout.assign(SectorId(2), owner("a", 1));
        let error = merge(&mut layout, 2, 4).to_string();
        assert_eq!(error, "sector 2 belongs to a and sector 4 to no zone; move one of them first");
    }

    #[test]
    fn closed_space_is_removed_and_its_number_is_not_used_again() {
        let mut layout = meadow(2);
        assert_eq!(layout.create_space("meadow", 9, (8, 8)), Err(LayoutError::TickRate { rate: 9 }));
        assert_eq!(layout.create_space("meadow", 60, (8, 8)), Ok(SpaceId(2)));
        assert_tiles(&layout);
        assert_eq!(layout.close_space(SpaceId(1)), Err(LayoutError::FirstSpace));
        assert_eq!(layout.close_space(SpaceId(2)), Ok(()));
        assert_eq!(layout.close_space(SpaceId(2)), Err(LayoutError::AlreadyClosing(SpaceId(2))));
        layout.remove_space(SpaceId(2));
        assert_tiles(&layout);
        let nearest = SpaceId(1);
        assert_eq!(
            layout.close_space(SpaceId(2)),
            Err(LayoutError::NoSuchSpace { space: SpaceId(2), nearest })
        );
        assert_eq!(layout.create_space("meadow", 10, (8, 8)), Ok(SpaceId(3)));
    }
}

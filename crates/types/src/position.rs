//! Places: a map is a plane of square cells; a position is in millimetres from the map's corner.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Side of a cell: 32 m.
pub const CELL_MM: i32 = 32_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MapId(pub u16);

/// Where something stands. Valid positions are not negative; what lies outside the map is clamped by `sim`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    pub map: MapId,
    pub x_mm: i32,
    pub y_mm: i32,
}

impl Position {
    pub fn new(map: MapId, x_mm: i32, y_mm: i32) -> Self {
        Self { map, x_mm, y_mm }
    }

    pub fn cell(self) -> CellId {
        let cell = |mm: i32| u16::try_from(mm.max(0) / CELL_MM).unwrap_or(u16::MAX);
        CellId { map: self.map, x: cell(self.x_mm), y: cell(self.y_mm) }
    }

    /// Squared distance in mm²; positions on different maps are infinitely far apart.
    pub fn distance_squared(self, other: Self) -> u64 {
        if self.map != other.map {
            return u64::MAX;
        }
        let dx = i64::from(self.x_mm) - i64::from(other.x_mm);
        let dy = i64::from(self.y_mm) - i64::from(other.y_mm);
        (dx * dx).unsigned_abs().saturating_add((dy * dy).unsigned_abs())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellId {
    pub map: MapId,
    pub x: u16,
    pub y: u16,
}

impl CellId {
    /// Number of the cell in a group key: map, y, x in 16 bits each.
    pub fn number(self) -> u64 {
        u64::from(self.map.0) << 32 | u64::from(self.y) << 16 | u64::from(self.x)
    }

    pub fn from_number(number: u64) -> Self {
        let part = |shift: u32| (number >> shift & 0xffff) as u16;
        Self { map: MapId(part(32)), y: part(16), x: part(0) }
    }

    /// The cells at most `radius` away, this one included, inside `0..width` × `0..height`.
    pub fn around(self, radius: u16, width: u16, height: u16) -> impl Iterator<Item = CellId> {
        let xs = self.x.saturating_sub(radius)..self.x.saturating_add(radius + 1).min(width);
        let ys = self.y.saturating_sub(radius)..self.y.saturating_add(radius + 1).min(height);
        ys.flat_map(move |y| xs.clone().map(move |x| CellId { map: self.map, x, y }))
    }

    /// Larger of the two axes' distances, in cells; `None` on different maps.
    pub fn distance(self, other: Self) -> Option<u16> {
        (self.map == other.map).then(|| self.x.abs_diff(other.x).max(self.y.abs_diff(other.y)))
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.map.0, self.x, self.y)
    }
}

/// A rectangle of cells, `x1` and `y1` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellRect {
    pub map: MapId,
    pub x0: u16,
    pub y0: u16,
    pub x1: u16,
    pub y1: u16,
}

impl CellRect {
    pub fn contains(&self, cell: CellId) -> bool {
        cell.map == self.map && (self.x0..self.x1).contains(&cell.x) && (self.y0..self.y1).contains(&cell.y)
    }

    pub fn cells(self) -> impl Iterator<Item = CellId> {
        (self.y0..self.y1).flat_map(move |y| (self.x0..self.x1).map(move |x| CellId { map: self.map, x, y }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_id_round_trips_through_group_number() {
        let cell = CellId { map: MapId(3), x: 17, y: 65_535 };
        assert_eq!(CellId::from_number(cell.number()), cell);
    }

    #[test]
    fn corner_cell_has_four_cells_around() {
        let corner = CellId { map: MapId(1), x: 0, y: 0 };
        assert_eq!(corner.around(1, 32, 32).count(), 4);
        assert_eq!(CellId { map: MapId(1), x: 5, y: 31 }.around(1, 32, 32).count(), 6);
    }

    #[test]
    fn position_maps_to_its_cell() {
        let cell = Position::new(MapId(1), CELL_MM, CELL_MM - 1).cell();
        assert_eq!((cell.x, cell.y), (1, 0));
    }
}

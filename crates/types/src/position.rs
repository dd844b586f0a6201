//! Places: a world has spaces, a space has layers, and a position is in millimetres from the corner of its space.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Side of a cell: 32 m.
pub const CELL_MM: i32 = 32_000;

/// One instance of a map, or a room without a map. The open world is a space too. The world numbers its spaces from 1 and
/// never uses a number again, so that goods and entities of a closed space are not mistaken for those of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The space that every world has.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A layer of a space, also called a phase: entities of different layers do not see each other. Players enter on layer 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layer(pub u16);

/// A point of a map in millimetres. `z_mm` is the height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Point {
    pub x_mm: i32,
    pub y_mm: i32,
    pub z_mm: i32,
}

impl Point {
    /// A point at height 0.
    pub const fn flat(x_mm: i32, y_mm: i32) -> Self {
        Self { x_mm, y_mm, z_mm: 0 }
    }

    /// Squared distance in mm², height included.
    pub fn distance_squared(self, other: Self) -> u64 {
        let square = |a: i32, b: i32| (i64::from(a) - i64::from(b)).unsigned_abs().pow(2);
        square(self.x_mm, other.x_mm)
            .saturating_add(square(self.y_mm, other.y_mm))
            .saturating_add(square(self.z_mm, other.z_mm))
    }

    pub fn in_space(self, space: SpaceId, layer: Layer) -> Position {
        Position { space, layer, x_mm: self.x_mm, y_mm: self.y_mm, z_mm: self.z_mm }
    }
}

/// The place of an entity in a world. Valid coordinates `x_mm` and `y_mm` are not negative. `sim` clamps a position
/// outside the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    pub space: SpaceId,
    pub layer: Layer,
    pub x_mm: i32,
    pub y_mm: i32,
    pub z_mm: i32,
}

impl Position {
    /// A position on layer 0 at height 0.
    pub fn flat(space: SpaceId, x_mm: i32, y_mm: i32) -> Self {
        Point::flat(x_mm, y_mm).in_space(space, Layer(0))
    }

    pub fn point(self) -> Point {
        Point { x_mm: self.x_mm, y_mm: self.y_mm, z_mm: self.z_mm }
    }

    pub fn cell(self) -> CellId {
        let cell = |mm: i32| u16::try_from(mm.max(0) / CELL_MM).unwrap_or(u16::MAX);
        CellId { space: self.space, x: cell(self.x_mm), y: cell(self.y_mm) }
    }

    /// Squared distance in mm², height included. Positions in different spaces or layers are infinitely far apart.
    pub fn distance_squared(self, other: Self) -> u64 {
        if (self.space, self.layer) != (other.space, other.layer) {
            return u64::MAX;
        }
        self.point().distance_squared(other.point())
    }
}

/// A square of a space, of all its layers and heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CellId {
    pub space: SpaceId,
    pub x: u16,
    pub y: u16,
}

impl CellId {
    /// Number of the cell in a group key: space in 32 bits, y and x in 16 bits each.
    pub fn number(self) -> u64 {
        u64::from(self.space.0) << 32 | u64::from(self.y) << 16 | u64::from(self.x)
    }

    pub fn from_number(number: u64) -> Self {
        let part = |shift: u32| (number >> shift & 0xffff) as u16;
        Self { space: SpaceId((number >> 32) as u32), y: part(16), x: part(0) }
    }

    /// The cells at most `radius` away, this one included, inside `0..width` × `0..height`.
    pub fn around(self, radius: u16, width: u16, height: u16) -> impl Iterator<Item = CellId> {
        let xs = self.x.saturating_sub(radius)..self.x.saturating_add(radius + 1).min(width);
        let ys = self.y.saturating_sub(radius)..self.y.saturating_add(radius + 1).min(height);
        ys.flat_map(move |y| xs.clone().map(move |x| CellId { space: self.space, x, y }))
    }

    /// Larger of the two axes' distances, in cells; `None` in different spaces.
    pub fn distance(self, other: Self) -> Option<u16> {
        (self.space == other.space).then(|| self.x.abs_diff(other.x).max(self.y.abs_diff(other.y)))
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.space, self.x, self.y)
    }
}

/// A rectangle of cells, `x1` and `y1` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellRect {
    pub space: SpaceId,
    pub x0: u16,
    pub y0: u16,
    pub x1: u16,
    pub y1: u16,
}

impl CellRect {
    pub fn contains(&self, cell: CellId) -> bool {
        cell.space == self.space
            && (self.x0..self.x1).contains(&cell.x)
            && (self.y0..self.y1).contains(&cell.y)
    }

    pub fn cells(self) -> impl Iterator<Item = CellId> {
        let Self { space, x0, y0, x1, y1 } = self;
        (y0..y1).flat_map(move |y| (x0..x1).map(move |x| CellId { space, x, y }))
    }

    /// The smallest distance between a cell of this rectangle and one of the other, in cells: 0 if they overlap, 1 if
    /// they are adjacent, also diagonally. `None` in different spaces. Both must contain a cell.
    pub fn distance(&self, other: &Self) -> Option<u16> {
        let gap = |(from, to): (u16, u16), (other_from, other_to): (u16, u16)| {
            let apart = other_from.saturating_sub(to).max(from.saturating_sub(other_to));
            if other_from >= to || from >= other_to { apart.saturating_add(1) } else { 0 }
        };
        let x = gap((self.x0, self.x1), (other.x0, other.x1));
        let y = gap((self.y0, self.y1), (other.y0, other.y1));
        (self.space == other.space).then(|| x.max(y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_id_round_trips_through_group_number() {
        let cell = CellId { space: SpaceId(u32::MAX), x: 17, y: 65_535 };
        assert_eq!(CellId::from_number(cell.number()), cell);
    }

    #[test]
    fn corner_cell_has_four_cells_around() {
        let corner = CellId { space: SpaceId(1), x: 0, y: 0 };
        assert_eq!(corner.around(1, 32, 32).count(), 4);
        assert_eq!(CellId { space: SpaceId(1), x: 5, y: 31 }.around(1, 32, 32).count(), 6);
    }

    #[test]
    fn rectangle_distance_is_that_of_nearest_cells() {
        let rect = |x0, y0, x1, y1| CellRect { space: SpaceId(1), x0, y0, x1, y1 };
        let middle = rect(4, 4, 8, 8);
        let near =
            [rect(7, 7, 9, 9), rect(8, 4, 9, 5), rect(8, 8, 9, 9), rect(0, 0, 3, 20), rect(4, 12, 8, 13)];
        for (other, expected) in near.into_iter().zip([0, 1, 1, 2, 5]) {
            let nearest = middle.cells().flat_map(|a| other.cells().filter_map(move |b| a.distance(b))).min();
            assert_eq!((middle.distance(&other), other.distance(&middle)), (nearest, nearest), "{other:?}");
            assert_eq!(nearest, Some(expected));
        }
        assert_eq!(middle.distance(&CellRect { space: SpaceId(2), ..middle }), None);
    }

    #[test]
    fn position_maps_to_its_cell() {
        let cell = Position::flat(SpaceId(1), CELL_MM, CELL_MM - 1).cell();
        assert_eq!((cell.x, cell.y), (1, 0));
    }

    #[test]
    fn distance_includes_height_and_is_infinite_between_layers() {
        let at = Position::flat(SpaceId(1), 0, 0);
        let above = Position { x_mm: 3, z_mm: 4, ..at };
        assert_eq!(at.distance_squared(above), 25);
        assert_eq!(at.distance_squared(Position { layer: Layer(1), ..at }), u64::MAX);
        assert_eq!(at.distance_squared(Position { space: SpaceId(2), ..at }), u64::MAX);
        let far = |x_mm| Position { x_mm, y_mm: x_mm, z_mm: x_mm, ..at };
        assert!(far(i32::MIN).distance_squared(far(i32::MAX)) > u64::MAX / 2);
    }
}

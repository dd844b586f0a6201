//! The walk grid: the squares of a map on which a creature may stand, and whether a straight line stays on them.

/// A point on the map, in millimetres from its corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

impl Point {
    pub fn new(x: i32, y: i32) -> Self {
        Self { x, y }
    }

    /// Squared distance in mm².
    pub fn distance_squared(self, other: Self) -> i64 {
        let (dx, dy) = (i64::from(self.x) - i64::from(other.x), i64::from(self.y) - i64::from(other.y));
        dx.saturating_mul(dx).saturating_add(dy.saturating_mul(dy))
    }

    pub fn within(self, other: Self, mm: i32) -> bool {
        self.distance_squared(other) <= i64::from(mm) * i64::from(mm)
    }
}

/// A square of the grid, by column and row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Square {
    pub x: u16,
    pub y: u16,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridError {
    #[error("a grid of {width} × {height} squares; at least 1 and at most {} a side", WalkGrid::MAX_SIDE)]
    Size { width: u32, height: u32 },
    #[error("squares of {0} mm; they must be 100 mm to 100 m")]
    Square(u32),
    #[error("{got} bytes of blocked squares; {expected} expected")]
    Bits { expected: usize, got: usize },
}

/// One bit per square. Everything outside the grid is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkGrid {
    square_mm: i32,
    width: u16,
    height: u16,
    blocked: Vec<u8>,
}

impl WalkGrid {
    /// The most squares along one side. A grid therefore has at most 2 MiB.
    pub const MAX_SIDE: u32 = 4096;

    /// `blocked` contains one bit per square, row by row, least significant bit first. 1 is blocked.
    ///
    /// # Errors
    /// When a size is out of bounds or the bits do not fill the grid.
    pub fn new(square_mm: u32, width: u32, height: u32, blocked: Vec<u8>) -> Result<Self, GridError> {
        let side =
            |squares: u32| u16::try_from(squares).ok().filter(|_| (1..=Self::MAX_SIDE).contains(&squares));
        let (Some(columns), Some(rows)) = (side(width), side(height)) else {
            return Err(GridError::Size { width, height });
        };
        let square = i32::try_from(square_mm).ok().filter(|mm| (100..=100_000).contains(mm));
        let square_mm = square.ok_or(GridError::Square(square_mm))?;
        let expected = (width as usize * height as usize).div_ceil(8);
        if blocked.len() != expected {
            return Err(GridError::Bits { expected, got: blocked.len() });
        }
        Ok(Self { square_mm, width: columns, height: rows, blocked })
    }

    pub fn square_mm(&self) -> i32 {
        self.square_mm
    }

    pub fn is_open(&self, square: Square) -> bool {
        if square.x >= self.width || square.y >= self.height {
            return false;
        }
        let bit = usize::from(square.y) * usize::from(self.width) + usize::from(square.x);
        self.blocked[bit / 8] >> (bit % 8) & 1 == 0
    }

    /// The square that contains a point; `None` outside the grid.
    pub fn square_at(&self, point: Point) -> Option<Square> {
        let (x, y) = (point.x.div_euclid(self.square_mm), point.y.div_euclid(self.square_mm));
        let square = Square { x: u16::try_from(x).ok()?, y: u16::try_from(y).ok()? };
        (square.x < self.width && square.y < self.height).then_some(square)
    }

    pub fn is_open_at(&self, point: Point) -> bool {
        self.square_at(point).is_some_and(|square| self.is_open(square))
    }

    pub fn centre(&self, square: Square) -> Point {
        let middle = |at: u16| i32::from(at) * self.square_mm + self.square_mm / 2;
        Point { x: middle(square.x), y: middle(square.y) }
    }

    /// The open square closest to a point, at most `radius` squares away from the point's square.
    pub fn nearest_open(&self, point: Point, radius: u16) -> Option<Square> {
        let here = self.square_at(point)?;
        let columns = here.x.saturating_sub(radius)..=here.x.saturating_add(radius);
        let rows = here.y.saturating_sub(radius)..=here.y.saturating_add(radius);
        rows.flat_map(|y| columns.clone().map(move |x| Square { x, y }))
            .filter(|square| self.is_open(*square))
            .min_by_key(|square| (self.centre(*square).distance_squared(point), *square))
    }

    /// Whether the straight line stays on open squares. Where it passes exactly through a corner, both squares at
    /// the corner count, because a body has width.
    pub fn line_is_open(&self, from: Point, to: Point) -> bool {
        let (Some(first), Some(last)) = (self.square_at(from), self.square_at(to)) else {
            return false;
        };
        let mut walk = LineWalk::new(from, to, first, last, self.square_mm);
        self.is_open(first)
            && std::iter::from_fn(|| walk.step()).flatten().flatten().all(|square| self.is_open(square))
    }

    pub(crate) fn open_neighbours(&self, from: Square) -> impl Iterator<Item = (Square, u32)> + '_ {
        const AROUND: [(i16, i16); 8] =
            [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1)];
        AROUND.into_iter().filter_map(move |(dx, dy)| {
            let to = Square { x: from.x.checked_add_signed(dx)?, y: from.y.checked_add_signed(dy)? };
            let diagonal = dx != 0 && dy != 0;
            let corner_free = !diagonal
                || (self.is_open(Square { x: to.x, y: from.y })
                    && self.is_open(Square { x: from.x, y: to.y }));
            // Costs in thousandths of a square.
            (self.is_open(to) && corner_free).then_some((to, if diagonal { 1414 } else { 1000 }))
        })
    }
}

/// Walks the squares that a line touches, in exact integers (after Amanatides and Woo, 1987).
struct LineWalk {
    square: (i64, i64),
    left: (i64, i64),
    direction: (i64, i64),
    span: (i64, i64),
    /// Distance along each axis to the next border of squares.
    next: (i64, i64),
    square_mm: i64,
}

impl LineWalk {
    fn new(from: Point, to: Point, first: Square, last: Square, square_mm: i32) -> Self {
        let axis = |from: i32, to: i32, first: u16, last: u16| {
            let (from, to, mm) = (i64::from(from), i64::from(to), i64::from(square_mm));
            let start = i64::from(first) * mm;
            let next = if to >= from { start + mm - from } else { from - start };
            ((to - from).signum(), (to - from).abs(), next, (i64::from(last) - i64::from(first)).abs())
        };
        let x = axis(from.x, to.x, first.x, last.x);
        let y = axis(from.y, to.y, first.y, last.y);
        Self {
            square: (i64::from(first.x), i64::from(first.y)),
            direction: (x.0, y.0),
            span: (x.1, y.1),
            next: (x.2, y.2),
            left: (x.3, y.3),
            square_mm: i64::from(square_mm),
        }
    }

    /// The square or squares of the next step; `None` at the end of the line.
    fn step(&mut self) -> Option<[Option<Square>; 3]> {
        // Compares next.0 / span.0 with next.1 / span.1 to find the nearer border.
        let (by_x, by_y) = match (self.left.0 > 0, self.left.1 > 0) {
            (false, false) => return None,
            (true, false) => (true, false),
            (false, true) => (false, true),
            (true, true) => {
                let (x, y) = (self.next.0 * self.span.1, self.next.1 * self.span.0);
                (x <= y, y <= x)
            }
        };
        let before = self.square;
        if by_x {
            self.square.0 += self.direction.0;
            self.next.0 += self.square_mm;
            self.left.0 -= 1;
        }
        if by_y {
            self.square.1 += self.direction.1;
            self.next.1 += self.square_mm;
            self.left.1 -= 1;
        }
        let at = |x: i64, y: i64| {
            let side = |value: i64| u16::try_from(value).unwrap_or(u16::MAX);
            Square { x: side(x), y: side(y) }
        };
        let corner = by_x && by_y;
        Some([
            Some(at(self.square.0, self.square.1)),
            corner.then(|| at(self.square.0, before.1)),
            corner.then(|| at(before.0, self.square.1)),
        ])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A grid from rows of `.` and `#`, with squares of one metre.
    pub(crate) fn drawn(rows: &[&str]) -> WalkGrid {
        let width = rows[0].len();
        let mut blocked = vec![0; (width * rows.len()).div_ceil(8)];
        let squares = rows.iter().flat_map(|row| row.bytes());
        for (bit, _) in squares.enumerate().filter(|(_, square)| *square == b'#') {
            blocked[bit / 8] |= 1 << (bit % 8);
        }
        WalkGrid::new(1000, width as u32, rows.len() as u32, blocked).unwrap()
    }

    pub(crate) fn metres(x: f64, y: f64) -> Point {
        Point::new((x * 1000.0) as i32, (y * 1000.0) as i32)
    }

    #[test]
    fn grid_with_wrong_size_or_bits_is_refused() {
        assert_eq!(WalkGrid::new(1000, 3, 3, vec![0; 1]), Err(GridError::Bits { expected: 2, got: 1 }));
        assert_eq!(WalkGrid::new(1000, 0, 3, vec![]), Err(GridError::Size { width: 0, height: 3 }));
        assert!(WalkGrid::new(1000, 70_000, 1, vec![]).is_err());
        assert_eq!(WalkGrid::new(5, 1, 1, vec![0]), Err(GridError::Square(5)));
    }

    #[test]
    fn points_outside_grid_are_blocked() {
        let grid = drawn(&["..", ".#"]);
        assert!(grid.is_open_at(metres(0.5, 1.5)));
        assert!(!grid.is_open_at(metres(1.5, 1.5)));
        assert!(!grid.is_open_at(metres(-0.1, 0.0)));
        assert!(!grid.is_open_at(metres(2.0, 0.0)));
    }

    #[test]
    fn line_through_blocked_square_or_corner_is_blocked() {
        let grid = drawn(&["...", ".#.", "..."]);
        assert!(grid.line_is_open(metres(0.5, 0.5), metres(2.5, 0.5)));
        assert!(!grid.line_is_open(metres(0.5, 0.5), metres(2.5, 2.5)));
        assert!(!grid.line_is_open(metres(0.5, 1.5), metres(1.5, 0.5)), "a line through the rock's corner");
        assert!(grid.line_is_open(metres(0.5, 0.5), metres(0.5, 0.5)));
        assert!(!grid.line_is_open(metres(0.5, 0.5), metres(0.5, 9.0)));
    }

    #[test]
    fn line_is_open_in_both_directions_or_neither() {
        let grid = drawn(&["....", "..#.", "....", "#..."]);
        for (from, to) in [((0.2, 0.1), (3.9, 3.7)), ((1.0, 0.0), (1.0, 3.9)), ((3.5, 0.5), (1.1, 2.9))] {
            let (from, to) = (metres(from.0, from.1), metres(to.0, to.1));
            assert_eq!(grid.line_is_open(from, to), grid.line_is_open(to, from), "{from:?} {to:?}");
        }
    }

    #[test]
    fn nearest_open_square_within_radius_is_found() {
        let grid = drawn(&["###", "##.", "###"]);
        assert_eq!(grid.nearest_open(metres(0.5, 0.5), 2), Some(Square { x: 2, y: 1 }));
        assert_eq!(grid.nearest_open(metres(0.5, 0.5), 1), None);
    }
}

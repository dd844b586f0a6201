//! Maps: size, obstacles and spawn points. A seed generates a map, so that it is the same on every zone.

use serde::Serialize;
use shardkeep_types::{CELL_MM, CellId, Point};

use crate::{
    Random,
    template::{BOAR, RABBIT, WOLF},
};

/// Side of a square of the walk grid.
pub const SQUARE_MM: i32 = 2_000;

/// The squares of a map, each open or blocked.
#[derive(Debug, Clone, Serialize)]
pub struct WalkGrid {
    width: u32,
    height: u32,
    blocked: Vec<u8>,
}

impl WalkGrid {
    pub fn open(width: u32, height: u32) -> Self {
        Self { width, height, blocked: vec![0; (width as usize * height as usize).div_ceil(8)] }
    }

    /// Width and height in squares.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// One bit per square, row by row, least significant bit first. 1 is blocked.
    pub fn bits(&self) -> &[u8] {
        &self.blocked
    }

    /// Blocks a square. Squares outside the grid are always blocked.
    pub fn block(&mut self, x: u32, y: u32) {
        if x < self.width && y < self.height {
            let at = y as usize * self.width as usize + x as usize;
            self.blocked[at / 8] |= 1 << (at % 8);
        }
    }

    /// Whether the square of this point (in mm) is blocked.
    pub fn is_blocked(&self, x_mm: i32, y_mm: i32) -> bool {
        let (Ok(x), Ok(y)) = (u32::try_from(x_mm), u32::try_from(y_mm)) else { return true };
        let (x, y) = (x / SQUARE_MM as u32, y / SQUARE_MM as u32);
        if x >= self.width || y >= self.height {
            return true;
        }
        let at = y as usize * self.width as usize + x as usize;
        self.blocked[at / 8] >> (at % 8) & 1 == 1
    }
}

/// The home of a creature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpawnPoint {
    /// Unique on the map, below 2^28.
    pub number: u32,
    pub template: u16,
    pub home: Point,
}

/// A map.
#[derive(Debug, Clone, Serialize)]
pub struct Map {
    pub name: &'static str,
    /// Width in cells.
    pub width: u16,
    pub height: u16,
    pub grid: WalkGrid,
    pub start: Point,
    pub spawns: Vec<SpawnPoint>,
}

impl Map {
    /// The first map: 1,024 m square. Roads lead from edge to edge through the start; boulders and ponds are
    /// elsewhere.
    pub fn meadow() -> Self {
        let mut random = Random::new(0x6d65_6164_6f77);
        let mut map = Self::open("meadow", 32, 32, Point::flat(500_000, 512_000));
        map.scatter_obstacles(&mut random);
        map.scatter_spawns(&mut random);
        map
    }

    /// A map without obstacles and creatures. The size is in cells.
    pub fn open(name: &'static str, width: u16, height: u16, start: Point) -> Self {
        let squares = |cells: u16| u32::from(cells) * (CELL_MM / SQUARE_MM) as u32;
        let grid = WalkGrid::open(squares(width), squares(height));
        Self { name, width, height, grid, start, spawns: Vec::new() }
    }

    pub fn width_mm(&self) -> i32 {
        i32::from(self.width) * CELL_MM
    }

    pub fn height_mm(&self) -> i32 {
        i32::from(self.height) * CELL_MM
    }

    /// Whether the map has a cell of these coordinates.
    pub fn contains(&self, cell: CellId) -> bool {
        cell.x < self.width && cell.y < self.height
    }

    /// The nearest open point on the map; the start if none is near.
    pub fn nearest_walkable(&self, at: Point) -> Point {
        let x = at.x_mm.clamp(0, self.width_mm() - 1);
        let y = at.y_mm.clamp(0, self.height_mm() - 1);
        let ring = |r: i32| {
            let near = [(r, 0), (-r, 0), (0, r), (0, -r), (r, r), (-r, r), (r, -r), (-r, -r)];
            near.into_iter().map(move |(dx, dy)| (x + dx * SQUARE_MM, y + dy * SQUARE_MM))
        };
        (0..8).flat_map(ring).find(|&(x, y)| !self.grid.is_blocked(x, y)).map_or(self.start, |(x, y)| Point {
            x_mm: x,
            y_mm: y,
            ..at
        })
    }

    fn scatter_obstacles(&mut self, random: &mut Random) {
        let (width, height) = self.grid.size();
        let (start_x, start_y) = (self.start.x_mm / SQUARE_MM, self.start.y_mm / SQUARE_MM);
        for _ in 0..(width * height / 600) {
            let (x, y) = (random.within(0, width - 1), random.within(0, height - 1));
            let (w, h) = (random.within(1, 4), random.within(1, 4));
            let far = |at: u32, size: u32, road: i32| {
                let (low, high) = (at as i32, (at + size) as i32);
                high < road - 4 || low > road + 4
            };
            let plaza = (x as i32 - start_x).abs() < 20 && (y as i32 - start_y).abs() < 20;
            if plaza || !far(x, w, start_x) || !far(y, h, start_y) {
                continue;
            }
            for (x, y) in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                self.grid.block(x, y);
            }
        }
    }

    /// Places rabbits around the start, boars and wolves farther out.
    fn scatter_spawns(&mut self, random: &mut Random) {
        let around = |random: &mut Random, center: i32| center - 60_000 + random.within(0, 120_000) as i32;
        for number in 1..=72u32 {
            let (template, at) = if number <= 24 {
                let (x, y) = (around(random, self.start.x_mm), around(random, self.start.y_mm));
                (RABBIT, Point::flat(x, y))
            } else {
                let x = random.within(10_000, self.width_mm() as u32 - 10_000) as i32;
                let y = random.within(10_000, self.height_mm() as u32 - 10_000) as i32;
                let template = [RABBIT, BOAR, WOLF][random.within(0, 2) as usize];
                (template, Point::flat(x, y))
            };
            let near_start = at.distance_squared(self.start) < 80_000u64.pow(2);
            let template = if near_start { RABBIT } else { template };
            let home = self.nearest_walkable(at);
            self.spawns.push(SpawnPoint { number, template, home });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meadow_is_deterministic_and_its_roads_are_open() {
        let (a, b) = (Map::meadow(), Map::meadow());
        assert_eq!((a.grid.bits(), &a.spawns), (b.grid.bits(), &b.spawns));
        assert!((0..a.width_mm()).step_by(1_000).all(|x| !a.grid.is_blocked(x, a.start.y_mm)));
        assert!((0..a.height_mm()).step_by(1_000).all(|y| !a.grid.is_blocked(a.start.x_mm, y)));
        assert!(a.grid.bits().iter().any(|&byte| byte != 0));
        assert!(a.spawns.iter().all(|spawn| !a.grid.is_blocked(spawn.home.x_mm, spawn.home.y_mm)));
    }

    #[test]
    fn outside_is_blocked_and_nearest_walkable_is_inside() {
        let mut map = Map::open("m", 1, 1, Point::flat(1_000, 1_000));
        map.grid.block(3, 3);
        assert!(map.grid.is_blocked(-1, 0) && map.grid.is_blocked(CELL_MM, 0));
        let mended = map.nearest_walkable(Point::flat(7_000, 7_000));
        assert!(!map.grid.is_blocked(mended.x_mm, mended.y_mm));
    }
}

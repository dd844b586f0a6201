//! Paths on the walk grid: A* over the eight neighbours of a square, then smoothing by line of sight.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use crate::{Point, Square, WalkGrid};

/// A path from one point to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Points to walk to, in order. A straight line connects each point with the one before.
    pub waypoints: Vec<Point>,
    /// False when there is no path, or the search reached its limit. The waypoints then lead to the closest square
    /// found.
    pub complete: bool,
}

/// Keeps the memory of a search for the next one, so that a path allocates almost nothing. It also counts the
/// searches.
#[derive(Debug)]
pub struct Pathfinder {
    max_searches: u32,
    searches: u32,
    visited: HashMap<Square, Visit>,
    open: BinaryHeap<Reverse<(u32, u32, Square)>>,
}

#[derive(Debug, Clone, Copy)]
struct Visit {
    cost: u32,
    from: Square,
    done: bool,
}

impl Pathfinder {
    /// The most squares that one search expands: a detour of about 60 squares in the open, in less than a
    /// millisecond.
    pub const BUDGET: usize = 4_000;

    /// Limits the number of searches, so that a batch of creatures takes a bounded time.
    pub fn new(max_searches: u32) -> Self {
        Self { max_searches, searches: 0, visited: HashMap::new(), open: BinaryHeap::new() }
    }

    /// Resets the count of searches.
    pub fn reset_searches(&mut self) {
        self.searches = 0;
    }

    /// Searches since the last reset.
    pub fn searches(&self) -> u32 {
        self.searches
    }

    /// A path from one point to another, or to the open square nearest to it. `None` when start or goal has no open
    /// square nearby, and when the limit of searches is reached.
    pub fn plan(&mut self, grid: &WalkGrid, from: Point, to: Point) -> Option<Plan> {
        if self.searches >= self.max_searches {
            return None;
        }
        self.searches += 1;
        let first = grid.nearest_open(from, 2)?;
        let last = grid.nearest_open(to, 2)?;
        let (reached, complete) = self.search(grid, first, last);
        let goal = if complete && grid.is_open_at(to) { to } else { grid.centre(reached) };
        let mut points = vec![goal];
        points.extend(self.back_from(reached).map(|square| grid.centre(square)));
        points.reverse();
        let start = if grid.is_open_at(from) { from } else { grid.centre(first) };
        let mut waypoints = smooth(grid, start, &points);
        if start != from {
            waypoints.insert(0, start);
        }
        Some(Plan { waypoints, complete })
    }

    /// The goal, or the visited square closest to it.
    fn search(&mut self, grid: &WalkGrid, first: Square, last: Square) -> (Square, bool) {
        self.visited.clear();
        self.open.clear();
        self.visited.insert(first, Visit { cost: 0, from: first, done: false });
        self.open.push(Reverse((estimate(first, last), 0, first)));
        let mut closest = (estimate(first, last), first);
        for _ in 0..Self::BUDGET {
            let Some(Reverse((_, cost, square))) = self.open.pop() else {
                break;
            };
            if square == last {
                return (last, true);
            }
            match self.visited.get_mut(&square) {
                Some(visit) if !visit.done && visit.cost == cost => visit.done = true,
                // The search has already followed a cheaper path to this square.
                _ => continue,
            }
            closest = closest.min((estimate(square, last), square));
            for (next, step) in grid.open_neighbours(square) {
                self.relax(next, cost + step, square, last);
            }
        }
        (closest.1, false)
    }

    fn relax(&mut self, square: Square, cost: u32, from: Square, last: Square) {
        if self.visited.get(&square).is_some_and(|known| known.cost <= cost) {
            return;
        }
        self.visited.insert(square, Visit { cost, from, done: false });
        self.open.push(Reverse((cost + estimate(square, last), cost, square)));
    }

    /// The squares from the end of a search to its start.
    fn back_from(&self, end: Square) -> impl Iterator<Item = Square> {
        std::iter::successors(Some(end), |square| {
            self.visited.get(square).map(|visit| visit.from).filter(|from| from != square)
        })
    }
}

impl Default for Pathfinder {
    /// Without a limit on the number of searches.
    fn default() -> Self {
        Self::new(u32::MAX)
    }
}

/// Octile distance in thousandths of a square. It never exceeds the real distance, so A* finds a shortest path.
fn estimate(from: Square, to: Square) -> u32 {
    let (dx, dy) = (u32::from(from.x.abs_diff(to.x)), u32::from(from.y.abs_diff(to.y)));
    1000 * dx.max(dy) + 414 * dx.min(dy)
}

/// Removes every point that a straight line can skip. `points` are steps between neighbouring squares; the first is
/// in the square of `start`.
fn smooth(grid: &WalkGrid, start: Point, points: &[Point]) -> Vec<Point> {
    let mut kept = Vec::new();
    let mut anchor = start;
    for pair in points.windows(2) {
        if !grid.line_is_open(anchor, pair[1]) {
            anchor = pair[0];
            kept.push(anchor);
        }
    }
    kept.extend(points.last());
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grid::tests::{drawn, metres};

    #[test]
    fn path_over_open_field_is_one_straight_line() {
        let grid = drawn(&["....", "....", "...."]);
        let plan = Pathfinder::default().plan(&grid, metres(0.2, 0.2), metres(3.8, 2.9)).unwrap();
        assert_eq!(plan, Plan { waypoints: vec![metres(3.8, 2.9)], complete: true });
    }

    #[test]
    fn path_leads_around_wall() {
        let grid = drawn(&[".#...", ".#.#.", "...#."]);
        let plan = Pathfinder::default().plan(&grid, metres(0.5, 0.5), metres(4.5, 2.5)).unwrap();
        assert!(plan.complete);
        assert!(plan.waypoints.len() > 2, "{plan:?}");
        assert_eq!(plan.waypoints.last(), Some(&metres(4.5, 2.5)));
    }

    #[test]
    fn path_to_unreachable_goal_ends_at_closest_square() {
        let grid = drawn(&["...#.", "...#.", "...#."]);
        let plan = Pathfinder::default().plan(&grid, metres(0.5, 0.5), metres(4.5, 0.5)).unwrap();
        assert!(!plan.complete);
        assert_eq!(plan.waypoints, [metres(2.5, 0.5)]);
    }

    #[test]
    fn path_from_blocked_square_starts_at_open_square() {
        let grid = drawn(&["#...", "...."]);
        let plan = Pathfinder::default().plan(&grid, metres(0.5, 0.5), metres(3.5, 0.5)).unwrap();
        assert!(grid.is_open_at(plan.waypoints[0]));
        assert_eq!(plan.waypoints.last(), Some(&metres(3.5, 0.5)));
    }

    fn any_grid() -> impl Strategy<Value = WalkGrid> {
        (1u32..24, 1u32..24).prop_flat_map(|(width, height)| {
            let bytes = (width * height).div_ceil(8) as usize;
            // The AND of two random bytes blocks about a quarter of the squares.
            let bits = prop::collection::vec((any::<u8>(), any::<u8>()).prop_map(|(a, b)| a & b), bytes);
            bits.prop_map(move |blocked| WalkGrid::new(700, width, height, blocked).unwrap())
        })
    }

    fn any_point() -> impl Strategy<Value = Point> {
        (-700i32..17_500, -700i32..17_500).prop_map(|(x, y)| Point::new(x, y))
    }

    proptest! {
        #[test]
        fn path_never_crosses_blocked_square(grid in any_grid(), from in any_point(), to in any_point()) {
            let Some(plan) = Pathfinder::default().plan(&grid, from, to) else { return Ok(()); };
            let mut at = if grid.is_open_at(from) { from } else { plan.waypoints[0] };
            for waypoint in &plan.waypoints {
                prop_assert!(grid.line_is_open(at, *waypoint), "{at:?} to {waypoint:?} of {plan:?}");
                at = *waypoint;
            }
        }

        #[test]
        fn open_line_has_only_open_points(grid in any_grid(), from in any_point(), to in any_point()) {
            if !grid.line_is_open(from, to) {
                return Ok(());
            }
            for step in 0..=200i64 {
                let part = |a: i32, b: i32| (i64::from(a) + (i64::from(b) - i64::from(a)) * step / 200) as i32;
                // Rounding to whole millimetres moves a point off the line, so the test allows a tolerance.
                let (x, y) = (part(from.x, to.x), part(from.y, to.y));
                let near = (-1..=1).any(|dx| (-1..=1).any(|dy| grid.is_open_at(Point::new(x + dx, y + dy))));
                prop_assert!(near);
            }
        }

        #[test]
        fn search_visits_a_bounded_number_of_squares(from in any_point(), to in any_point()) {
            let grid = WalkGrid::new(100, 400, 400, vec![0; 20_000]).unwrap();
            let mut finder = Pathfinder::default();
            let _ = finder.plan(&grid, from, to);
            prop_assert!(finder.visited.len() <= Pathfinder::BUDGET * 8 + 1);
        }
    }
}

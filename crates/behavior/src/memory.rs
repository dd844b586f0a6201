//! What a creature remembers from one interval to the next.

use std::collections::VecDeque;

use crate::{Pathfinder, Point, Random, WalkGrid};

/// Kept by the caller for each creature, from when somebody comes near until it is forgotten.
#[derive(Debug)]
pub struct Memory {
    pub(crate) random: Random,
    /// Beyond the leash it returns the whole way, not just to the leash's end.
    pub(crate) returning: bool,
    /// Milliseconds left to rest.
    pub(crate) resting: i32,
    /// On a stroll: a rest comes next.
    pub(crate) wandering: bool,
    path: VecDeque<Point>,
    goal: Point,
    /// Milliseconds since the path was planned.
    age: u32,
    last_at: Option<Point>,
    /// Milliseconds without getting anywhere.
    stuck: u32,
}

/// A waypoint is as good as reached from here, …
const NEAR_MM: i32 = 400;
/// … and certainly from here.
const REACHED_MM: i32 = 20;
/// A goal that has moved farther than this needs another path …
const GOAL_MOVED_MM: i32 = 1_500;
/// … but not more often than this.
const REPLAN_MS: u32 = 500;
/// Who has not moved for so long although it should gives up its path.
const STUCK_MS: u32 = 1_500;
const STUCK_MM: i32 = 100;

impl Memory {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            returning: false,
            resting: 0,
            wandering: false,
            path: VecDeque::new(),
            goal: Point::default(),
            age: 0,
            last_at: None,
            stuck: 0,
        }
    }

    /// Time passes: called once an interval, before anything is decided.
    pub(crate) fn advance_time(&mut self, at: Point, elapsed_ms: u32) {
        self.age = self.age.saturating_add(elapsed_ms);
        self.resting = self.resting.saturating_sub_unsigned(elapsed_ms).max(0);
        let moved = self.last_at.is_none_or(|before| !before.within(at, STUCK_MM));
        self.stuck = if moved || self.path.is_empty() { 0 } else { self.stuck.saturating_add(elapsed_ms) };
        self.last_at = Some(at);
        if self.stuck >= STUCK_MS {
            self.forget_path();
        }
    }

    pub(crate) fn forget_path(&mut self) {
        self.path.clear();
        self.stuck = 0;
    }

    /// Takes a straight line to `to` in place of a path.
    pub(crate) fn go_straight(&mut self, to: Point) {
        self.path.clear();
        self.path.push_back(to);
        self.goal = to;
        self.age = 0;
    }

    /// The next waypoint on the way to `goal`, planning anew when the goal has moved. `None` when there is no way,
    /// or the way has been walked.
    pub(crate) fn waypoint_toward(
        &mut self,
        goal: Point,
        at: Point,
        grid: &WalkGrid,
        finder: &mut Pathfinder,
    ) -> Option<Point> {
        let stale = !self.goal.within(goal, GOAL_MOVED_MM) && self.age >= REPLAN_MS;
        if self.path.is_empty() || stale {
            self.path = finder.plan(grid, at, goal)?.waypoints.into();
            self.goal = goal;
            self.age = 0;
        }
        self.next_waypoint(at, grid)
    }

    /// The next waypoint of the present path. One that is almost reached is left out as soon as the one behind it
    /// is in sight: no corner is cut.
    pub(crate) fn next_waypoint(&mut self, at: Point, grid: &WalkGrid) -> Option<Point> {
        while let Some(next) = self.path.front() {
            let behind = self.path.get(1);
            let passed =
                next.within(at, NEAR_MM) && behind.is_none_or(|behind| grid.line_is_open(at, *behind));
            if !passed && !next.within(at, REACHED_MM) {
                break;
            }
            self.path.pop_front();
        }
        self.path.front().copied()
    }
}

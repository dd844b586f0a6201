//! The memory of a creature between two decisions.

use std::collections::VecDeque;

use crate::{Pathfinder, Point, Random, WalkGrid};

/// The caller stores one for each creature, from the first perception until the creature is forgotten.
#[derive(Debug)]
pub struct Memory {
    pub(crate) random: Random,
    /// The creature left its leash and returns all the way home.
    pub(crate) returning: bool,
    /// Milliseconds left to rest.
    pub(crate) resting: i32,
    /// The creature is walking to a random point. A rest follows.
    pub(crate) wandering: bool,
    path: VecDeque<Point>,
    goal: Point,
    /// Milliseconds since the path was planned.
    age: u32,
    last_at: Option<Point>,
    /// Milliseconds without progress.
    stuck: u32,
}

/// From this distance, a waypoint counts as reached if the next one is in sight.
const NEAR_MM: i32 = 400;
/// From this distance, a waypoint always counts as reached.
const REACHED_MM: i32 = 20;
/// A goal that moved farther than this needs a new path.
const GOAL_MOVED_MM: i32 = 1_500;
/// The shortest time between two searches for the same creature.
const REPLAN_MS: u32 = 500;
/// A creature that makes no progress for this long gives up its path.
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

    /// Advances the clock of the memory. Called once per interval, before the decision.
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

    /// Replaces the path by a straight line to `to`.
    pub(crate) fn go_straight(&mut self, to: Point) {
        self.path.clear();
        self.path.push_back(to);
        self.goal = to;
        self.age = 0;
    }

    /// The next waypoint on the way to `goal`, with a new path if the goal has moved. `None` when there is no path,
    /// or the creature has reached its end.
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

    /// The next waypoint of the path. A waypoint that is almost reached is skipped when the one after it is in
    /// sight, so that the creature cuts no corner.
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

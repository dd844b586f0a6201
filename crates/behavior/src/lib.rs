//! Decisions and paths of creatures: given what a creature perceives and remembers, what does it do next? Pure:
//! elapsed time and the random seed are arguments, so the same inputs always lead to the same walk.
//!
//! The trees are our own three node types rather than a behaviour-tree library: a creature decides anew in every
//! interval, so one constant tree serves all creatures of a temper and only [`Memory`] is kept for each, where a
//! library's tree carries its running state and would be cloned into every creature.

mod action;
mod creature;
mod grid;
mod memory;
mod path;
mod profile;
mod random;
mod tree;

pub use creature::{Choice, Intent, Neighbour, Perception, think};
pub use grid::{GridError, Point, Square, WalkGrid};
pub use memory::Memory;
pub use path::{Pathfinder, Plan};
pub use profile::CreatureProfile;
pub use random::Random;
pub use tree::{Behaviour, Condition, Node};

//! Decides what a creature does next, and finds paths. The crate is pure: elapsed time and the random seed are arguments,
//! so the same inputs always give the same decisions.
//!
//! The trees use three node types instead of a behaviour-tree library. A creature decides anew in every interval, so one
//! constant tree serves all creatures of a temper, and each creature stores only its [`Memory`]. A library's tree holds
//! running state and would be cloned into every creature.

mod action;
mod creature;
mod decision;
mod grid;
mod memory;
mod path;
mod profile;
mod tree;

pub use creature::{Choice, think};
pub use decision::{Intent, Neighbour, Perception};
pub use grid::{GridError, Point, Square, WalkGrid};
pub use memory::Memory;
pub use path::{Pathfinder, Plan};
pub use profile::CreatureProfile;
pub use shardkeep_types::Random;
pub use tree::{Behaviour, Condition, Node};

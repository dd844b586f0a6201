//! The two groups of a cell.

/// A cell publishes to two groups: one at the full rate for near avatars, one at a slower rate for farther avatars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ring {
    Near,
    Outer,
}

//! The two groups of a cell.

use serde::{Deserialize, Serialize};

/// A cell publishes to two groups: one at the full rate for near avatars, one at a slower rate for farther avatars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ring {
    Near,
    Outer,
}

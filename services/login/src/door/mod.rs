//! The way in: accepting connections, the puzzle, the fair queue for exponentiations, and the rate limits.

pub(crate) mod accept;
pub(crate) mod drain;
pub(crate) mod limits;
pub(crate) mod puzzle;
pub(crate) mod queue;
pub(crate) mod slot;

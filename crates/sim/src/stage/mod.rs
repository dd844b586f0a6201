//! The stages of a tick, in the order movement, interest, combat, intents, encode. Each stage is one function `run`
//! over the whole simulation.

pub(crate) mod combat;
pub(crate) mod encode;
pub(crate) mod intents;
pub(crate) mod interest;
pub(crate) mod movement;

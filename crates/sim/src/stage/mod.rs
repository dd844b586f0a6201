//! The stages of a tick, in this order. Each is one function `run` over the whole simulation.

pub(crate) mod combat; // 4
pub(crate) mod encode;
pub(crate) mod inputs; // 1
pub(crate) mod intents; // 5
pub(crate) mod interest; // 3
pub(crate) mod movement; // 2 // 6

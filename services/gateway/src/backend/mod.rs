//! The backends: a link to each that the registry knows, and what they say.

mod items;
mod links;
mod opener;
mod world;

pub(crate) use links::{Links, follow};
pub(crate) use world::{Found, Worlds, opening, present_sessions};

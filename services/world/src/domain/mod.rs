//! The state and the decisions of a world, without clock, socket or task. Methods change the state that their module
//! owns, and return the effects that follow.

mod assignment;
pub(crate) mod effect;
pub(crate) mod layout;
pub(crate) mod leadership;
pub(crate) mod migration;
pub(crate) mod partition;
pub(crate) mod placements;
pub(crate) mod players;
pub(crate) mod population;
pub(crate) mod presence;
mod queue;
pub(crate) mod replies;
pub(crate) mod request;
pub(crate) mod sessions;
pub(crate) mod zone;
pub(crate) mod zones;

//! The state of a zone and the rules that change it. There is no socket, clock, task or gRPC type here: events come in
//! with the time, and effects go out.

pub(crate) mod bindings;
mod border;
pub(crate) mod command;
mod commit_queue;
pub(crate) mod effect;
pub(crate) mod handover;
mod lost_spawns;
pub(crate) mod mirror;
mod new_cells;
pub(crate) mod outbox;
pub(crate) mod partition;
pub(crate) mod payload;
mod players;
mod presence;
pub(crate) mod publish;
mod requests;
pub(crate) mod routes;
mod save_schedule;
pub(crate) mod space;
pub(crate) mod stage;
#[cfg(test)]
mod twin;
pub(crate) mod watchers;

pub use publish::encode;

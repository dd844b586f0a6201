//! The state of a zone and the rules that change it. There is no socket, clock, task or gRPC type here: events come in
//! with the time, and effects go out.

mod bindings;
mod border;
pub(crate) mod command;
mod commit_queue;
pub(crate) mod effect;
pub(crate) mod handover;
mod outbox;
pub(crate) mod partition;
pub(crate) mod payload;
mod players;
mod presence;
mod publish;
mod requests;
mod save_schedule;
pub(crate) mod space;
#[cfg(test)]
mod twin;
mod watchers;

pub use publish::encode;

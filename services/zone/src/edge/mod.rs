//! Everything that waits or uses a socket: calls of other daemons and to them, and streams.

mod ai_feed;
pub(crate) mod calls;
mod convert;
mod database;
pub(crate) mod executor;
pub(crate) mod grpc;
pub(crate) mod message;
mod neighbours;
pub(crate) mod streams;
pub(crate) mod switchboard;
mod transaction;

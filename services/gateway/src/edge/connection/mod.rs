//! The clients' side: connections are accepted within bounds, prove themselves, and carry a session.
//!
//! ```text
//! accept → preface → Attach or Resume → Confirm → session
//! ```
//!
//! Each connection is one task that owns its socket and keys. Each phase is a type that the next one consumes, so a wrong
//! order does not compile. Links and groups append to sessions behind a short lock; the connection's task is then woken
//! once and seals everything that is due into as few records as possible.

mod accept;
mod attach;
mod buffers;
mod claim;
mod datagrams;
mod handshake;
mod open;
mod resume;
mod serve;
mod throttle;
mod wire;

pub(crate) use accept::run;

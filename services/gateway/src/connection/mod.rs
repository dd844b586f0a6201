//! The clients' side: connections are accepted within bounds, prove themselves, and carry a session.
//!
//! ```text
//! accept → Fresh (lane, preface) → Attach or Resume → Confirming → Playing
//! ```
//!
//! Each connection is one task that owns its socket, keys and buffers; a phase is a type that the next consumes, so
//! nothing can be done out of order. Sessions are shared with links and groups behind a short lock: those append,
//! and the connection's task is woken once to seal everything that is due into as few records as it fits in.

mod accept;
mod attach;
mod buffers;
mod claim;
mod datagrams;
mod handshake;
mod resume;
mod serve;
mod throttle;
mod wire;

pub(crate) use accept::run;
pub(crate) use datagrams::Datagrams;

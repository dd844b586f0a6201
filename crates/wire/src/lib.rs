//! The client protocol: preface, records, messages, sealing and the session log. This crate is pure: bytes and time
//! are arguments, bytes and decisions are results. `docs/protocol.md` specifies the same protocol for readers.
//!
//! ```text
//! socket bytes → record::Decoder → seal::Opener → message::split → opcode::check → limit::Limiter
//! message → session::Outbox → record::Writer → seal::Sealer → socket bytes
//! ```

pub mod cursor;
pub mod datagram;
pub mod error;
pub mod fuzz;
pub mod lane_address;
pub mod limit;
pub mod message;
pub mod movement;
pub mod opcode;
pub mod payload;
pub mod preface;
pub mod proxy;
pub mod range;
pub mod record;
pub mod seal;
pub mod session;
pub mod varint;

pub use error::{Fault, WireError};
pub use message::{Head, Kind, Message};
pub use record::Side;

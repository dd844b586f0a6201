//! One client's connection at a login or update server: records in and out, plain or sealed, and the opcode table.
//! Gateways have their own connection, because a session outlives its socket there.

mod connection;
mod error;

pub use connection::Connection;
pub use error::{ConnectionError, Fault};

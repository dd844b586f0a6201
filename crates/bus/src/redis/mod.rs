//! The bus over Redis.

mod address;
mod backoff;
mod inspect;
mod reader;
mod transport;
mod writer;

pub use inspect::inspect;
pub(crate) use transport::RedisBus;
pub use writer::{MAX_AGE, OUTGOING_QUEUE};

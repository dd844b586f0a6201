//! One database on either engine: how a daemon opens it, runs statements on it, and learns that it is unavailable.

mod handle;
mod health;
mod identity;
mod inspect;
mod migrate;
mod monitor;
mod open_with_retry;
mod postgres;
mod sqlite;

pub use handle::{Database, Tx};
pub(crate) use inspect::read_once;
pub use inspect::{Inspection, inspect};
pub use migrate::Schema;

//! The databases of the cluster: SQLite inside one process, PostgreSQL for several replicas. Statements and
//! migrations are written once for both. Each owning daemon has a [`Schema`] and a module of plain async functions.
//!
//! To add tables for a daemon, write `migrations/<schema>/0001_<name>.sql` (types BIGINT, TEXT, BYTEA; no SERIAL, no
//! dialect of one engine), name the file in `Schema::files`, and write a module beside [`game`] with statements built
//! by [`sql()`]:
//!
//! ```no_run
//! # async fn example() -> Result<(), shardkeep_store::Error> {
//! use shardkeep_store::{Database, Schema, sql};
//!
//! let database = Database::open("sqlite:var/billing.db", Schema::Billing).await?;
//! let mut tx = database.begin().await?;
//! let row = tx.fetch_optional(sql("SELECT left_ms FROM plans WHERE account = $1 {for_update}").bind(7u64)).await?;
//! let left: Option<u64> = row.map(|mut row| row.take()).transpose()?;
//! tx.commit().await?;
//! # drop(left); Ok(()) }
//! ```

mod account_ids;
pub mod accounts;
pub mod audit;
pub mod billing;
pub mod central;
mod database;
mod error;
pub mod game;
pub mod mutes;
pub mod operators;
mod retry;
mod row;
mod setting;
mod sql;

pub use database::{Database, Inspection, Schema, Tx, inspect};
pub use error::Error;
pub use retry::Retry;
pub use row::{FromColumn, Row};
pub use setting::{check_store, store_url};
pub use sql::{Arg, Query, Rows, sql};

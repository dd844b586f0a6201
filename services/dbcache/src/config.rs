//! The section `[dbcache]` of the settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};
use shardkeep_store::check_store;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite:<path>` (one replica) or `postgres://…` (any number). Default: `sqlite:<data_dir>/dbcache.db`.
    pub store: String,
    /// Characters whose items and coins are cached.
    pub cache: usize,
    /// How often soft state is written.
    #[serde(with = "duration")]
    pub write_behind: Duration,
    /// Soft states that may wait. Overflow: states of further characters are dropped and counted.
    pub soft_queue: usize,
    /// How long a call repeats its attempt while the database does not answer. Then the call fails with UNAVAILABLE.
    #[serde(with = "duration")]
    pub database_timeout: Duration,
    /// The most hard actions in one transaction.
    pub batch: usize,
    /// Hard actions that may wait for a transaction. Overflow: the call fails with RESOURCE_EXHAUSTED.
    pub hard_queue: usize,
    /// Concurrent transactions of hard actions. 0 selects one on SQLite, which has one writer, and two on PostgreSQL.
    pub writers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: String::new(),
            cache: 100_000,
            write_behind: Duration::from_secs(2),
            soft_queue: 100_000,
            database_timeout: Duration::from_millis(2_500),
            batch: 256,
            hard_queue: 8_192,
            writers: 0,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        check_store(&self.store)?;
        if self.write_behind < Duration::from_millis(10) || self.write_behind > Duration::from_secs(5) {
            return Err("write_behind: must be 10ms to 5s: a crash may lose this much".into());
        }
        if self.database_timeout < Duration::from_millis(100)
            || self.database_timeout > Duration::from_secs(60)
        {
            return Err("database_timeout: must be 100ms to 60s".into());
        }
        let sizes = [("soft_queue", self.soft_queue), ("batch", self.batch), ("hard_queue", self.hard_queue)];
        if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(format!("{key}: must be at least 1"));
        }
        Ok(())
    }
}

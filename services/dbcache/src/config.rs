//! `[dbcache]`

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite:<path>` (one replica) or `postgres://…` (any number). Default: `sqlite:<data_dir>/dbcache.db`.
    pub store: String,
    /// Characters whose holdings are remembered.
    pub cache: usize,
    /// How long soft state may wait before it is written.
    #[serde(with = "duration")]
    pub write_behind: Duration,
    /// Characters whose soft state may wait. Beyond it that of further characters is dropped, and counted.
    pub soft_queue: usize,
    /// How long a call goes on trying while the database is away, before it answers UNAVAILABLE.
    #[serde(with = "duration")]
    pub database_timeout: Duration,
    /// Hard actions in one transaction, at most.
    pub batch: usize,
    /// Hard actions that may wait for a transaction. Beyond it calls are answered RESOURCE_EXHAUSTED.
    pub hard_queue: usize,
    /// Transactions of hard actions at a time; 0: one on SQLite, which has one writer, two on PostgreSQL.
    pub lanes: usize,
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
            lanes: 0,
        }
    }
}

impl Config {
    pub(crate) fn store_url(&self, data_dir: &Path) -> String {
        match self.store.as_str() {
            "" | "sqlite" => format!("sqlite:{}", data_dir.join("dbcache.db").display()),
            url => url.to_owned(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if !matches!(self.store.as_str(), "" | "sqlite")
            && !known.iter().any(|kind| self.store.starts_with(kind))
        {
            return Err("store: must be sqlite:<path> or postgres://…".into());
        }
        if self.write_behind < Duration::from_millis(10) || self.write_behind > Duration::from_secs(5) {
            return Err("write_behind: must be 10ms to 5s: so much may be lost in a crash".into());
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

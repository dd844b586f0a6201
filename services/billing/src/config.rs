//! `[billing]` of the settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};
use shardkeep_store::check_store;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite:<path>` (one replica) or `postgres://…` (any number). Default: `sqlite:<data_dir>/billing.db`.
    pub store: String,
    /// How often the daemon checks prepaid accounts that are playing.
    #[serde(with = "duration")]
    pub check_interval: Duration,
    /// A session without a report for this time does not count as playing. Must be longer than the gateways'
    /// `billing_interval`.
    #[serde(with = "duration")]
    pub report_timeout: Duration,
    /// The longest wait of a call for the database.
    #[serde(with = "duration")]
    pub database_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: String::new(),
            check_interval: Duration::from_secs(1),
            report_timeout: Duration::from_secs(90),
            database_timeout: Duration::from_secs(4),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        check_store(&self.store)?;
        if self.check_interval < Duration::from_millis(50) || self.check_interval > Duration::from_secs(60) {
            return Err("check_interval: must be 50ms to 60s".into());
        }
        if self.report_timeout < Duration::from_secs(10) || self.report_timeout > Duration::from_secs(3600) {
            return Err("report_timeout: must be 10s to 1h".into());
        }
        if self.database_timeout < Duration::from_millis(100)
            || self.database_timeout > Duration::from_secs(60)
        {
            return Err("database_timeout: must be 100ms to 60s".into());
        }
        Ok(())
    }
}

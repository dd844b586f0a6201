//! `[billing]` of the settings.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};

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

impl Config {
    pub(crate) fn store_url(&self, data_dir: &Path) -> String {
        match self.store.as_str() {
            "" | "sqlite" => format!("sqlite:{}", data_dir.join("billing.db").display()),
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

//! `[logs]` of the settings.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the daily files, inside the daemon's data folder.
    pub folder: PathBuf,
    /// Days kept, today included; older files are removed.
    pub retention_days: u32,
    /// Records waiting to be written; more are dropped and counted, and the sender is told.
    pub queue: usize,
    /// How long records may be gathered before they are written.
    #[serde(with = "shardkeep_daemon::duration")]
    pub flush: Duration,
    /// Most rows a query may return.
    pub query_rows: u32,
    /// How long a query may run.
    #[serde(with = "shardkeep_daemon::duration")]
    pub query_time: Duration,
    /// Queries at once; more are refused.
    pub queries: usize,
    /// OTLP/gRPC collector outside of the cluster that gets everything too: `http://host:port`. Empty: none.
    pub forward: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: "days".into(),
            retention_days: 14,
            queue: 65_536,
            flush: Duration::from_millis(200),
            query_rows: 10_000,
            query_time: Duration::from_secs(10),
            queries: 4,
            forward: String::new(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        match self {
            Self { retention_days: 0, .. } => Err("retention_days: must be at least 1".into()),
            Self { queue: 0, .. } => Err("queue: must be at least 1".into()),
            Self { query_rows: 0, .. } => Err("query_rows: must be at least 1".into()),
            Self { queries: 0, .. } => Err("queries: must be at least 1".into()),
            Self { forward, .. } if !forward.is_empty() && !forward.starts_with("http://") => {
                Err(format!("forward: {forward:?} is not http://host:port"))
            }
            _ => Ok(()),
        }
    }
}

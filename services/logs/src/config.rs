//! `[logs]` of the settings.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

/// Smallest limit of the files: an empty day and a few batches.
const MIN_BYTES: u64 = 16 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the daily files, inside the daemon's data folder.
    pub folder: PathBuf,
    /// Days kept, today included; older files are removed.
    pub retention_days: u32,
    /// Bytes that all files may take. Beyond them the oldest day goes first, then the oldest records of today.
    pub max_bytes: u64,
    /// Records that wait to be written. Further records are dropped and counted, and the sender is told.
    pub queue: usize,
    /// How long records wait for others, to be written together.
    #[serde(with = "shardkeep_daemon::duration")]
    pub flush: Duration,
    /// Most rows a query may return.
    pub query_rows: u32,
    /// How long a query may run.
    #[serde(with = "shardkeep_daemon::duration")]
    pub query_time: Duration,
    /// Queries at once; more are refused.
    pub queries: usize,
    /// OTLP/gRPC collector outside the cluster that gets all records too: `http://host:port`. Empty: none.
    pub forward: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: "days".into(),
            retention_days: 14,
            max_bytes: 10 << 30,
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
            Self { max_bytes: 0..MIN_BYTES, .. } => {
                Err(format!("max_bytes: must be at least {MIN_BYTES} (16 MiB)"))
            }
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

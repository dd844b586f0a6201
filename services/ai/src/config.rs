//! The section `[ai]` of the settings.

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most concurrent streams. A zone opens one for each of its spaces. More are refused, and the zone asks another
    /// replica.
    pub max_streams: usize,
    /// The most creatures remembered per stream. A batch with more is refused.
    pub max_creatures: usize,
    /// The most path searches per batch. Other creatures get their path in a later batch.
    pub paths_per_batch: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_streams: 1_024, max_creatures: 20_000, paths_per_batch: 128 }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        match self {
            Self { max_streams: 0, .. } => Err("max_streams: must be at least 1".into()),
            Self { max_creatures: 0, .. } => Err("max_creatures: must be at least 1".into()),
            Self { paths_per_batch: 0, .. } => Err("paths_per_batch: must be at least 1".into()),
            _ => Ok(()),
        }
    }
}

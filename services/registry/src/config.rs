//! `[registry]`

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

/// Bounds of the registry's memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Instances in the table, including offline ones. A new instance replaces the one that has been offline longest. If
    /// none is offline, it is refused.
    pub max_instances: usize,
    /// Changes that wait for one watcher. The stream of a slower watcher ends, and it starts again.
    pub watch_queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_instances: 10_000, watch_queue: 1024 }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.max_instances == 0 {
            return Err("max_instances: must be at least 1".into());
        }
        if self.watch_queue == 0 {
            return Err("watch_queue: must be at least 1".into());
        }
        Ok(())
    }
}

//! `[registry]`

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

/// Bounds of the registry's memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Instances it remembers, offline ones included. For a further one that which has been offline longest is forgotten;
    /// where none is, it is refused.
    pub max_instances: usize,
    /// Changes that wait for one watcher; a slower watcher is cut and has to begin anew.
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

//! The section `[zone]` of the settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};
use shardkeep_journal::Policy;

/// The smallest limit of the journal: a few chunks.
const MIN_JOURNAL_BYTES: u64 = 16 << 20;
/// The longest time that one chunk of the journal covers.
const CHUNK_MS: u64 = 300_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The most avatars in this zone. The load in the registry is relative to it.
    pub max_avatars: usize,
    /// How often changed positions and health are saved in the database.
    #[serde(with = "duration")]
    pub save_interval: Duration,
    /// How often the AI gets the perceptions of creatures near an avatar.
    #[serde(with = "duration")]
    pub think_interval: Duration,
    /// How long an avatar without a gateway stays before it is saved and released.
    #[serde(with = "duration")]
    pub abandoned_after: Duration,
    /// How long a draining zone keeps its avatars, so that the world can give its sectors and avatars to another
    /// zone. Then it saves and releases them. Must be less than the grace time.
    #[serde(with = "duration")]
    pub handover_patience: Duration,
    /// Threads on which spaces tick, besides the threads of the network. 0: one for each core.
    pub threads: usize,
    /// Seed of the simulation's random numbers. 0 uses the start time.
    pub seed: u64,
    pub journal: JournalConfig,
}

/// The section `[zone.journal]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Whether the inputs of all simulations are recorded, for `shardkeep replay`.
    pub enabled: bool,
    /// The most bytes of all chunk files. The oldest chunks are removed.
    pub max_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { enabled: true, max_bytes: 256 << 20 }
    }
}

impl JournalConfig {
    /// Chunks are small beside the limit, so that removing one loses little.
    pub(crate) fn policy(&self) -> Policy {
        Policy { chunk_bytes: (self.max_bytes / 64).clamp(256 << 10, 8 << 20), chunk_ms: CHUNK_MS }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_avatars: 4_000,
            save_interval: Duration::from_secs(3),
            think_interval: Duration::from_millis(250),
            abandoned_after: Duration::from_secs(180),
            handover_patience: Duration::from_secs(4),
            threads: 0,
            seed: 0,
            journal: JournalConfig::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.max_avatars == 0 {
            return Err("max_avatars: must be at least 1".into());
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(5)).contains(&self.save_interval) {
            return Err(
                "save_interval: must be 50ms to 5s, or a crash would lose more than was promised".into()
            );
        }
        if !(Duration::from_millis(50)..=Duration::from_secs(2)).contains(&self.think_interval) {
            return Err("think_interval: must be 50ms to 2s, or creatures forget what they wanted".into());
        }
        if self.abandoned_after < Duration::from_secs(10) {
            return Err("abandoned_after: must be at least 10s, or a lost gateway costs sessions".into());
        }
        if self.threads > 1_024 {
            return Err("threads: must be at most 1024".into());
        }
        if self.journal.max_bytes < MIN_JOURNAL_BYTES {
            return Err(format!("journal.max_bytes: must be at least {MIN_JOURNAL_BYTES} (16 MiB)"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_config_is_valid_and_errors_name_the_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        let slow = Config { save_interval: Duration::from_secs(60), ..Config::default() };
        assert!(slow.validate().unwrap_err().starts_with("save_interval"));
        let small = JournalConfig { max_bytes: 1, ..JournalConfig::default() };
        let small = Config { journal: small, ..Config::default() };
        assert!(small.validate().unwrap_err().starts_with("journal.max_bytes"));
    }
}

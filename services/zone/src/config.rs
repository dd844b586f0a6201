//! `[zone]` of the settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most avatars this zone takes in; the registry's load is measured against it.
    pub max_avatars: usize,
    /// How often changed positions and health go to the database.
    #[serde(with = "duration")]
    pub save_interval: Duration,
    /// How often creatures that somebody is near are shown to the AI.
    #[serde(with = "duration")]
    pub think_interval: Duration,
    /// How long an avatar stands without any gateway speaking for its session before it is saved and let go.
    #[serde(with = "duration")]
    pub abandoned_after: Duration,
    /// How long a draining zone leaves its avatars where they are, for the world to give its sectors (and with them
    /// the avatars) to another zone. Then they are saved and let go. Must be less than the grace time.
    #[serde(with = "duration")]
    pub handover_patience: Duration,
    /// Seed of the simulation's dice; 0 takes the start time.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_avatars: 4_000,
            save_interval: Duration::from_secs(3),
            think_interval: Duration::from_millis(250),
            abandoned_after: Duration::from_secs(180),
            handover_patience: Duration::from_secs(4),
            seed: 0,
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
    }
}

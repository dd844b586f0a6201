//! The `[chat]` section of the settings: the chat of one world.

use serde::{Deserialize, Serialize};
use shardkeep_bus::Bus;
use shardkeep_daemon::Validate;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChatConfig {
    /// Connects the replicas: `memory:` for a single one, `redis://host:port`, or `rediss://host:port` for TLS.
    pub bus: String,
    /// Lines per second that a session may send.
    pub rate: u32,
    /// Lines that a session may send at once after a pause.
    pub burst: u32,
    /// Lines kept for moderators.
    pub history: u32,
}

impl Default for ChatConfig {
    fn default() -> Self {
        Self { bus: "memory:".into(), rate: 2, burst: 8, history: 1000 }
    }
}

impl Validate for ChatConfig {
    fn validate(&self) -> Result<(), String> {
        if Bus::is_shared(&self.bus) && !["redis://", "rediss://"].iter().any(|it| self.bus.starts_with(it)) {
            return Err("bus: must be \"memory:\", \"redis://host:port\" or \"rediss://host:port\"".into());
        }
        let within = |key: &str, value: u32, max: u32| {
            if (1..=max).contains(&value) { Ok(()) } else { Err(format!("{key}: must be 1 to {max}")) }
        };
        within("rate", self.rate, 1000)?;
        within("burst", self.burst, 1000)?;
        within("history", self.history, 100_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_config_is_valid_and_errors_name_the_key() {
        assert_eq!(ChatConfig::default().validate(), Ok(()));
        let wrong = ChatConfig { bus: "kafka://x".into(), ..ChatConfig::default() };
        assert!(wrong.validate().unwrap_err().starts_with("bus:"));
        let wrong = ChatConfig { rate: 0, ..ChatConfig::default() };
        assert_eq!(wrong.validate().unwrap_err(), "rate: must be 1 to 1000");
    }
}

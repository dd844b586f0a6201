//! `[world]`: the settings of one game world.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};
use shardkeep_names::is_valid_entry;
use shardkeep_sim::Map;

use crate::domain::layout::Layout;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldConfig {
    /// Name in the players' world list.
    pub name: String,
    /// Avatars at the same time; further sessions wait in the queue.
    pub capacity: u32,
    /// Characters per account.
    pub characters: u32,
    /// Duration of the leadership without renewal. A standby replaces a dead world at most this long after its death.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How long a session waits for its lost gateway or client.
    #[serde(with = "duration")]
    pub link_loss: Duration,
    /// Number of sectors, side by side, in the first layout of a new world. Operators change it afterwards.
    pub sectors: u16,
    /// Tick rate of space 1 in the first layout of a new world; clients are told.
    pub tick_hz: u32,
    /// Sectors with avatars that may move between living zones at the same time; further ones wait.
    pub max_migrations: usize,
    /// Copper coins a new character begins with.
    pub starter_coins: u32,
    /// Names that characters may not have. Names that look alike count as equal; `*` at the end also reserves every longer
    /// name.
    pub reserved_names: Vec<String>,
}

/// Names that could make players believe that an operator speaks.
const RESERVED_NAMES: [&str; 12] = [
    "admin*",
    "developer*",
    "gamemaster*",
    "moderator*",
    "official*",
    "operator*",
    "owner",
    "server",
    "shardkeep*",
    "staff*",
    "support*",
    "system",
];

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            name: "Meadow".into(),
            capacity: 1000,
            characters: 8,
            lease: Duration::from_secs(4),
            link_loss: Duration::from_secs(60),
            sectors: 2,
            tick_hz: 20,
            max_migrations: 4,
            starter_coins: 100,
            reserved_names: RESERVED_NAMES.map(str::to_owned).to_vec(),
        }
    }
}

impl Validate for WorldConfig {
    fn validate(&self) -> Result<(), String> {
        let within = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key}: must be {least} to {most}"))
            }
        };
        if self.name.is_empty() || self.name.chars().count() > 32 {
            return Err("name: must be 1 to 32 characters".into());
        }
        within("capacity", self.capacity, 1, 1_000_000)?;
        within("characters", self.characters, 1, 100)?;
        within("sectors", self.sectors.into(), 1, Map::meadow().width.into())?;
        within("tick_hz", self.tick_hz, 10, 60)?;
        within("max_migrations", u32::try_from(self.max_migrations).unwrap_or(u32::MAX), 1, 1_000)?;
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.lease) {
            return Err("lease: must be 1s to 60s".into());
        }
        if self.link_loss > Duration::from_secs(3600) {
            return Err("link_loss: must be at most 1h".into());
        }
        if let Some(entry) = self.reserved_names.iter().find(|entry| !is_valid_entry(entry)) {
            return Err(format!(
                "reserved_names: {entry:?} is not a name; write a name, or the beginning of names and one `*`"
            ));
        }
        Ok(())
    }
}

/// Width and height of a map in cells. `None`: there is no such map.
pub(crate) fn map_size(map: &str) -> Option<(u16, u16)> {
    Map::named(map).map(|map| (map.width, map.height))
}

impl WorldConfig {
    /// The layout of a world that has none yet: space 1.
    pub(crate) fn first_layout(&self) -> Layout {
        let map = Map::meadow();
        Layout::first(map.name, self.tick_hz, map.width, map.height, self.sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_config_is_valid_and_errors_name_the_key() {
        assert_eq!(WorldConfig::default().validate(), Ok(()));
        let wrong = WorldConfig { sectors: 33, ..WorldConfig::default() };
        assert_eq!(wrong.validate().unwrap_err(), "sectors: must be 1 to 32");
        let wrong = WorldConfig { lease: Duration::ZERO, ..WorldConfig::default() };
        assert!(wrong.validate().unwrap_err().starts_with("lease"));
        let wrong = WorldConfig { reserved_names: vec!["*".into()], ..WorldConfig::default() };
        assert!(wrong.validate().unwrap_err().starts_with("reserved_names: \"*\""));
    }
}

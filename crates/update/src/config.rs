//! `[login.patches]` of the settings.

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;
use shardkeep_patch::PublicKey;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder that `shardkeep patch build` and `sign` filled. Empty: this server has no patches.
    pub dir: String,
    /// Public key. Only a manifest with its signature is published, so that this server notices a wrong upload before
    /// the players do. Empty: any key.
    pub key: String,
    /// Bytes per second for all clients together; 0: no limit.
    pub bandwidth: u64,
    /// Bytes per second for one connection; 0: no limit.
    pub bandwidth_per_connection: u64,
    /// Connections at once, besides those of players. When all are in use, a new connection replaces one of an address
    /// prefix (/24, /56) that has more connections than its own, or it is told UNAVAILABLE.
    pub max_connections: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub max_connections_per_address: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: String::new(),
            key: String::new(),
            bandwidth: 64 << 20,
            bandwidth_per_connection: 8 << 20,
            max_connections: 2_048,
            max_connections_per_address: 64,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if !self.key.is_empty() && self.key.parse::<PublicKey>().is_err() {
            return Err(
                "patches.key: must be 64 hexadecimal digits, as `shardkeep patch keygen` prints".into()
            );
        }
        for (name, bandwidth) in
            [("bandwidth", self.bandwidth), ("bandwidth_per_connection", self.bandwidth_per_connection)]
        {
            if (1..1 << 16).contains(&bandwidth) {
                return Err(format!(
                    "patches.{name}: must be 0 (no limit) or at least 65536 bytes per second"
                ));
            }
        }
        if self.max_connections == 0 || self.max_connections_per_address == 0 {
            return Err("patches.max_connections: must be at least 1, also per address".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_error_names_the_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert!(wrong(|config| config.key = "secret".into()).starts_with("patches.key: "));
        assert!(wrong(|config| config.bandwidth = 100).starts_with("patches.bandwidth: "));
        assert!(wrong(|config| config.max_connections = 0).starts_with("patches.max_connections: "));
    }
}

//! `[login.central]` of the settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Validate, duration};

/// One account for each player over several regions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this region. Empty: there is no centre, and the accounts belong to this cluster alone.
    pub region: String,
    /// In the home region: the centre's store, `sqlite:<path>` (one login replica) or `postgres://…` (any number of
    /// replicas). This daemon then serves the centre to all regions.
    pub store: String,
    /// In the home region, for a game that had one region before: the accounts of the region's store become accounts of
    /// the centre at the start.
    pub adopt: bool,
    /// In all other regions: the gRPC addresses (`host:port`) of the home region's login servers.
    pub servers: Vec<String>,
    /// How long every `Hello` takes, whichever account it names. The centre has this time to answer for accounts that are
    /// not active in this region.
    #[serde(with = "duration")]
    pub wait: Duration,
    /// Concurrent look-ups of names at the centre. Further names are treated as unknown.
    pub lookups: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: String::new(),
            store: String::new(),
            adopt: false,
            servers: Vec::new(),
            wait: Duration::from_millis(250),
            lookups: 256,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.region.len() > 63 || !self.region.chars().all(plain) {
            return Err("central: region must be at most 63 lower-case letters, digits and `-`".into());
        }
        match (self.region.is_empty(), self.store.is_empty(), self.servers.is_empty()) {
            (true, true, true) | (false, false, true) | (false, true, false) => {}
            (true, ..) => {
                return Err("central: store and servers need the name of this region (region)".into());
            }
            (false, true, true) => {
                return Err(
                    "central: region needs `servers`, the home region's login servers, or in the home region \
                            `store`"
                        .into(),
                );
            }
            (false, false, false) => {
                return Err(
                    "central: the home region has `store`, and all others have `servers`; not both".into()
                );
            }
        }
        if self.adopt && self.store.is_empty() {
            return Err("central: adopt is for the home region, which has `store`".into());
        }
        for address in &self.servers {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
            if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
                return Err(format!("central: servers has {address:?}, which is not host:port"));
            }
        }
        if self.wait < Duration::from_millis(10) || self.wait > Duration::from_secs(5) {
            return Err("central: wait must be 10ms to 5s".into());
        }
        if self.lookups == 0 || self.lookups > Config::MOST_LOOKUPS {
            return Err(format!("central: lookups must be 1 to {}", Config::MOST_LOOKUPS));
        }
        Ok(())
    }
}

impl Config {
    const MOST_LOOKUPS: usize = 65_536;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(region: &str, store: &str, servers: &[&str]) -> Config {
        let servers = servers.iter().map(ToString::to_string).collect();
        Config { region: region.into(), store: store.into(), servers, ..Config::default() }
    }

    #[test]
    fn central_config_needs_store_or_home_servers() {
        for good in [
            Config::default(),
            config("eu", "sqlite:central.db", &[]),
            config("us-2", "", &["login-1.eu.example.org:7001", "[2001:db8::1]:7001"]),
        ] {
            assert_eq!(good.validate(), Ok(()));
        }
        for (bad, reason) in [
            (config("", "sqlite:central.db", &[]), "need the name"),
            (config("", "", &["a:1"]), "need the name"),
            (config("eu", "", &[]), "needs `servers`"),
            (config("eu", "sqlite:x", &["a:1"]), "not both"),
            (config("Eu", "sqlite:x", &[]), "lower-case"),
            (config("us", "", &["https://a:1"]), "host:port"),
            (config("us", "", &["a"]), "host:port"),
            (Config { adopt: true, ..config("us", "", &["a:1"]) }, "home region"),
            (Config { wait: Duration::ZERO, ..Config::default() }, "wait"),
            (Config { lookups: 0, ..Config::default() }, "lookups"),
        ] {
            let error = bad.validate().unwrap_err();
            assert!(error.starts_with("central: ") && error.contains(reason), "{error}");
        }
    }
}

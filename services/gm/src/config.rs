//! The section `[gm]` of the settings.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;
use shardkeep_store::check_store;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the web console. Port 0 takes a free port. The console speaks plain HTTP. Put a proxy that
    /// terminates TLS in front of it if other machines must reach it.
    pub web: String,
    /// Public address of the console if it differs from `web`, such as `https://console.example.org`.
    pub url: String,
    /// Set this if browsers reach the console only through a proxy that terminates TLS and sets X-Forwarded-For.
    /// Cookies are then `Secure`, and the last address in that header is the client's.
    pub behind_tls_proxy: bool,
    /// `sqlite:<path>` or `postgres://…`. Default: `gm.db` in the data folder of the daemon.
    pub store: String,
    /// A session that is unused for this long ends.
    #[serde(with = "shardkeep_daemon::duration")]
    pub idle: Duration,
    /// A session ends after this time in any case.
    #[serde(with = "shardkeep_daemon::duration")]
    pub session_lifetime: Duration,
    /// Lifetime of a one-time link.
    #[serde(with = "shardkeep_daemon::duration")]
    pub link: Duration,
    /// Time between two pictures of the live map.
    #[serde(with = "shardkeep_daemon::duration")]
    pub map_interval: Duration,
    /// Browsers that may show the live map at the same time.
    pub map_viewers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            web: "127.0.0.1:0".into(),
            url: String::new(),
            behind_tls_proxy: false,
            store: String::new(),
            idle: Duration::from_secs(30 * 60),
            session_lifetime: Duration::from_secs(12 * 3600),
            link: Duration::from_secs(15 * 60),
            map_interval: Duration::from_millis(250),
            map_viewers: 32,
        }
    }
}

impl Config {
    /// The public address, without a trailing slash.
    pub(crate) fn public_url(&self, bound: SocketAddr) -> String {
        if self.url.is_empty() {
            format!("http://{bound}")
        } else {
            self.url.trim_end_matches('/').to_owned()
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        check_store(&self.store)?;
        let minute = Duration::from_secs(60);
        if self.web.parse::<SocketAddr>().is_err() {
            return Err(format!(
                "web: {:?} is not an IP address with a port, such as 127.0.0.1:8080",
                self.web
            ));
        }
        if !self.url.is_empty() && !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err("url: must begin with http:// or https://".into());
        }
        if self.idle < minute || self.session_lifetime < self.idle {
            return Err("idle: must be at least 1m and at most `session_lifetime`".into());
        }
        if self.map_interval < Duration::from_millis(50) {
            return Err("map_interval: must be at least 50ms".into());
        }
        Ok(())
    }
}

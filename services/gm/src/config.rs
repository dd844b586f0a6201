//! `[gm]` of the settings.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address the web console listens on. Port 0 takes a free one. It speaks plain HTTP: put a proxy that ends TLS
    /// before it when it must be reached from elsewhere.
    pub web: String,
    /// Address operators type, where it differs from `web`: `https://console.example.org`.
    pub url: String,
    /// The console is reached only through a proxy that ends TLS and sets X-Forwarded-For: cookies are Secure, and the
    /// last address of that header counts as the client's.
    pub behind_tls_proxy: bool,
    /// `sqlite:<path>` or `postgres://…`. Default: `gm.db` in the daemon's data folder.
    pub store: String,
    /// A session ends when it has not been used for so long …
    #[serde(with = "shardkeep_daemon::duration")]
    pub idle: Duration,
    /// … and in any case after so long.
    #[serde(with = "shardkeep_daemon::duration")]
    pub session_lifetime: Duration,
    /// How long a one-time sign-in link works.
    #[serde(with = "shardkeep_daemon::duration")]
    pub link: Duration,
    /// Time between two pictures of the live map.
    #[serde(with = "shardkeep_daemon::duration")]
    pub map_interval: Duration,
    /// Browsers that may watch the live map at once.
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
    pub(crate) fn store_url(&self, data_dir: &Path) -> String {
        if self.store.is_empty() {
            format!("sqlite:{}", data_dir.join("gm.db").display())
        } else {
            self.store.clone()
        }
    }

    /// What operators type, without a slash at the end.
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
        let minute = Duration::from_secs(60);
        if self.web.parse::<SocketAddr>().is_err() {
            return Err(format!("web: {:?} is not an address with a port, such as 127.0.0.1:8080", self.web));
        }
        if !self.url.is_empty() && !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err("url: must begin with http:// or https://".into());
        }
        if self.idle < minute || self.session_lifetime < self.idle {
            return Err("idle: must be at least 1m, and at most `session_lifetime`".into());
        }
        if self.map_interval < Duration::from_millis(50) {
            return Err("map_interval: must be at least 50ms".into());
        }
        Ok(())
    }
}

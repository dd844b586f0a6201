//! The sections of the settings that every daemon has: `[daemon]`, `[cluster]` and `[log]`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_types::WorldId;

/// Checks that types cannot express. The message starts with the key: `tick_hz: must be 1 to 100`.
pub trait Validate {
    /// # Errors
    /// The key and the fault of its value.
    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The settings of a daemon. [`Settings::load`] reads them.
#[derive(Debug, Clone, Default)]
pub struct Settings<C> {
    pub daemon: DaemonConfig,
    pub cluster: ClusterConfig,
    pub log: LogConfig,
    /// The service's own section, named like its kind.
    pub service: C,
}

/// `[daemon]`: name, addresses and folders of this process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonConfig {
    /// Instance name, unique in the cluster and the same after a restart. `auto` is `<kind>-<host name>`, for replicas
    /// in containers. Default: `<kind>-1`.
    pub name: String,
    /// Address that the gRPC server listens on. Port 0 takes a free port.
    pub grpc: String,
    /// Address of `/metrics`, `/livez`, `/readyz` and `/config`.
    pub admin: String,
    /// Host that peers should dial; needed behind address translation. Default: the bound address, or, when that
    /// is unspecified, the address from which the first registry is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_host: Option<String>,
    /// Folder for all files of this daemon.
    pub data_dir: PathBuf,
    /// Longest duration of a drain. Unfinished work is dropped after it.
    #[serde(with = "duration")]
    pub grace: Duration,
    /// Worker threads. 0: the number that suits this kind of daemon on this machine.
    pub threads: usize,
    /// File that receives the bound addresses as JSON once the daemon is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<PathBuf>,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            grpc: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            advertise_host: None,
            data_dir: "var".into(),
            grace: Duration::from_secs(10),
            threads: 0,
            announce: None,
        }
    }
}

impl Validate for DaemonConfig {
    fn validate(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.chars().all(plain) {
            return Err("name: must be 1 to 63 letters, digits, `-`, `_` or `.`".into());
        }
        listen_address("grpc", &self.grpc)?;
        listen_address("admin", &self.admin)?;
        if self.grace > Duration::from_secs(3600) {
            return Err("grace: must be at most 1h".into());
        }
        if self.threads > 1024 {
            return Err("threads: must be at most 1024".into());
        }
        Ok(())
    }
}

/// `[cluster]`: registries, certificates and the place of this daemon in the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// `host:port` of every registry.
    pub registries: Vec<String>,
    /// Certificate of the authority that signs the certificates of all daemons.
    pub ca: PathBuf,
    /// This instance's certificate chain. Default: `certs/<name>.pem`.
    pub cert: PathBuf,
    /// Private key of `cert`. Default: `certs/<name>.key`.
    pub key: PathBuf,
    /// A registry marks this instance as offline after this time without a heartbeat.
    #[serde(with = "duration")]
    pub lease: Duration,
    /// How often the lease is extended.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// World this instance belongs to; 0: the whole region.
    pub world: u32,
    /// Name of the deployment, the same in all daemons and clients. Its hash is the tag in the preface of each client, so
    /// that foreign traffic is dropped early.
    pub deployment: String,
    /// DNS zone under which players find the cluster: `login.<zone>` and `gateway.<zone>`.
    pub zone: String,
    /// Region of this instance, one of `dns.regions`. DNS sends players of a region to its instances. Empty: no region.
    pub region: String,
}

impl ClusterConfig {
    pub fn world(&self) -> WorldId {
        WorldId(self.world)
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            ca: "certs/ca.pem".into(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            lease: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            world: 0,
            deployment: "dev".into(),
            zone: "shardkeep.test".into(),
            region: String::new(),
        }
    }
}

impl Validate for ClusterConfig {
    fn validate(&self) -> Result<(), String> {
        for address in &self.registries {
            host_and_port("registries", address)?;
        }
        if self.heartbeat < Duration::from_millis(50) {
            return Err("heartbeat: must be at least 50ms".into());
        }
        if self.lease < self.heartbeat * 2 {
            return Err(
                "lease: must be at least twice the heartbeat, so that one lost packet does not end it".into(),
            );
        }
        if self.lease > Duration::from_secs(60) {
            return Err("lease: must be at most 60s, because a dead daemon looks alive for this long".into());
        }
        if self.region.len() > 63 {
            return Err("region: must be at most 63 bytes".into());
        }
        Ok(())
    }
}

/// `[log]`: filter, format and collector of log records.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Filter in the form of `RUST_LOG`, for example `info,shardkeep_zone=debug`.
    pub filter: String,
    pub format: LogFormat,
    /// Collector of log records, in addition to standard error. Empty: a logs daemon from the registry. `off`: none.
    /// `host:port`: a logs daemon. `http://host:port`: another OTLP/gRPC collector.
    pub otlp: String,
    /// Whether player events are also written to standard error. With `otlp = "off"` they always are. Otherwise many
    /// logins at once would cost more in log lines than in the logins.
    pub print_events: bool,
    /// File for log lines instead of standard error. A full file is renamed to `<file>.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Size at which the log file is renamed. The two files together need at most twice as much.
    pub file_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: LogFormat::Auto,
            otlp: String::new(),
            print_events: false,
            file: None,
            file_bytes: 64 << 20,
        }
    }
}

impl Validate for LogConfig {
    fn validate(&self) -> Result<(), String> {
        self.filter
            .parse::<tracing_subscriber::filter::Targets>()
            .map(drop)
            .map_err(|error| format!("filter: {error}"))?;
        if self.file_bytes < 1 << 20 {
            return Err("file_bytes: must be at least 1048576 (1 MiB)".into());
        }
        match self.otlp.as_str() {
            "" | "off" => Ok(()),
            url if url.starts_with("http://") => host_and_port("otlp", url.trim_start_matches("http://")),
            address => host_and_port("otlp", address),
        }
    }
}

/// Format of log lines on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

fn listen_address(key: &str, address: &str) -> Result<(), String> {
    address
        .parse::<std::net::SocketAddr>()
        .map(drop)
        .map_err(|_| format!("{key}: {address:?} is not an address with a port, such as 127.0.0.1:0"))
}

fn host_and_port(key: &str, address: &str) -> Result<(), String> {
    address
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok())
        .map(drop)
        .ok_or_else(|| format!("{key}: {address:?} is not host:port"))
}

/// Durations in settings. `#[serde(with = "shardkeep_daemon::duration")]` reads and writes `250ms`, `30s`, `5m`, `1h`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*value))
    }

    /// # Errors
    /// When the text is not a whole number and a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a duration such as \"250ms\", \"30s\", \"5m\" or \"1h\""
            ))
        })
    }

    pub fn parse(text: &str) -> Option<Duration> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        number.parse::<u64>().ok()?.checked_mul(*millis).map(Duration::from_millis)
    }

    pub fn format(value: Duration) -> String {
        let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        let (unit, size) = UNITS
            .iter()
            .rev()
            .find(|(_, size)| millis.is_multiple_of(*size) && millis >= *size)
            .unwrap_or(&UNITS[0]);
        format!("{}{unit}", millis / size)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn duration_text_round_trips() {
            for text in ["0ms", "250ms", "30s", "5m", "1h", "90s"] {
                assert_eq!(format(parse(text).unwrap()), text);
            }
            for wrong in
                ["", "s", "5", "-1s", "5 fortnights", "99999999999999999999s", "9999999999999999999h"]
            {
                assert_eq!(parse(wrong), None, "{wrong}");
            }
        }
    }
}

//! The `[login]` section of the settings.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_auth::{Key, puzzle::MAX_BITS};
use shardkeep_daemon::{Networks, Validate, duration};
use shardkeep_lanes::Settings as Lanes;

use shardkeep_update as update;

use crate::central::config::Config as CentralConfig;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address that players connect to.
    pub listen: String,
    /// `host:port` that players are told, if it differs from the bound address (address translation, containers). Port 0
    /// stands for the bound port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// `sqlite:<path>` (one replica) or `postgres://…` (any number). Default: `sqlite:<data_dir>/login.db`.
    pub store: String,
    /// Oldest client version served: major · 1,000,000 + minor · 1,000 + patch.
    pub min_client_version: u32,
    /// Connections at once. When all are in use, a newcomer replaces a connection that has not logged in, of the address
    /// prefix with the most of them. If that is the newcomer's own prefix, it is told UNAVAILABLE.
    pub max_connections: usize,
    /// Connections at once from one address (IPv6: from one /64).
    pub max_connections_per_address: usize,
    /// How long a player may stay at the world list. It is short enough that keys need no update.
    #[serde(with = "duration")]
    pub connection_lifetime: Duration,
    /// How long a ticket is valid.
    #[serde(with = "duration")]
    pub ticket_lifetime: Duration,
    /// Threads for exponentiations; 0: one per core.
    pub crypto_threads: usize,
    /// Logins that may wait for a thread. Further ones replace jobs of the address prefix with the most jobs, whose clients
    /// are told UNAVAILABLE.
    pub crypto_queue: usize,
    /// Longest wait for a thread. A client that would wait longer is told UNAVAILABLE at once, with a time to retry.
    #[serde(with = "duration")]
    pub crypto_max_wait: Duration,
    /// Jobs of one account at a time, waiting or running, from addresses that it has not used lately.
    pub crypto_jobs_per_account: usize,
    /// Whether logins may or must include a post-quantum key share.
    pub hybrid: Hybrid,
    /// Networks of the load balancers. They must send PROXY protocol v2, and other clients must not.
    pub trusted_balancers: Networks,
    pub puzzle: Puzzle,
    /// Handling of a second login of an account.
    pub duplicate_logins: DuplicateLogins,
    /// If a second login is refused: how long a login counts after its replica died.
    #[serde(with = "duration")]
    pub login_lease: Duration,
    /// Which players may register accounts.
    pub registration: RegistrationMode,
    /// Attempts to register, per address.
    pub registrations: Bucket,
    /// How long a player has to enter the code of the second factor.
    #[serde(with = "duration")]
    pub code_timeout: Duration,
    /// Wrong codes of the second factor, per account.
    pub codes: Bucket,
    /// Name of the game in authenticator apps.
    pub issuer: String,
    /// Key of 64 hexadecimal digits that encrypts the secrets of second factors in the store. All replicas need the same
    /// key, and the backup of the store must not contain it. Empty: secrets are stored in plain form.
    pub second_factor_secret: String,
    pub limits: Limits,
    /// Several regions with one account for each player.
    pub central: CentralConfig,
    /// The lanes besides TCP.
    pub lanes: Lanes,
    pub patches: update::Config,
}

/// Handling of a second login of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateLogins {
    /// The new login ends the first one.
    Displace,
    /// The new login is refused while the first one is active.
    Refuse,
}

/// Which players may register accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// None: only operators create accounts.
    Closed,
    /// Players with an invitation.
    Token,
    /// All players.
    Open,
}

impl RegistrationMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Token => "token",
            Self::Open => "open",
        }
    }
}

impl Config {
    /// The key in `second_factor_secret`, if it is set.
    pub(crate) fn second_factor_key(&self) -> Result<Option<Key>, String> {
        let text = self.second_factor_secret.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key)
            .map_err(|_| "second_factor_secret: must be 64 hexadecimal digits".to_owned())?;
        Ok(Some(Key::new(key)))
    }
}

/// Use of the post-quantum key share `X25519MLKEM768`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hybrid {
    /// Clients that offer it use it.
    Allow,
    /// No client uses it.
    Off,
    /// Clients that do not offer it are refused.
    Require,
}

/// Puzzles that clients solve before a login.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Puzzle {
    pub mode: PuzzleMode,
    /// Load of the exponentiation pool (0 to 1) above which puzzles are required.
    pub from: f64,
    /// Zero bits of a puzzle at that load. A client computes about 2 to this power hashes.
    pub least_bits: u32,
    /// Zero bits of a puzzle at full load. Between the two the bits rise with the load.
    pub most_bits: u32,
    /// How long the answer to a puzzle is accepted.
    #[serde(with = "duration")]
    pub lifetime: Duration,
    /// Solved puzzles that are remembered, so that each is valid once. Beyond this number all are forgotten, and every puzzle
    /// made before becomes invalid.
    pub max_entries: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PuzzleMode {
    /// Only under load.
    Auto,
    Always,
    Never,
}

impl Default for Puzzle {
    fn default() -> Self {
        Self {
            mode: PuzzleMode::Auto,
            from: 0.5,
            least_bits: 14,
            most_bits: 20,
            lifetime: Duration::from_secs(30),
            max_entries: 131_072,
        }
    }
}

impl Validate for Puzzle {
    fn validate(&self) -> Result<(), String> {
        if !(0.0..1.0).contains(&self.from) {
            return Err("puzzle: from must be at least 0 and below 1".into());
        }
        if self.least_bits == 0 || self.most_bits < self.least_bits || self.most_bits > MAX_BITS {
            return Err(format!("puzzle: bits must be 1 to {MAX_BITS}, and least_bits at most most_bits"));
        }
        if self.lifetime < Duration::from_secs(1) || self.lifetime > Duration::from_secs(300) {
            return Err("puzzle: lifetime must be 1s to 5m".into());
        }
        if self.max_entries < 16 {
            return Err("puzzle: max_entries must be at least 16".into());
        }
        Ok(())
    }
}

/// Rate limits of logins. Each is a token bucket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Logins begun, per address.
    pub attempts: Bucket,
    /// Wrong passwords, per address and account.
    pub failures: Bucket,
    /// Wrong passwords, per address over all accounts.
    pub failures_of_address: Bucket,
    /// Wrong passwords, per account over all addresses from which it has not logged in lately.
    pub failures_of_account: Bucket,
    /// How long the limit per account ignores an address from which the account has logged in, so that clients elsewhere
    /// cannot lock a player out.
    #[serde(with = "duration")]
    pub trust: Duration,
    /// Keys that each limit remembers. Beyond this number, the keys closest to a full bucket are forgotten.
    pub max_entries: usize,
}

/// A token bucket: `burst` at once, and one more each `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    pub burst: u32,
    #[serde(with = "duration")]
    pub every: Duration,
}

impl Bucket {
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7100".into(),
            advertise: None,
            store: String::new(),
            min_client_version: 0,
            max_connections: 4_096,
            max_connections_per_address: 1_024,
            connection_lifetime: Duration::from_secs(30 * 60),
            ticket_lifetime: Duration::from_secs(60),
            crypto_threads: 0,
            crypto_queue: 512,
            crypto_max_wait: Duration::from_secs(5),
            crypto_jobs_per_account: 16,
            hybrid: Hybrid::Allow,
            trusted_balancers: Networks::default(),
            puzzle: Puzzle::default(),
            duplicate_logins: DuplicateLogins::Displace,
            login_lease: Duration::from_secs(15),
            registration: RegistrationMode::Closed,
            registrations: Bucket::new(5, Duration::from_secs(600)),
            code_timeout: Duration::from_secs(120),
            codes: Bucket::new(5, Duration::from_secs(60)),
            issuer: "Shardkeep".into(),
            second_factor_secret: String::new(),
            limits: Limits::default(),
            central: CentralConfig::default(),
            lanes: Lanes::default(),
            patches: update::Config::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: Bucket::new(1_000, Duration::from_millis(10)),
            failures: Bucket::new(5, Duration::from_secs(20)),
            failures_of_address: Bucket::new(50, Duration::from_secs(2)),
            failures_of_account: Bucket::new(20, Duration::from_secs(3)),
            trust: Duration::from_secs(24 * 3600),
            max_entries: 65_536,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.listen.parse::<SocketAddr>().is_err() {
            return Err(format!(
                "listen: {:?} is not an address with a port, such as 127.0.0.1:7100",
                self.listen
            ));
        }
        if self.max_connections == 0 {
            return Err("max_connections: must be at least 1".into());
        }
        if self.max_connections_per_address == 0 {
            return Err("max_connections_per_address: must be at least 1".into());
        }
        if self.ticket_lifetime < Duration::from_secs(1) || self.ticket_lifetime > Duration::from_secs(600) {
            return Err("ticket_lifetime: must be 1s to 10m".into());
        }
        if self.connection_lifetime > Duration::from_secs(3600) {
            return Err(
                "connection_lifetime: must be at most 1h, because keys are not updated at the world list"
                    .into(),
            );
        }
        if self.crypto_max_wait.is_zero() || self.crypto_max_wait > Duration::from_secs(15) {
            return Err("crypto_max_wait: must be 1ms to 15s, because a handshake ends after 15s".into());
        }
        if self.crypto_jobs_per_account == 0 {
            return Err("crypto_jobs_per_account: must be at least 1".into());
        }
        self.puzzle.validate()?;
        if self.login_lease < Duration::from_secs(1) || self.login_lease > Duration::from_secs(120) {
            return Err("login_lease: must be 1s to 2m".into());
        }
        if self.code_timeout < Duration::from_secs(1) || self.code_timeout > Duration::from_secs(600) {
            return Err("code_timeout: must be 1s to 10m".into());
        }
        for (key, bucket) in [("registrations", self.registrations), ("codes", self.codes)] {
            if bucket.burst == 0 || bucket.every.is_zero() {
                return Err(format!("{key}: a burst must be at least 1, and `every` at least 1ms"));
            }
        }
        if self.issuer.is_empty() || self.issuer.len() > 64 || self.issuer.chars().any(char::is_control) {
            return Err("issuer: must be 1 to 64 bytes".into());
        }
        self.second_factor_key()?;
        self.central.validate()?;
        self.lanes.validate()?;
        self.limits.validate()?;
        self.patches.validate()
    }
}

impl Validate for Limits {
    fn validate(&self) -> Result<(), String> {
        let buckets = [self.attempts, self.failures, self.failures_of_address, self.failures_of_account];
        if buckets.iter().any(|bucket| bucket.burst == 0 || bucket.every.is_zero()) {
            return Err("limits: a burst must be at least 1, and `every` at least 1ms".into());
        }
        if self.max_entries < 16 {
            return Err("limits: max_entries must be at least 16".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_config_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn config_error_names_the_key() {
        let mut config = Config { listen: "localhost".into(), ..Config::default() };
        assert!(config.validate().unwrap_err().starts_with("listen: "));
        config = Config { second_factor_secret: "00ff".into(), ..Config::default() };
        assert!(config.validate().unwrap_err().starts_with("second_factor_secret: "));
        config.second_factor_secret = "+f".repeat(32);
        assert!(config.validate().is_err());
        config.second_factor_secret = "00ff".repeat(16);
        assert_eq!(config.second_factor_key().unwrap().unwrap().expose()[..2], [0, 255]);
        config = Config { login_lease: Duration::ZERO, ..Config::default() };
        assert!(config.validate().unwrap_err().starts_with("login_lease: "));
        config = Config::default();
        config.limits.failures.burst = 0;
        assert!(config.validate().unwrap_err().starts_with("limits: "));
        config = Config::default();
        config.puzzle.most_bits = 25;
        assert!(config.validate().unwrap_err().starts_with("puzzle: "));
        config = Config { crypto_max_wait: Duration::from_secs(16), ..Config::default() };
        assert!(config.validate().unwrap_err().starts_with("crypto_max_wait: "));
    }
}

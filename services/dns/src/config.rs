//! The section `[dns]`. The name of the zone is `cluster.zone`, because other daemons and clients need it too.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

use crate::{
    pool::{self, LIVE, Pool},
    prefixes::{Prefix, Prefixes},
    weighted_draw,
};

/// Labels below the zone that name servers cannot have.
const SERVICE_LABELS: [&str; 2] = ["login", "gateway"];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address for queries, UDP and TCP. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` for queries from outside, if it differs from the bound address. Port 0 stands for the bound port.
    pub advertise: String,
    /// Number of UDP sockets, each with a thread; 0: one per core.
    pub sockets: usize,
    /// `[dns.name_servers]`: the name servers that the parent zone names, as a label below the zone with its addresses,
    /// for example `ns1 = ["203.0.113.1"]`. The same on all name servers. Empty: the zone is not delegated.
    pub name_servers: BTreeMap<String, Vec<IpAddr>>,
    /// Seconds for which resolvers may keep the names and addresses of name servers, 300 to 604800.
    pub name_server_ttl_s: u32,
    /// TTL of answers in seconds, 0 to 5. Resolvers may send players to a lost replica for this long.
    pub ttl_s: u32,
    /// TTL in seconds of "no such name" and "no address", 0 to 5.
    pub negative_ttl_s: u32,
    /// Limit of addresses in one answer, 1 to 16. Weights have more effect when it is smaller than the number of replicas,
    /// because resolvers shuffle the addresses of an answer.
    pub max_answers: usize,
    /// Limit of TCP connections. At the limit a new connection replaces the oldest one of the network (/24, IPv6 /56) that
    /// has the most.
    pub tcp_connections: usize,
    /// Limit of TCP connections per address (IPv6 /64). The server closes further ones at once.
    pub tcp_connections_per_address: usize,
    /// Pool that answers come from until an operator switches: `live`, or one of `pools`.
    pub pool: String,
    /// `[dns.pools.<name>]`: addresses that an operator can switch to when the usual ones are flooded.
    pub pools: BTreeMap<String, Pool>,
    /// `[dns.regions]`: networks of clients by region. Clients get the replicas whose `cluster.region` is the same.
    pub regions: BTreeMap<String, Vec<String>>,
    pub rate: RateConfig,
    pub cookies: CookieConfig,
}

/// `[dns.rate]`: limit of UDP answers to one network (/24, IPv6 /56).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Answers per second, at most 1,000,000; 0: no limit.
    pub answers_per_s: u32,
    /// Answers that may be sent at once after a pause.
    pub burst: u32,
    /// Every n-th limited answer is sent truncated, so that a real client can ask again by TCP; 0: none.
    pub slip: u32,
    /// Networks in the table. A new network replaces the least active one.
    pub networks: usize,
    /// Networks without a limit. Loopback addresses are safe: the kernel drops packets from outside with such a source.
    pub exempt: Vec<String>,
}

/// `[dns.cookies]`: cookies prove that the address of a client is not forged (RFC 7873, RFC 9018).
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CookieConfig {
    /// 32 hexadecimal digits, the same on every name server behind one address. Empty: the server draws a secret at its
    /// start and replaces it daily.
    pub secret: String,
    /// The previous secret, accepted while the new one is distributed.
    pub previous_secret: String,
}

impl fmt::Debug for CookieConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieConfig(***)")
    }
}

impl Config {
    /// The networks of all regions, with the index of each region in the order of their names.
    pub(crate) fn numbered_regions(&self) -> Prefixes<u16> {
        let mut prefixes = Prefixes::new();
        for (number, networks) in self.regions.values().enumerate() {
            for network in networks.iter().filter_map(|network| network.parse().ok()) {
                prefixes.insert(network, number as u16);
            }
        }
        prefixes
    }

    fn validate_name_servers(&self) -> Result<(), String> {
        for (name, addresses) in &self.name_servers {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if !(1..=63).contains(&name.len()) || !name.chars().all(plain) {
                return Err(format!(
                    "name_servers: {name:?} is not a label; write lower-case letters, digits and `-` without the zone, for example ns1"
                ));
            }
            if SERVICE_LABELS.contains(&name.as_str()) {
                return Err(format!("name_servers: {name:?} is the name of a service; use for example ns1"));
            }
            if addresses.is_empty() {
                return Err(format!("name_servers: {name} has no address"));
            }
            if let Some(twice) =
                addresses.iter().enumerate().find_map(|(at, it)| addresses[..at].contains(it).then_some(it))
            {
                return Err(format!("name_servers: {name} has the address {twice} twice"));
            }
        }
        if self.name_servers.len() > 13 {
            return Err("name_servers: more than 13 do not fit an answer by UDP".into());
        }
        if !(300..=604_800).contains(&self.name_server_ttl_s) {
            return Err("name_server_ttl_s: must be 300 to 604800 (a week)".into());
        }
        Ok(())
    }

    fn validate_regions(&self) -> Result<(), String> {
        if self.regions.len() > usize::from(u16::MAX) {
            return Err("regions: too many".into());
        }
        let mut seen = Prefixes::new();
        for (region, networks) in &self.regions {
            for network in networks {
                let network: Prefix =
                    network.parse().map_err(|wrong| format!("regions: {region}: {wrong}"))?;
                if let Some(other) = seen.insert(network, region) {
                    return Err(format!("regions: {region}: {network} is also in {other}"));
                }
            }
        }
        Ok(())
    }
}

impl RateConfig {
    fn validate(&self) -> Result<(), String> {
        if self.answers_per_s > 1_000_000 {
            return Err("rate: answers_per_s: must be at most 1000000".into());
        }
        if self.burst == 0 {
            return Err("rate: burst: must be at least 1".into());
        }
        if !(64..=1 << 24).contains(&self.networks) {
            return Err("rate: networks: must be 64 to 16777216".into());
        }
        let wrong = self.exempt.iter().find_map(|network| network.parse::<Prefix>().err());
        wrong.map_or(Ok(()), |wrong| Err(format!("rate: exempt: {wrong}")))
    }
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            answers_per_s: 200,
            burst: 400,
            slip: 2,
            networks: 65_536,
            exempt: vec!["127.0.0.0/8".into(), "::1/128".into()],
        }
    }
}

impl CookieConfig {
    /// The secrets of the settings, or `None` when the process must draw a secret.
    pub(crate) fn secrets(&self) -> Option<([u8; 16], Option<[u8; 16]>)> {
        Some((secret(&self.secret)?, secret(&self.previous_secret)))
    }

    fn validate(&self) -> Result<(), String> {
        for (key, text) in [("secret", &self.secret), ("previous_secret", &self.previous_secret)] {
            if !text.is_empty() && secret(text).is_none() {
                return Err(format!("cookies: {key}: must be 32 hexadecimal digits (openssl rand -hex 16)"));
            }
        }
        if self.secret.is_empty() && !self.previous_secret.is_empty() {
            return Err("cookies: previous_secret: set cookies.secret too, which replaces it".into());
        }
        Ok(())
    }
}

fn secret(text: &str) -> Option<[u8; 16]> {
    hex::decode(text).ok()?.try_into().ok()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5353".into(),
            advertise: String::new(),
            sockets: 0,
            name_servers: BTreeMap::new(),
            name_server_ttl_s: 3600,
            ttl_s: 5,
            negative_ttl_s: 2,
            max_answers: 4,
            tcp_connections: 256,
            tcp_connections_per_address: 32,
            pool: LIVE.into(),
            pools: BTreeMap::new(),
            regions: BTreeMap::new(),
            rate: RateConfig::default(),
            cookies: CookieConfig::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        if self.listen.parse::<SocketAddr>().is_err() {
            return Err(format!("listen: {:?} is not an address with a port", self.listen));
        }
        if self.ttl_s > 5 {
            return Err(
                "ttl_s: must be at most 5, or resolvers send players to replicas that are lost".into()
            );
        }
        if self.negative_ttl_s > 5 {
            return Err("negative_ttl_s: must be at most 5".into());
        }
        if !(1..=weighted_draw::MAX_PICKS).contains(&self.max_answers) {
            return Err("max_answers: must be 1 to 16".into());
        }
        if self.sockets > 256 {
            return Err("sockets: must be at most 256".into());
        }
        if self.tcp_connections == 0 {
            return Err("tcp_connections: must be at least 1".into());
        }
        if self.tcp_connections_per_address == 0 {
            return Err("tcp_connections_per_address: must be at least 1".into());
        }
        for (name, pool) in &self.pools {
            if name == LIVE {
                return Err(format!(
                    "pools: {LIVE:?} is reserved for the live replicas; choose another name"
                ));
            }
            pool.validate().map_err(|wrong| format!("pools: {name}: {wrong}"))?;
        }
        if !pool::exists(&self.pools, &self.pool) {
            return Err(format!("pool: there is no [dns.pools.{}]", self.pool));
        }
        self.validate_name_servers()?;
        self.validate_regions()?;
        self.rate.validate()?;
        self.cookies.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err()
    }

    #[test]
    fn invalid_config_error_names_the_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        let region = |config: &mut Config, name: &str, network: &str| {
            config.regions.insert(name.into(), vec![network.into()]);
        };
        assert!(wrong(|it| region(it, "eu", "192.0.2.1/24")).starts_with("regions: eu: "));
        let twice = wrong(|it| {
            region(it, "eu", "192.0.2.0/24");
            region(it, "us", "192.0.2.0/24");
        });
        assert_eq!(twice, "regions: us: 192.0.2.0/24 is also in eu");
        assert!(wrong(|it| it.cookies.secret = "00".into()).starts_with("cookies: secret: "));
        assert!(wrong(|it| it.cookies.previous_secret = "00".repeat(16)).contains("set cookies.secret"));
        assert!(wrong(|it| it.rate.exempt.push("office".into())).starts_with("rate: exempt: "));
        assert!(wrong(|it| it.rate.networks = 0).starts_with("rate: networks: "));
        let name_server = |name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            wrong(|it| {
                it.name_servers.insert(name.into(), addresses);
            })
        };
        assert!(name_server("ns1.example", &["203.0.113.1"]).starts_with("name_servers: \"ns1.example\""));
        assert!(name_server("login", &["203.0.113.1"]).contains("name of a service"));
        assert!(name_server("ns1", &[]).contains("no address"));
        assert!(name_server("ns1", &["203.0.113.1", "203.0.113.1"]).contains("twice"));
        assert!(wrong(|it| it.name_server_ttl_s = 5).starts_with("name_server_ttl_s: "));
        assert!(wrong(|it| it.max_answers = 17).starts_with("max_answers: "));
    }

    #[test]
    fn cookie_secret_is_hidden_in_debug() {
        let cookies = CookieConfig { secret: "ab".repeat(16), previous_secret: String::new() };
        assert_eq!(cookies.secrets(), Some(([0xab; 16], None)));
        assert!(!format!("{:?}", Config { cookies, ..Config::default() }).contains("abab"));
    }
}

//! `[dns]`. The zone itself is `cluster.zone`: clients need it too.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::Validate;

use crate::{
    pool::{self, LIVE, Pool},
    prefixes::{Prefix, Prefixes},
    weighted_draw,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address for queries, UDP and TCP. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` that others should ask, where it differs from the bound address. Port 0 stands for the bound port.
    pub advertise: String,
    /// UDP sockets on that port, each with a thread; 0: one for each core.
    pub sockets: usize,
    /// Seconds for which an answer may be kept, 0 to 5: how long players may still be sent to a lost replica.
    pub ttl_s: u32,
    /// Seconds for which "no such name" and "no address" may be kept, 0 to 5.
    pub negative_ttl_s: u32,
    /// Addresses in one answer, 1 to 16. Fewer than there are replicas makes their weights count more, because
    /// resolvers shuffle what they get.
    pub max_answers: usize,
    /// TCP connections at a time. A further one takes the place of the oldest of the network (/24, IPv6 /56) that has most.
    pub tcp_connections: usize,
    /// The same for one address (IPv6 /64); further ones are closed at once.
    pub tcp_connections_per_address: usize,
    /// The pool that answers come from until an operator switches: `live`, or one of `pools`.
    pub pool: String,
    /// `[dns.pools.<name>]`: addresses to switch to, to step out of a flood.
    pub pools: BTreeMap<String, Pool>,
    /// `[dns.regions]`: networks of clients by the region whose replicas they are sent to. A replica stands in the region
    /// that its own `cluster.region` names.
    pub regions: BTreeMap<String, Vec<String>>,
    pub rate: RateConfig,
    pub cookies: CookieConfig,
}

/// `[dns.rate]`: what one network (/24, IPv6 /56) may draw from us by UDP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Answers a second, at most 1,000,000; 0: no limit.
    pub answers_per_s: u32,
    /// Answers at once after silence.
    pub burst: u32,
    /// One in so many limited answers is sent cut short, so that a real client can go on by TCP; 0: none.
    pub slip: u32,
    /// Networks remembered; when there are more, the quietest are forgotten.
    pub networks: usize,
    /// Networks without a limit. The kernel lets nobody forge loopback addresses from outside.
    pub exempt: Vec<String>,
}

/// `[dns.cookies]`: how real clients prove that they are where they say (RFC 7873, RFC 9018).
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CookieConfig {
    /// 32 hexadecimal digits, the same on every name server behind one address. Empty: drawn at the start and replaced
    /// daily.
    pub secret: String,
    /// The one before, still taken, while a new one is rolled out.
    pub previous_secret: String,
}

impl fmt::Debug for CookieConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieConfig(***)")
    }
}

impl Config {
    /// The networks of all regions, with the regions' places in the order of their names.
    pub(crate) fn numbered_regions(&self) -> Prefixes<u16> {
        let mut prefixes = Prefixes::new();
        for (number, networks) in self.regions.values().enumerate() {
            for network in networks.iter().filter_map(|network| network.parse().ok()) {
                prefixes.insert(network, number as u16);
            }
        }
        prefixes
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
    /// The secrets of the settings; `None`: this process draws its own.
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
            return Err("cookies: previous_secret: there is no secret that it was replaced by".into());
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
            return Err("ttl_s: must be at most 5, or players are sent to replicas that are gone".into());
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
                return Err(format!("pools: {LIVE:?} is the name of what the registry says"));
            }
            pool.validate().map_err(|wrong| format!("pools: {name}: {wrong}"))?;
        }
        if !pool::exists(&self.pools, &self.pool) {
            return Err(format!("pool: there is no [dns.pools.{}]", self.pool));
        }
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
        assert!(wrong(|it| it.cookies.previous_secret = "00".repeat(16)).contains("no secret"));
        assert!(wrong(|it| it.rate.exempt.push("office".into())).starts_with("rate: exempt: "));
        assert!(wrong(|it| it.rate.networks = 0).starts_with("rate: networks: "));
        assert!(wrong(|it| it.max_answers = 17).starts_with("max_answers: "));
    }

    #[test]
    fn cookie_secret_is_hidden_in_debug() {
        let cookies = CookieConfig { secret: "ab".repeat(16), previous_secret: String::new() };
        assert_eq!(cookies.secrets(), Some(([0xab; 16], None)));
        assert!(!format!("{:?}", Config { cookies, ..Config::default() }).contains("abab"));
    }
}

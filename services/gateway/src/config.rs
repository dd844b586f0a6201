//! `[gateway]` of the settings.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use shardkeep_daemon::{Networks, Validate, duration};
use shardkeep_lanes::{Lane, Settings as Lanes};
use shardkeep_wire::payload::{self, LaneAddress};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address players connect to. Port 0 takes a free one.
    pub listen: String,
    /// `host:port` under which players reach it; needed behind address translation. Port 0 stands for the bound port.
    /// Default: the bound address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Lanes that players reach at another address, such as `wss` behind a TLS proxy. Clients are told these addresses.
    pub lane_addresses: BTreeMap<Lane, AdvertisedLane>,
    /// Name that leads to any gateway, told to clients for resuming. Default: `gateway.<zone>`, asked for by SRV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_gateway: Option<String>,
    /// Sessions at which this gateway counts as full.
    pub capacity: usize,
    /// Connections at once, attached or not. When all are used, the oldest one without a session is closed.
    pub max_connections: usize,
    /// Connections at once from one address.
    pub max_connections_per_address: usize,
    /// Balancers in front of this gateway, as networks: they must speak PROXY protocol v2, and no other peer may.
    pub trusted_balancers: Networks,
    /// How long a session outlives its connection.
    #[serde(with = "duration")]
    pub link_loss: Duration,
    /// Time in which the gateway that held a session has to hand it over. Backends have half of it to put up their fences.
    /// After it, messages on their way are lost, as if that gateway had died.
    #[serde(with = "duration")]
    pub move_within: Duration,
    /// Time from accept to the end of the handshake.
    #[serde(with = "duration")]
    pub handshake: Duration,
    /// A connection on which the client is silent for this long is closed.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// How often the server changes its key.
    #[serde(with = "duration")]
    pub key_update: Duration,
    /// How often play time is reported to billing.
    #[serde(with = "duration")]
    pub billing_interval: Duration,
    /// Lanes beside TCP.
    pub lanes: Lanes,
}

/// `[gateway.lane_addresses.<lane>]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdvertisedLane {
    /// `host:port` under which players reach the lane.
    pub address: String,
    /// The name in the certificate there, if it is not the host of the address.
    pub certificate_name: String,
}

impl Config {
    /// The lanes at other addresses, as clients are told them.
    pub(crate) fn lane_addresses(&self) -> Vec<LaneAddress> {
        let lane_address = |(lane, it): (&Lane, &AdvertisedLane)| LaneAddress {
            lane: match lane {
                Lane::Tcp => payload::Lane::Tcp,
                Lane::Quic => payload::Lane::Quic,
                Lane::Ws => payload::Lane::Ws,
                Lane::Wss => payload::Lane::Wss,
            }
            .into(),
            address: it.address.clone(),
            certificate_name: it.certificate_name.clone(),
        };
        self.lane_addresses.iter().map(lane_address).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7200".into(),
            advertise: None,
            lane_addresses: BTreeMap::new(),
            any_gateway: None,
            capacity: 10_000,
            max_connections: 12_000,
            max_connections_per_address: 2_000,
            trusted_balancers: Networks::default(),
            link_loss: Duration::from_secs(60),
            move_within: Duration::from_secs(2),
            handshake: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            key_update: Duration::from_secs(3_600),
            billing_interval: Duration::from_secs(15),
            lanes: Lanes::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), String> {
        self.listen.parse::<SocketAddr>().map_err(|_| {
            format!("listen: {:?} is not an address with a port, such as 0.0.0.0:7200", self.listen)
        })?;
        self.lanes.validate()?;
        let host_and_port = |address: &str| {
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if self.advertise.as_deref().is_some_and(|address| !host_and_port(address)) {
            return Err("advertise: must be host:port".into());
        }
        for (lane, advertised) in &self.lane_addresses {
            if !host_and_port(&advertised.address) {
                return Err(format!("lane_addresses.{lane}.address: must be host:port"));
            }
            if advertised.certificate_name.contains(char::is_whitespace) {
                return Err(format!("lane_addresses.{lane}.certificate_name: must be a name without spaces"));
            }
        }
        if self.any_gateway.as_deref().is_some_and(|name| name.contains(':') && !host_and_port(name)) {
            return Err("any_gateway: must be a name, or host:port".into());
        }
        for (key, value) in [
            ("capacity", self.capacity),
            ("max_connections", self.max_connections),
            ("max_connections_per_address", self.max_connections_per_address),
        ] {
            if value == 0 {
                return Err(format!("{key}: must be at least 1"));
            }
        }
        for (key, value, least) in [
            ("move_within", self.move_within, 1),
            ("handshake", self.handshake, 1),
            ("idle", self.idle, 2),
            ("key_update", self.key_update, 1),
            ("billing_interval", self.billing_interval, 1),
        ] {
            if value < Duration::from_secs(least) {
                return Err(format!("{key}: must be at least {least}s"));
            }
        }
        if self.billing_interval > Duration::from_secs(60) {
            return Err(
                "billing_interval: must be at most 60s, or a crash loses more play time than promised".into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_config_error_starts_with_its_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        let wrong = [
            Config { listen: "nowhere".into(), ..Config::default() },
            Config { any_gateway: Some("gateway:".into()), ..Config::default() },
            Config { capacity: 0, ..Config::default() },
            Config { idle: Duration::ZERO, ..Config::default() },
            Config { lane_addresses: [(Lane::Wss, AdvertisedLane::default())].into(), ..Config::default() },
        ];
        let keys = ["listen", "any_gateway", "capacity", "idle", "lane_addresses.wss.address"];
        for (config, key) in wrong.into_iter().zip(keys) {
            assert!(config.validate().unwrap_err().starts_with(key));
        }
    }
}

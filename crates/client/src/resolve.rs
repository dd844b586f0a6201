//! From what a server or a person says ("gateway-1.example:7200", "login.<zone>") to addresses to try, in order.

use std::net::{IpAddr, SocketAddr};

use shardkeep_lanes::Lane;
use shardkeep_wire::{
    lane_address::address_of,
    payload::{self, LaneAddress},
};
use tokio::net::lookup_host;

use crate::{ClientError, Config, dns::DnsError};

/// Ports of those who cannot ask for SRV (`docs/protocol.md`, section 3).
pub(crate) const LOGIN_PORT: u16 = 7_100;
pub(crate) const GATEWAY_PORT: u16 = 7_200;

/// Every server behind a name such as `login.<zone>`: by SRV, or else by its addresses and the default port. A name
/// with a port is one server.
pub(crate) async fn service(config: &Config, host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    if split_port(host).is_some() {
        return server(config, host).await;
    }
    let Some(resolver) = &config.dns else { return addresses(config, host, port).await };
    match resolver.service(host).await {
        Ok(found) => Ok(found),
        Err(DnsError::NoRecords { .. } | DnsError::Refused { .. }) => addresses(config, host, port).await,
        Err(error) => Err(error.into()),
    }
}

/// Every address of a gateway with its lane, in the order of the configured lanes.
pub(crate) async fn gateway(
    config: &Config,
    gateway: &str,
    lanes: &[LaneAddress],
) -> Result<Vec<(Lane, SocketAddr)>, ClientError> {
    let mut found = Vec::new();
    for lane in &config.lanes {
        let kind = match lane {
            Lane::Tcp => payload::Lane::Tcp,
            Lane::Quic => payload::Lane::Quic,
            Lane::Ws => payload::Lane::Ws,
            Lane::Wss => payload::Lane::Wss,
        };
        let addresses = server(config, address_of(kind, gateway, lanes)).await?;
        found.extend(addresses.into_iter().map(|address| (*lane, address)));
    }
    Ok(found)
}

/// One server, given as `host:port`.
pub(crate) async fn server(config: &Config, address: &str) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    match split_port(address) {
        Some((host, port)) => addresses(config, host, port).await,
        None => addresses(config, address, GATEWAY_PORT).await,
    }
}

async fn addresses(config: &Config, host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if let Some(resolver) = &config.dns {
        let found = resolver.addresses(host).await?;
        return Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found = lookup_host((host, port)).await;
    let found = found.map_err(|source| DnsError::System { host: host.to_owned(), source })?;
    Ok(found.collect())
}

fn split_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

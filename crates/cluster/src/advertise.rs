//! Under which host others should dial this instance.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The configured host, else the bound address, else the address from which the first registry is reached.
pub(crate) fn host(configured: Option<&str>, bound: IpAddr, registries: &[String]) -> String {
    if let Some(host) = configured {
        return host.to_owned();
    }
    let address = if bound.is_unspecified() {
        registries
            .iter()
            .find_map(|registry| local_address_towards(registry))
            .unwrap_or(Ipv4Addr::LOCALHOST.into())
    } else {
        bound
    };
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A bound address as others should dial it: one that listens everywhere is found at the advertised host.
pub(crate) fn advertised_address(bound: &str, host: &str) -> String {
    match bound.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("{host}:{}", address.port()),
        _ => bound.to_owned(),
    }
}

/// Connecting a datagram socket sends nothing; it only asks the kernel for the route.
fn local_address_towards(target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_host_is_bound_address_unless_unspecified() {
        let registries = ["127.0.0.1:7000".to_owned()];
        assert_eq!(host(Some("game.example"), Ipv4Addr::LOCALHOST.into(), &registries), "game.example");
        assert_eq!(host(None, "10.0.0.7".parse().unwrap(), &registries), "10.0.0.7");
        assert_eq!(host(None, "::1".parse().unwrap(), &registries), "[::1]");
        assert_eq!(host(None, Ipv4Addr::UNSPECIFIED.into(), &registries), "127.0.0.1");
        assert_eq!(host(None, Ipv4Addr::UNSPECIFIED.into(), &[]), "127.0.0.1");
    }

    #[test]
    fn unspecified_bind_address_uses_advertised_host() {
        assert_eq!(advertised_address("0.0.0.0:7401", "10.0.0.7"), "10.0.0.7:7401");
        assert_eq!(advertised_address("[::]:7401", "10.0.0.7"), "10.0.0.7:7401");
        assert_eq!(advertised_address("127.0.0.1:7401", "10.0.0.7"), "127.0.0.1:7401");
    }
}

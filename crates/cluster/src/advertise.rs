//! The host and the addresses under which others dial this instance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// The host part of every address that this instance advertises. IPv6 addresses carry brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdvertisedHost {
    name: String,
    /// The settings name the host, so it also replaces a specific bound address.
    configured: bool,
}

impl AdvertisedHost {
    /// Takes the configured host, else the bound address, else the address from which the first registry is reached.
    pub(crate) fn new(configured: Option<&str>, bound: IpAddr, registries: &[String]) -> Self {
        if let Some(host) = configured {
            return Self { name: bracketed(host), configured: true };
        }
        let address = if bound.is_unspecified() {
            let loopback =
                if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let towards = registries.iter().find_map(|registry| local_address_towards(registry));
            towards.unwrap_or(loopback)
        } else {
            bound
        };
        Self { name: host(address), configured: false }
    }

    /// Address of the gRPC socket.
    pub(crate) fn with_port(&self, port: u16) -> String {
        format!("{}:{port}", self.name)
    }

    /// Address of a socket that is bound independently of the gRPC socket. A specific bound address stays.
    pub(crate) fn admin_address(&self, bound: &str) -> String {
        match bound.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() => self.with_port(address.port()),
            _ => bound.to_owned(),
        }
    }

    /// Address of a socket for clients. `configured` is the daemon's own setting `host:port`, in which port 0 stands for
    /// the bound port. A loopback socket is advertised as it is bound, because no other machine reaches it.
    pub(crate) fn client_address(&self, configured: Option<&str>, bound: SocketAddr) -> String {
        if let Some(address) = configured.filter(|address| !address.is_empty()) {
            return match address.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", bound.port()),
                None => address.to_owned(),
            };
        }
        let specific = !bound.ip().is_unspecified();
        if specific && (bound.ip().is_loopback() || !self.configured) {
            return bound.to_string();
        }
        self.with_port(bound.port())
    }
}

fn bracketed(host_name: &str) -> String {
    host_name.parse::<IpAddr>().map_or_else(|_| host_name.to_owned(), host)
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Local address of the route to `target`. Connecting a datagram socket sends no packet.
fn local_address_towards(target: &str) -> Option<IpAddr> {
    let target = target.to_socket_addrs().ok()?.next()?;
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(configured: Option<&str>, bound: &str, registries: &[String]) -> String {
        AdvertisedHost::new(configured, bound.parse().unwrap(), registries).name
    }

    #[test]
    fn advertised_host_is_bound_address_unless_unspecified() {
        let registries = ["127.0.0.1:7000".to_owned()];
        assert_eq!(advertised(Some("game.example"), "127.0.0.1", &registries), "game.example");
        assert_eq!(advertised(None, "10.0.0.7", &registries), "10.0.0.7");
        assert_eq!(advertised(None, "0.0.0.0", &registries), "127.0.0.1");
        assert_eq!(advertised(None, "0.0.0.0", &[]), "127.0.0.1");
    }

    #[test]
    fn advertised_ipv6_host_has_brackets() {
        assert_eq!(advertised(None, "::1", &[]), "[::1]");
        assert_eq!(advertised(Some("::1"), "127.0.0.1", &[]), "[::1]");
        assert_eq!(advertised(Some("[2001:db8::7]"), "127.0.0.1", &[]), "[2001:db8::7]");
        assert_eq!(advertised(None, "::", &[]), "[::1]");
        assert_eq!(advertised(None, "::", &["[::1]:7000".to_owned()]), "[::1]");
    }

    #[test]
    fn admin_address_uses_host_only_for_unspecified_bind() {
        let host = AdvertisedHost::new(Some("10.0.0.7"), Ipv4Addr::UNSPECIFIED.into(), &[]);
        assert_eq!(host.admin_address("0.0.0.0:7401"), "10.0.0.7:7401");
        assert_eq!(host.admin_address("[::]:7401"), "10.0.0.7:7401");
        assert_eq!(host.admin_address("127.0.0.1:7401"), "127.0.0.1:7401");
    }

    #[test]
    fn client_address_follows_setting_then_host_then_bind() {
        let bound = |text: &str| text.parse::<SocketAddr>().unwrap();
        let own = AdvertisedHost::new(None, Ipv4Addr::LOCALHOST.into(), &[]);
        assert_eq!(own.client_address(None, bound("127.0.0.5:7100")), "127.0.0.5:7100");
        assert_eq!(own.client_address(None, bound("[::1]:7100")), "[::1]:7100");
        assert_eq!(own.client_address(None, bound("0.0.0.0:7100")), "127.0.0.1:7100");
        assert_eq!(own.client_address(Some(""), bound("10.0.0.7:7100")), "10.0.0.7:7100");
        assert_eq!(own.client_address(Some("game.example:443"), bound("10.0.0.7:7100")), "game.example:443");
        assert_eq!(own.client_address(Some("[::1]:0"), bound("[::]:7100")), "[::1]:7100");
        let configured = AdvertisedHost::new(Some("game.example"), Ipv4Addr::UNSPECIFIED.into(), &[]);
        assert_eq!(configured.client_address(None, bound("10.0.0.7:7100")), "game.example:7100");
        assert_eq!(configured.client_address(None, bound("127.0.0.1:7300")), "127.0.0.1:7300");
    }
}

//! The addresses that the cluster's sockets are bound to, and the host that players are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Result, bail};
use clap::Args;
use shardkeep_types::DaemonKind;
use toml::Table;

#[derive(Debug, Clone, Args)]
pub struct NetworkArgs {
    /// Address that players and resolvers reach: login, gateways and DNS are bound to it
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Address of the daemons' gRPC ports, for daemons and operators on other machines; a loopback address when absent
    #[arg(long, value_name = "ADDRESS")]
    pub bind_grpc: Option<IpAddr>,
    /// Address of the admin ports, which show metrics and settings to everyone; a loopback address when absent
    #[arg(long, value_name = "ADDRESS")]
    pub bind_admin: Option<IpAddr>,
    /// Address of the web console, which speaks plain HTTP; a loopback address when absent. Another address needs
    /// `behind_tls_proxy` in [gm] of --config
    #[arg(long, value_name = "ADDRESS")]
    pub bind_console: Option<IpAddr>,
    /// Host name or address that players are told; the address of --bind when absent
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub players: IpAddr,
    pub grpc: IpAddr,
    pub admin: IpAddr,
    pub console: IpAddr,
    /// Host of the players' sockets, without brackets.
    pub advertise: String,
}

impl Default for Network {
    fn default() -> Self {
        let loopback = Ipv4Addr::LOCALHOST.into();
        Self::new(loopback, loopback, "127.0.0.1".into())
    }
}

impl From<&NetworkArgs> for Network {
    fn from(args: &NetworkArgs) -> Self {
        let bind = args.bind;
        let loopback = match bind {
            _ if bind.is_loopback() => bind,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let advertise = match &args.advertise {
            Some(host) => host.trim_matches(['[', ']']).to_owned(),
            None if bind.is_unspecified() => outward_address(bind).unwrap_or(loopback).to_string(),
            None => bind.to_string(),
        };
        let internal = Self::new(bind, loopback, advertise);
        Self {
            grpc: args.bind_grpc.unwrap_or(loopback),
            admin: args.bind_admin.unwrap_or(loopback),
            console: args.bind_console.unwrap_or(loopback),
            ..internal
        }
    }
}

impl Network {
    fn new(players: IpAddr, internal: IpAddr, advertise: String) -> Self {
        Self { players, grpc: internal, admin: internal, console: internal, advertise }
    }

    /// Where the socket for a kind's clients is bound.
    pub fn client(&self, kind: DaemonKind) -> IpAddr {
        if kind == DaemonKind::Gm { self.console } else { self.players }
    }

    /// The advertised host as the first part of `host:port`.
    pub fn advertised_host(&self) -> String {
        match self.advertise.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.advertise.clone(),
        }
    }

    /// One line for each kind of internal port that other machines can reach.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.grpc.is_loopback() {
            warnings.push(format!(
                "warning: other machines reach the gRPC ports at {}; a certificate of this cluster opens them",
                self.grpc
            ));
        }
        if !self.admin.is_loopback() {
            warnings.push(format!(
                "warning: other machines reach the admin ports at {}; they show metrics and settings to everyone",
                self.admin
            ));
        }
        warnings
    }
}

/// Refuses a console that sends passwords in plain text over the network. `gm` is the planned configuration of its daemon.
///
/// # Errors
/// When the console is bound to an address that other machines reach and no proxy ends TLS before it.
pub fn check_console(gm: &Table) -> Result<()> {
    let Some(section) = gm.get("gm").and_then(toml::Value::as_table) else { return Ok(()) };
    let Some(address) = section.get("web").and_then(toml::Value::as_str) else { return Ok(()) };
    let behind_proxy = section.get("behind_tls_proxy").and_then(toml::Value::as_bool).unwrap_or(false);
    let private = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if private || behind_proxy {
        return Ok(());
    }
    bail!(
        "the console would send passwords in plain text over the network at {address}: leave --bind-console out and run a \
         proxy that ends TLS on this machine; or, if a proxy on another machine ends TLS, set `behind_tls_proxy = true` \
         and `url = \"https://…\"` in [gm] of --config"
    )
}

/// Local address of the route to other machines. Connecting a datagram socket sends no packet; the targets are addresses
/// for documentation (RFC 5737, RFC 3849).
fn outward_address(unspecified: IpAddr) -> Option<IpAddr> {
    let route = |any: IpAddr, target: &str| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let over_ipv4 = || route(Ipv4Addr::UNSPECIFIED.into(), "192.0.2.1:9");
    match unspecified {
        IpAddr::V4(_) => over_ipv4(),
        // A socket at `::` takes IPv4 connections too.
        IpAddr::V6(_) => route(Ipv6Addr::UNSPECIFIED.into(), "[2001:db8::1]:9").or_else(over_ipv4),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        network: NetworkArgs,
    }

    fn network(line: &[&str]) -> Network {
        Network::from(&Line::try_parse_from([&["up"], line].concat()).unwrap().network)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn default_network_is_loopback() {
        assert_eq!(network(&[]), Network::default());
        assert!(network(&[]).warnings().is_empty());
    }

    #[test]
    fn advertised_host_follows_bind_address() {
        assert_eq!(network(&["--bind", "127.0.0.5"]).advertised_host(), "127.0.0.5");
        assert_eq!(network(&["--bind", "::1"]).advertised_host(), "[::1]");
        assert_eq!(network(&["--advertise", "::1"]).advertised_host(), "[::1]");
        assert_eq!(network(&["--advertise", "[::1]"]).advertise, "::1");
        assert_eq!(network(&["--advertise", "game.example"]).advertised_host(), "game.example");
        let everywhere = network(&["--bind", "0.0.0.0"]).advertise;
        assert!(!address(&everywhere).is_unspecified(), "{everywhere}");
    }

    #[test]
    fn bind_moves_players_ports_only() {
        let open = network(&["--bind", "0.0.0.0"]);
        assert_eq!(open.client(DaemonKind::Login), address("0.0.0.0"));
        assert_eq!(open.client(DaemonKind::Dns), address("0.0.0.0"));
        for internal in [open.grpc, open.admin, open.client(DaemonKind::Gm)] {
            assert_eq!(internal, address("127.0.0.1"));
        }
        assert_eq!(network(&["--bind", "::"]).grpc, address("::1"));
        assert_eq!(network(&["--bind", "127.0.0.5"]).grpc, address("127.0.0.5"), "still private");
    }

    #[test]
    fn open_internal_ports_cause_warnings() {
        let open = network(&["--bind-grpc", "0.0.0.0", "--bind-admin", "10.0.0.7"]);
        let warnings = open.warnings().join("\n");
        assert!(warnings.contains("gRPC ports at 0.0.0.0") && warnings.contains("admin ports at 10.0.0.7"));
    }

    #[test]
    fn open_console_without_tls_is_refused() {
        let gm = |text: &str| text.parse::<Table>().unwrap();
        assert!(check_console(&gm("[gm]\nweb = \"127.0.0.1:7300\"")).is_ok());
        assert!(check_console(&gm("[gm]\nweb = \"[::1]:7300\"")).is_ok());
        let refused = check_console(&gm("[gm]\nweb = \"0.0.0.0:7300\"")).unwrap_err().to_string();
        assert!(refused.contains("0.0.0.0:7300") && refused.contains("behind_tls_proxy"), "{refused}");
        assert!(check_console(&gm("[gm]\nweb = \"0.0.0.0:7300\"\nbehind_tls_proxy = true")).is_ok());
    }
}

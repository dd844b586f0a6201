//! The plan of `shardkeep up`: daemons, their order, ports and configuration. This module does no I/O.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use shardkeep_types::DaemonKind;
use toml::{Table, Value};

use super::{network::Network, region::Region};
use crate::data_dir::DataDir;

/// The only world of a cluster on one machine.
pub const WORLD: i64 = 1;

/// Highest base for which all planned ports exist. The last daemon's admin port is the highest port.
pub const HIGHEST_BASE: u16 = u16::MAX - ADMIN - 14;
/// Offset of the admin ports.
const ADMIN: u16 = 400;

/// The options of a local cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub network: Network,
    /// `postgres://…` of one database for all owning daemons; embedded SQLite files when absent.
    pub postgres: Option<String>,
    /// `redis://…`; the in-memory bus when absent.
    pub redis: Option<String>,
    /// The region of this cluster, if there are several.
    pub region: Option<Region>,
    /// The user's own settings, in the sections that daemons read.
    pub overrides: Table,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            network: Network::default(),
            postgres: None,
            redis: None,
            region: None,
            overrides: Table::new(),
        }
    }
}

/// One child process.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    pub kind: DaemonKind,
    pub name: String,
    /// Ports as planned; 0 for "any free one".
    pub ports: Ports,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub grpc: u16,
    pub admin: u16,
    /// Where players (or a browser, or a resolver) connect, for the kinds that have such a socket.
    pub client: Option<u16>,
}

/// Two gateways and two zones, one of each other kind, in the order of their start. `port_base` is at most
/// [`HIGHEST_BASE`].
pub fn children(port_base: u16) -> Vec<Child> {
    let mut names = Vec::new();
    for kind in DaemonKind::DAEMONS {
        let count = if matches!(kind, DaemonKind::Gateway | DaemonKind::Zone) { 2 } else { 1 };
        names.extend((1..=count).map(|number| (kind, number)));
    }
    let port = |offset: u16| if port_base == 0 { 0 } else { port_base + offset };
    names
        .into_iter()
        .zip(1u16..)
        .map(|((kind, number), index)| Child {
            kind,
            name: format!("{kind}-{number}"),
            ports: Ports {
                grpc: port(index),
                admin: port(ADMIN + index),
                client: client_port(kind, number).map(port),
            },
        })
        .collect()
}

/// Offset of the port that a kind's clients know.
fn client_port(kind: DaemonKind, number: u16) -> Option<u16> {
    match kind {
        DaemonKind::Dns => Some(53),
        DaemonKind::Login => Some(100),
        DaemonKind::Gateway => Some(199 + number),
        DaemonKind::Gm => Some(300),
        _ => None,
    }
}

/// Name of the setting that holds a kind's client socket.
pub fn client_setting(kind: DaemonKind) -> &'static str {
    if kind == DaemonKind::Gm { "web" } else { "listen" }
}

/// The configuration file of one child.
pub fn config(options: &ClusterOptions, dir: &DataDir, child: &Child, registry: Option<&str>) -> Table {
    let network = &options.network;
    let listen = |address: IpAddr, port: u16| Value::String(SocketAddr::new(address, port).to_string());
    let file = |path: &Path| Value::String(path.display().to_string());
    let kind = child.kind.as_str();

    let mut daemon = Table::new();
    daemon.insert("name".into(), child.name.clone().into());
    daemon.insert("grpc".into(), listen(network.grpc, child.ports.grpc));
    daemon.insert("admin".into(), listen(network.admin, child.ports.admin));
    if network.grpc.is_unspecified() {
        daemon.insert("advertise_host".into(), network.advertised_host().into());
    }
    daemon.insert("data_dir".into(), file(&dir.db()));
    daemon.insert("announce".into(), file(&dir.announcement(&child.name)));

    let mut cluster = Table::new();
    let registries = registry.map(|address| Value::String(address.to_owned())).into_iter().collect();
    cluster.insert("registries".into(), Value::Array(registries));
    cluster.insert("ca".into(), file(&dir.tls().join("ca.pem")));
    cluster.insert("cert".into(), file(&dir.tls().join(format!("{}.pem", child.name))));
    cluster.insert("key".into(), file(&dir.tls().join(format!("{}.key", child.name))));
    if has_world(child.kind) {
        cluster.insert("world".into(), WORLD.into());
    }

    // The file to which the supervisor also redirects standard error. The daemon rotates it.
    let mut log = Table::new();
    log.insert("file".into(), file(&dir.log().join(format!("{}.log", child.name))));

    let mut service = Table::new();
    if let Some(port) = child.ports.client {
        service.insert(client_setting(child.kind).into(), listen(network.client(child.kind), port));
    }
    if matches!(child.kind, DaemonKind::Dns | DaemonKind::Login | DaemonKind::Gateway) {
        // Port 0 stands for the bound port.
        service.insert("advertise".into(), format!("{}:0", network.advertised_host()).into());
    }
    if matches!(child.kind, DaemonKind::Login | DaemonKind::Gateway) {
        let mut lanes = Table::new();
        lanes.insert("certificate".into(), file(&dir.tls().join("players.pem")));
        lanes.insert("key".into(), file(&dir.tls().join("players.key")));
        service.insert("lanes".into(), lanes.into());
    }
    if let (Some(database), true) = (&options.postgres, owns_store(child.kind)) {
        service.insert("store".into(), database.clone().into());
    }
    if let (Some(region), DaemonKind::Login) = (&options.region, child.kind) {
        service.insert("central".into(), region.settings(options.postgres.as_deref(), dir).into());
    }
    if let (Some(redis), DaemonKind::Chat) = (&options.redis, child.kind) {
        service.insert("bus".into(), redis.clone().into());
    }

    let mut config = Table::new();
    for (section, values) in [("daemon", daemon), ("cluster", cluster), ("log", log), (kind, service)] {
        if !values.is_empty() {
            config.insert(section.into(), Value::Table(values));
        }
    }
    for section in ["daemon", "cluster", "log", kind] {
        if let Some(Value::Table(overrides)) = options.overrides.get(section) {
            let target = config.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(target) = target {
                merge_tables(target, overrides);
            }
        }
    }
    config
}

/// The environment variables that would override settings in which the daemons of a plan differ. They would give all
/// daemons the same address or name.
pub fn overriding_variables(config: &Table) -> Vec<String> {
    let common = ["daemon", "cluster", "log"].into_iter();
    let settings = common.filter_map(|section| Some((section, config.get(section)?.as_table()?)));
    let variable = |section: &str, key: &str| format!("SHARDKEEP_{section}__{key}").to_uppercase();
    settings.flat_map(|(section, values)| values.keys().map(move |key| variable(section, key))).collect()
}

/// Nested tables keep the values that are not overridden.
fn merge_tables(target: &mut Table, overrides: &Table) {
    for (key, value) in overrides {
        match (target.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(overrides)) => merge_tables(inner, overrides),
            _ => drop(target.insert(key.clone(), value.clone())),
        }
    }
}

/// Kinds that belong to one world.
pub fn has_world(kind: DaemonKind) -> bool {
    matches!(kind, DaemonKind::World | DaemonKind::Zone | DaemonKind::Ai | DaemonKind::Chat)
}

/// Kinds that keep their state in PostgreSQL when it is configured. The logs daemon always uses daily files.
pub fn owns_store(kind: DaemonKind) -> bool {
    matches!(kind, DaemonKind::Login | DaemonKind::Dbcache | DaemonKind::Billing | DaemonKind::Gm)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn plan_has_fourteen_children_on_distinct_ports() {
        for base in [7000, HIGHEST_BASE] {
            let children = children(base);
            assert_eq!(children.len(), 14);
            let ports: Vec<u16> = children
                .iter()
                .flat_map(|c| [Some(c.ports.grpc), Some(c.ports.admin), c.ports.client])
                .flatten()
                .collect();
            assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
            assert_eq!(children[0].kind, DaemonKind::Registry);
            assert_eq!(ports.iter().max(), Some(&(base + 414)));
        }
    }

    #[test]
    fn port_base_zero_uses_free_ports() {
        assert!(children(0).iter().all(|c| c.ports.grpc == 0 && c.ports.client.unwrap_or(0) == 0));
    }

    #[test]
    fn config_uses_given_postgres_and_redis() {
        let dir = DataDir::new(Path::new("var")).unwrap();
        let (postgres, redis) = (Some("postgres://u@h:1/game".into()), Some("redis://h".into()));
        let options = ClusterOptions { postgres, redis, ..ClusterOptions::default() };
        let child = |kind| children(7000).into_iter().find(|c| c.kind == kind).unwrap();
        let login = config(&options, &dir, &child(DaemonKind::Login), Some("127.0.0.1:7001"));
        assert_eq!(login["login"]["store"].as_str(), Some("postgres://u@h:1/game"));
        assert_eq!(login["login"]["listen"].as_str(), Some("127.0.0.1:7100"));
        assert_eq!(login["login"]["advertise"].as_str(), Some("127.0.0.1:0"));
        let chat = config(&options, &dir, &child(DaemonKind::Chat), Some("127.0.0.1:7001"));
        assert_eq!(chat["chat"]["bus"].as_str(), Some("redis://h"));
        assert_eq!(chat["cluster"]["world"].as_integer(), Some(1));
    }

    #[test]
    fn home_region_stores_accounts_and_others_query_it() {
        let dir = DataDir::new(Path::new("var")).unwrap();
        let login = |options: &ClusterOptions| {
            let child = children(7000).into_iter().find(|c| c.kind == DaemonKind::Login).unwrap();
            config(options, &dir, &child, None).remove("login").unwrap()
        };
        let mut options = ClusterOptions::default();
        assert!(login(&options).get("central").is_none());
        options.region = Some(Region::Home { name: "eu".into() });
        let central = &login(&options)["central"];
        assert_eq!(central["region"].as_str(), Some("eu"));
        assert!(central["store"].as_str().unwrap().ends_with("var/db/central.db"));
        options.postgres = Some("postgres://u@h:1/game".into());
        assert_eq!(login(&options)["central"]["store"].as_str(), options.postgres.as_deref());
        options.region = Some(Region::Other { name: "us".into(), at: "127.0.0.1:7003".into() });
        let central = &login(&options)["central"];
        assert_eq!(central["servers"].as_array().unwrap()[0].as_str(), Some("127.0.0.1:7003"));
        assert!(central.get("store").is_none());
    }

    #[test]
    fn open_players_ports_leave_internal_ports_private() {
        let dir = DataDir::new(Path::new("var")).unwrap();
        let network =
            Network { players: "::".parse().unwrap(), advertise: "2001:db8::7".into(), ..Network::default() };
        let options = ClusterOptions { network, ..ClusterOptions::default() };
        for child in children(7000) {
            let (kind, config) = (child.kind.as_str(), config(&options, &dir, &child, None));
            for internal in ["grpc", "admin"] {
                let address = config["daemon"][internal].as_str().unwrap();
                assert!(address.starts_with("127.0.0.1:"), "{}: {address}", child.name);
            }
            let Some(port) = child.ports.client else { continue };
            let address = config[kind][client_setting(child.kind)].as_str().unwrap().to_owned();
            if child.kind == DaemonKind::Gm {
                assert_eq!(address, format!("127.0.0.1:{port}"));
            } else {
                assert_eq!(address, format!("[::]:{port}"));
                assert_eq!(config[kind]["advertise"].as_str(), Some("[2001:db8::7]:0"));
            }
        }
    }

    #[test]
    fn user_settings_override_plan() {
        let dir = DataDir::new(Path::new("var")).unwrap();
        let overrides = "[world]\ncapacity = 5\n[gateway.lanes]\nquic = false".parse().unwrap();
        let options = ClusterOptions { overrides, ..ClusterOptions::default() };
        let child = |kind| children(7000).into_iter().find(|c| c.kind == kind).unwrap();
        let world = config(&options, &dir, &child(DaemonKind::World), None);
        assert_eq!(world["world"]["capacity"].as_integer(), Some(5));
        assert!(!world.contains_key("gateway"));
        let gateway = config(&options, &dir, &child(DaemonKind::Gateway), None);
        let lanes = &gateway["gateway"]["lanes"];
        assert_eq!(lanes["quic"].as_bool(), Some(false));
        assert!(lanes["certificate"].as_str().unwrap().ends_with("players.pem"), "the rest stays");
    }
}

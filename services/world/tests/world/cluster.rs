//! Worlds with stand-ins for other daemons, over real sockets and mutual TLS.

use std::time::Duration;

use shardkeep_cluster::{Instance, Node, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_rpc::{
    dbcache::db_cache_server::DbCacheServer, registry::registry_server::RegistryServer,
    world::world_client::WorldClient, zone::zone_server::ZoneServer,
};
use shardkeep_testkit::FakeRegistry;
use shardkeep_types::{DaemonKind, WorldId};
use shardkeep_world::{World, WorldConfig};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{service::Routes, transport::Channel};

use crate::{database::StandInDatabase, gateway::StandInGateway, zone::StandInZone};

/// The time limit for events that happen at once on an idle machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    folder: TempDir,
    pub(crate) registry: FakeRegistry,
    pub(crate) database: StandInDatabase,
    registries: Vec<String>,
    // Keeps the stand-ins running.
    members: Vec<(Daemon, Node)>,
}

impl Cluster {
    /// Starts a registry and a database.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        let mut cluster = Self {
            folder,
            registry: FakeRegistry::default(),
            database: StandInDatabase::default(),
            registries: Vec::new(),
            members: Vec::new(),
        };
        let registry = cluster.member(DaemonKind::Registry, "registry-1").await;
        registry.serve(Routes::new(RegistryServer::new(cluster.registry.clone())));
        cluster.registries.push(registry.grpc_address());
        let database = cluster.member(DaemonKind::Dbcache, "dbcache-1").await;
        database.serve(Routes::new(DbCacheServer::new(cluster.database.clone())));
        cluster
    }

    pub(crate) async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        let settings = self.settings::<()>(kind, name);
        let daemon = Daemon::new(kind, name);
        let node = Node::join(&settings, &daemon, kind).await.unwrap();
        self.members.push((daemon, node.clone()));
        node
    }

    pub(crate) async fn zone(&mut self, name: &str) -> (StandInZone, Node) {
        let zone = StandInZone::new(self.database.clone());
        let node = self.member(DaemonKind::Zone, name).await;
        node.serve(Routes::new(ZoneServer::new(zone.clone())));
        (zone, node)
    }

    /// Starts a world and waits until it is ready. The first one leads.
    pub(crate) async fn world(&self, name: &str) -> Running {
        self.world_with_capacity(name, WorldConfig::default().capacity).await
    }

    /// A world with this capacity.
    pub(crate) async fn world_with_capacity(&self, name: &str, capacity: u32) -> Running {
        let mut settings = self.settings::<WorldConfig>(DaemonKind::World, name);
        settings.service.lease = Duration::from_secs(5);
        settings.service.capacity = capacity;
        let mut running = launch::<World>(settings).await.unwrap();
        running.ready().await.unwrap();
        running
    }

    /// A gateway with a link to a world that leads.
    pub(crate) async fn gateway(&mut self, name: &str, world: &str) -> StandInGateway {
        let node = self.member(DaemonKind::Gateway, name).await;
        node.serve(Routes::default());
        wait_until_leading(&node, world).await;
        StandInGateway::open(node, world).await
    }

    fn settings<C: Default>(&self, kind: DaemonKind, name: &str) -> Settings<C> {
        let world = match kind {
            DaemonKind::World | DaemonKind::Zone => 1,
            _ => 0,
        };
        let files = certs::issue(self.folder.path(), kind, name, WorldId(world)).unwrap();
        Settings {
            daemon: DaemonConfig { name: name.into(), ..DaemonConfig::default() },
            cluster: ClusterConfig {
                registries: self.registries.clone(),
                ca: files.ca,
                cert: files.cert,
                key: files.key,
                heartbeat: Duration::from_millis(100),
                world,
                ..ClusterConfig::default()
            },
            ..Settings::default()
        }
    }
}

/// A client of the world, as this member. Waits until the registry lists the world.
pub(crate) async fn client_of(node: &Node, world: &str) -> WorldClient<Channel> {
    let world = wait_for(node, world, |_| true).await;
    WorldClient::new(node.channel(DaemonKind::World, &world.grpc_address))
}

/// Waits until the registry lists the world as the leader.
pub(crate) async fn wait_until_leading(node: &Node, world: &str) {
    wait_for(node, world, Instance::leads).await;
}

async fn wait_for(node: &Node, world: &str, is: impl Fn(&Instance) -> bool) -> Instance {
    let mut worlds = node.directory(DaemonKind::World);
    let seen = async {
        loop {
            if let Some(world) = worlds.get(world).filter(&is) {
                return world;
            }
            worlds.changed().await;
        }
    };
    timeout(TIMEOUT, seen).await.expect("the registry knows the world")
}

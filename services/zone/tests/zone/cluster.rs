//! A cluster of real zones and stand-ins, over sockets and mutual TLS.

use std::time::Duration;

use shardkeep_cluster::{Node, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_rpc::{
    common::Position,
    dbcache::{Character, db_cache_server::DbCacheServer},
    registry::registry_server::RegistryServer,
    world::{Partition, Sector, world_server::WorldServer},
    zone::{AdmitRequest, zone_client::ZoneClient},
};
use shardkeep_testkit::FakeRegistry;
use shardkeep_types::{CellRect, DaemonKind, MapId, WorldId};
use shardkeep_zone::{Config, Zone};
use tempfile::TempDir;
use tonic::{service::Routes, transport::Channel};

use crate::{database::StandInDatabase, gateway::StandInGateway, world::StandInWorld};

/// The longest wait for an expected event on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// The border between the two zones, in cells and in millimetres.
const BORDER_CELL: u16 = 16;
pub(crate) const BORDER: i32 = 512_000;
/// The y of the road that crosses the border.
pub(crate) const ROAD: i32 = 512_000;

pub(crate) struct Cluster {
    folder: TempDir,
    registry: FakeRegistry,
    pub(crate) database: StandInDatabase,
    pub(crate) world: StandInWorld,
    node: Option<Node>,
    registries: Vec<String>,
    // Keeps the stand-ins alive.
    members: Vec<(Daemon, Node)>,
}

impl Cluster {
    /// Starts a registry, a database and a world.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        let mut cluster = Self {
            folder,
            registry: FakeRegistry::default(),
            database: StandInDatabase::default(),
            world: StandInWorld::default(),
            node: None,
            registries: Vec::new(),
            members: Vec::new(),
        };
        let registry = cluster.member(DaemonKind::Registry, "registry-1").await;
        registry.serve(Routes::new(RegistryServer::new(cluster.registry.clone())));
        cluster.registries.push(registry.grpc_address());
        let database = cluster.member(DaemonKind::Dbcache, "dbcache-1").await;
        database.serve(Routes::new(DbCacheServer::new(cluster.database.clone())));
        let world = cluster.member(DaemonKind::World, "world-1").await;
        world.serve(Routes::new(WorldServer::new(cluster.world.clone())));
        cluster.node = Some(world);
        cluster
    }

    async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        let settings = self.settings::<()>(kind, name);
        let daemon = Daemon::new(kind, name);
        let node = Node::join(&settings, &daemon, kind).await.unwrap();
        self.members.push((daemon, node.clone()));
        node
    }

    /// Starts a zone and waits until it is ready. It owns no sector yet.
    pub(crate) async fn zone(&self, name: &str) -> Running {
        let mut settings = self.settings::<Config>(DaemonKind::Zone, name);
        settings.service.save_interval = Duration::from_millis(100);
        settings.service.handover_patience = Duration::from_millis(100);
        let mut running = launch::<Zone>(settings).await.unwrap();
        running.ready().await.unwrap();
        running
    }

    pub(crate) async fn gateway(&mut self, name: &str, zone: &str) -> StandInGateway {
        let node = self.member(DaemonKind::Gateway, name).await;
        self.registry.wait_until_up(zone).await;
        StandInGateway::open(node, zone).await
    }

    /// Divides the meadow among these zones: one zone owns all, two zones meet in the middle.
    pub(crate) async fn publish_sectors(&self, term: u64, epoch: u64, zones: &[&str]) {
        let width = if zones.len() == 1 { 2 * BORDER_CELL } else { BORDER_CELL };
        let mut sectors = Vec::new();
        for (column, name) in (0..).zip(zones) {
            let zone = self.registry.wait_until_up(name).await;
            let cells =
                CellRect { map: MapId(1), x0: column * width, y0: 0, x1: (column + 1) * width, y1: 32 };
            sectors.push(Sector {
                cells: Some(cells.into()),
                zone: (*name).to_owned(),
                incarnation: zone.id.unwrap().incarnation,
                epoch,
                grpc_address: zone.grpc_address,
            });
        }
        self.world.publish(Partition { term, epoch, sectors });
    }

    /// A client of the operators' console.
    pub(crate) async fn observer(&mut self, zone: &str) -> ZoneClient<Channel> {
        let address = self.registry.wait_until_up(zone).await.grpc_address;
        let console = self.member(DaemonKind::Gm, "gm-1").await;
        ZoneClient::new(console.channel(DaemonKind::Zone, &address))
    }

    /// A client of the world.
    pub(crate) async fn client(&self, zone: &str) -> ZoneClient<Channel> {
        let address = self.registry.wait_until_up(zone).await.grpc_address;
        ZoneClient::new(self.node.as_ref().unwrap().channel(DaemonKind::Zone, &address))
    }

    /// Gives a character to the zone in the database, and admits it there.
    pub(crate) async fn admit(&self, number: u8, zone: &str, x_mm: i32) -> Character {
        let incarnation = self.registry.wait_until_up(zone).await.id.unwrap().incarnation;
        let position = Position { map: 1, x_mm, y_mm: ROAD };
        let character = self.database.claim(number, position, zone, incarnation);
        let request = AdmitRequest {
            session: character.session.clone(),
            session_epoch: 1,
            account: character.account,
            character: Some(character.clone()),
            term: 1,
        };
        self.client(zone).await.admit(request).await.unwrap();
        character
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

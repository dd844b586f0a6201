//! A cluster of real zones and doubles of other daemons, over sockets and mutual TLS.

use std::time::Duration;

use shardkeep_daemon::Running;
use shardkeep_rpc::{
    common::Position,
    dbcache::{Character, db_cache_server::DbCacheServer},
    world::{LiveZone, Partition, Sector, Space, world_server::WorldServer},
    zone::{AdmitRequest, zone_client::ZoneClient},
};
use shardkeep_testkit::{FakeCluster, FakeDatabase, FakeGatewayLink, FakeWorld};
use shardkeep_types::{CellRect, DaemonKind, SpaceId};
use shardkeep_zone::{Config, Zone};
use tonic::{service::Routes, transport::Channel};

/// The border between the two zones, in cells and in millimetres.
const BORDER_CELL: u16 = 16;
pub(crate) const BORDER: i32 = 512_000;
/// The y of the road that crosses the border.
pub(crate) const ROAD: i32 = 512_000;

pub(crate) struct Cluster {
    members: FakeCluster,
    pub(crate) database: FakeDatabase,
    pub(crate) world: FakeWorld,
}

impl Cluster {
    /// Starts a registry, a database and a world.
    pub(crate) async fn start() -> Self {
        let mut members = FakeCluster::start().await;
        let (database, world) = (FakeDatabase::default(), FakeWorld::default());
        let server = Routes::new(DbCacheServer::new(database.clone()));
        members.serve(DaemonKind::Dbcache, "dbcache-1", server).await;
        let server = Routes::new(WorldServer::new(world.clone()));
        members.serve(DaemonKind::World, "world-1", server).await;
        Self { members, database, world }
    }

    /// Starts a zone and waits until it is ready. It owns no sector yet.
    pub(crate) async fn zone(&self, name: &str) -> Running {
        let mut settings = self.members.settings::<Config>(DaemonKind::Zone, name);
        settings.service.save_interval = Duration::from_millis(100);
        settings.service.handover_patience = Duration::from_millis(100);
        self.members.launch::<Zone>(settings).await
    }

    pub(crate) async fn gateway(&mut self, name: &str, zone: &str) -> FakeGatewayLink {
        let node = self.members.member(DaemonKind::Gateway, name).await;
        self.members.registry.wait_until_up(zone).await;
        FakeGatewayLink::open(node, DaemonKind::Zone, zone).await
    }

    /// Divides the meadow among these zones: one zone owns all, two zones meet in the middle.
    pub(crate) async fn publish_sectors(&self, term: u64, epoch: u64, zones: &[&str]) {
        let width = if zones.len() == 1 { 2 * BORDER_CELL } else { BORDER_CELL };
        let (mut sectors, mut alive) = (Vec::new(), Vec::new());
        for (column, name) in (0..).zip(zones) {
            let zone = self.members.registry.wait_until_up(name).await;
            let cells =
                CellRect { space: SpaceId(1), x0: column * width, y0: 0, x1: (column + 1) * width, y1: 32 };
            alive.push(LiveZone { zone: zone.id.clone(), grpc_address: zone.grpc_address.clone() });
            sectors.push(Sector {
                cells: Some(cells.into()),
                zone: (*name).to_owned(),
                incarnation: zone.id.unwrap().incarnation,
                epoch,
                grpc_address: zone.grpc_address,
                ..Sector::default()
            });
        }
        let spaces = vec![Space { space: 1, map: "meadow".into(), ..Space::default() }];
        self.world.publish(Partition { term, epoch, sectors, spaces, alive });
    }

    /// A client of the operators' console.
    pub(crate) async fn observer(&self, zone: &str) -> ZoneClient<Channel> {
        self.client_of(DaemonKind::Gm, "gm-1", zone).await
    }

    /// A client of the world.
    pub(crate) async fn client(&self, zone: &str) -> ZoneClient<Channel> {
        self.client_of(DaemonKind::World, "world-1", zone).await
    }

    async fn client_of(&self, caller: DaemonKind, name: &str, zone: &str) -> ZoneClient<Channel> {
        let address = self.members.registry.wait_until_up(zone).await.grpc_address;
        ZoneClient::new(self.members.channel(caller, name, DaemonKind::Zone, &address))
    }

    /// Gives a character to the zone in the database, and admits it there.
    pub(crate) async fn admit(&self, number: u8, zone: &str, x_mm: i32) -> Character {
        let incarnation = self.members.registry.wait_until_up(zone).await.id.unwrap().incarnation;
        let position = Position { space: 1, x_mm, y_mm: ROAD, ..Default::default() };
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
}

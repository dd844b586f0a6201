//! Simulates sectors of a map at 20 Hz: movement, interest, combat, items, trades, creatures.
//!
//! Gateways connect players over links. The `world` assigns sectors and admits avatars. `dbcache` commits hard state. `ai`
//! decides for creatures. An avatar that walks into a sector of another zone is handed over to that zone. The simulation
//! is the pure crate `sim`; this crate connects it to the cluster.

mod app;
mod config;
mod domain;
mod edge;
mod metrics;

use std::{sync::Arc, time::Instant};

use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_link::{BackendSpec, LinkHub, Route};
use shardkeep_sim::{Map, Sim};
use shardkeep_types::{BackendKind, DaemonKind, SpaceId};
use tokio::sync::mpsc;
use tonic::service::Routes;

pub use config::Config;
pub use domain::encode;

use crate::{
    app::{App, Clock},
    domain::space::Space,
    edge::{calls::Calls, executor::Executor, grpc::ZoneService, message, streams::Streams},
};

/// Moves are frequent and small; all other requests share a slower bucket. See `docs/protocol.md`, section 13.
const ROUTES: [Route; 2] = [
    Route { first: 0x1001, last: 0x1001, max_payload: 9, rate: 30, burst: 60 },
    Route { first: 0x1002, last: 0x107f, max_payload: 1_024, rate: 40, burst: 80 },
];

pub struct Zone;

impl Service for Zone {
    const KIND: DaemonKind = DaemonKind::Zone;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        metrics::describe();
        shardkeep_link::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let config = settings.service;
        let map = Arc::new(Map::meadow());
        let (messages, message_receiver) = mpsc::channel(message::MESSAGE_QUEUE);
        let spec = BackendSpec {
            kind: BackendKind::ZONE,
            world: node.world(),
            routes: ROUTES.to_vec(),
            auto_bind: false,
        };
        let (hub, links) = LinkHub::new(&node, spec);
        let calls = Calls::new(node.clone(), daemon.clone(), messages.clone());
        let streams = Streams::new(node.clone(), messages.clone());
        let service = ZoneService::new(&node.id().name, map.clone(), messages, daemon.draining());

        let seed = if config.seed == 0 { node.id().incarnation } else { config.seed };
        let (clock, now) = (Clock::start(), Instant::now());
        let sim = Sim::new(SpaceId::FIRST, map.clone(), seed, clock.now(now));
        let space = Space::new(node.id().clone(), node.world(), config, sim, now);
        let executor = Executor::new(node.id().clone(), map, hub.clone(), calls);
        let zones = node.directory(DaemonKind::Zone);
        node.serve(Routes::new(service.into_server()).add_service(hub.service()));
        streams.start(&daemon);
        App { space, executor, node, zones, clock }.run(links, message_receiver, &daemon).await;
        Ok(())
    }
}

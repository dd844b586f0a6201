//! Simulates sectors of a map at 20 Hz: movement, interest, combat, items, trades, creatures.
//!
//! Gateways connect players over links. The `world` assigns sectors and admits avatars. `dbcache` commits hard state. `ai`
//! decides for creatures. An avatar that walks into a sector of another zone is handed over to that zone. The simulation
//! is the pure crate `sim`; this crate connects it to the cluster.

mod background_calls;
mod bindings;
mod cell_updates;
mod command;
mod config;
mod convert;
mod database;
mod grpc;
mod handover;
mod hard_actions;
mod links;
mod metrics;
mod neighbours;
mod outbox;
mod partition;
mod peer_frames;
mod perception_feed;
mod player_events;
mod player_messages;
mod players;
mod presence;
mod publish;
mod release;
mod requests;
mod saving;
mod shard;
mod streams;
mod tick_loop;

use std::{sync::Arc, time::Instant};

use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_link::{BackendSpec, LinkHub, Route};
use shardkeep_sim::{Map, Sim};
use shardkeep_types::{BackendKind, DaemonKind, SpaceId};
use tokio::sync::mpsc;
use tonic::service::Routes;

pub use config::Config;
pub use publish::encode;

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
        let (commands, command_receiver) = mpsc::channel(command::COMMAND_QUEUE);
        let spec = BackendSpec {
            kind: BackendKind::ZONE,
            world: node.world(),
            routes: ROUTES.to_vec(),
            auto_bind: false,
        };
        let (hub, links) = LinkHub::new(&node, spec);
        let background_calls =
            background_calls::BackgroundCalls::new(node.clone(), daemon.clone(), commands.clone());
        let streams = streams::Streams::new(node.clone(), commands.clone());
        let service = grpc::ZoneService::new(&node.id().name, map.clone(), commands, daemon.draining());

        let seed = if config.seed == 0 { node.id().incarnation } else { config.seed };
        let (clock, now) = (tick_loop::Clock::start(), Instant::now());
        let sim = Sim::new(SpaceId::FIRST, map, seed, clock.now(now));
        let shard = shard::Shard::new(config, sim, hub.clone(), background_calls, now);
        node.serve(Routes::new(service.into_server()).add_service(hub.service()));
        streams.start(&daemon);
        tick_loop::run(shard, clock, links, command_receiver, &node.directory(DaemonKind::Zone), &daemon)
            .await;
        Ok(())
    }
}

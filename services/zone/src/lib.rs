//! Simulates sectors of spaces at 20 Hz: movement, interest, combat, items, trades, creatures.
//!
//! Gateways connect players over links. The `world` assigns sectors and admits avatars. `dbcache` commits hard state. `ai`
//! decides for creatures. An avatar that walks into a sector of another zone is handed over to that zone. The simulation
//! is the pure crate `sim`; this crate connects it to the cluster.

mod app;
mod config;
mod domain;
mod edge;
mod metrics;
mod spaces;

use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_link::{BackendSpec, LinkHub, Route};
use shardkeep_types::{BackendKind, DaemonKind};
use tokio::sync::mpsc;
use tonic::service::Routes;

pub use config::Config;
pub use domain::encode;

use crate::{
    edge::{grpc::ZoneService, message, streams, switchboard::Switchboard},
    spaces::Spaces,
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
        shardkeep_journal::describe();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let config = settings.service;
        let folder = settings.daemon.data_dir.join("journal").join(&node.id().name);
        let journal = spaces::start_journal(&config.journal, &folder);
        let (messages, message_receiver) = mpsc::channel(message::MESSAGE_QUEUE);
        let spec = BackendSpec {
            kind: BackendKind::ZONE,
            world: node.world(),
            routes: ROUTES.to_vec(),
            auto_bind: false,
        };
        let (hub, links) = LinkHub::new(&node, spec);
        let switchboard = Switchboard::new(node.world(), hub.clone());
        let service =
            ZoneService::new(&node.id().name, switchboard.clone(), messages.clone(), daemon.draining());
        let spaces = Spaces::new(node.clone(), daemon.clone(), config, hub.clone(), switchboard, journal)?;
        node.serve(Routes::new(service.into_server()).add_service(hub.service()));
        streams::to_the_world(&node, &daemon, &messages);
        spaces.run(links, message_receiver).await;
        Ok(())
    }
}

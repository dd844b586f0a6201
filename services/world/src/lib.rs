//! The coordinator of one game world: the entry queue, the partition of the map among zones, and the positions of all
//! avatars. It is a backend of gateways, serves their calls about sessions, and calls zones and dbcache. One of
//! several instances leads; the others stand by.
//!
//! `domain` holds what a world knows and decides. `edge` holds links, calls and tasks. `app` routes events and effects
//! between them.

mod app;
mod config;
mod domain;
mod edge;
mod metrics;

use anyhow::ensure;
use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_link::{BackendSpec, LinkHub, Route};
use shardkeep_rpc::world::world_server::WorldServer;
use shardkeep_types::{BackendKind, DaemonKind};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use crate::config::WorldConfig;
use crate::edge::{
    actor::Actor,
    candidate::Candidate,
    service::{Handle, WorldService},
};

pub struct World;

impl Service for World {
    const KIND: DaemonKind = DaemonKind::World;
    type Config = WorldConfig;

    async fn run(settings: Settings<WorldConfig>, daemon: Daemon) -> anyhow::Result<()> {
        ensure!(settings.cluster.world != 0, "a world daemon needs the number of its world: cluster.world");
        metrics::describe();
        shardkeep_link::describe();
        let config = settings.service.clone();
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let (hub, links) = LinkHub::new(&node, backend(&node));
        let (handle, jobs) = Handle::new();
        let candidate = Candidate::new(node.clone(), config.lease);
        let actor = Actor::new(node.clone(), daemon.clone(), hub.clone(), config, handle.clone());
        let service = WorldService::new(node.clone(), handle.clone(), actor.partition());
        let zones = node.directory(DaemonKind::Zone);
        let service = WorldServer::new(service)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        node.serve(Routes::new(hub.service()).add_service(service));
        let resign = CancellationToken::new();
        daemon.spawn("leadership", candidate.clone().run(handle, resign.clone()));
        let is_leader = actor.run(jobs, links, zones).await;
        resign.cancel();
        if is_leader {
            candidate.release_lease().await;
        }
        Ok(())
    }
}

/// The world as a backend of gateways: opcodes and limits as in `docs/protocol.md`, section 13.
fn backend(node: &Node) -> BackendSpec {
    let entry = Route { first: 0x3000, last: 0x3FFF, max_payload: 256, rate: 10, burst: 20 };
    BackendSpec { kind: BackendKind::WORLD, world: node.world(), routes: vec![entry], auto_bind: false }
}

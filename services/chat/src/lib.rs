//! The chat daemon: channels and whispers of one world, with a flood limit, mutes and history. It is a backend of
//! the gateways, learns from the world where each avatar is, and exchanges lines with other replicas over a bus.

mod actor;
mod avatars;
mod config;
mod envelope;
mod history;
mod metrics;
mod mutes;
mod presence_stream;
mod refusal;
mod replica_sequences;
mod room;
mod service;
mod single_replica;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use shardkeep_bus::Bus;
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings};
use shardkeep_link::{BackendSpec, LinkHub, Route};
use shardkeep_rpc::chat::chat_server::ChatServer;
use shardkeep_types::{BackendKind, DaemonKind};
use tokio::{sync::mpsc, time::timeout};
use tonic::service::Routes;

pub use crate::config::ChatConfig;
use crate::{
    actor::{Actor, Sources},
    room::Room,
    service::Moderation,
};

/// Presence reports that may wait. Overflow: the stream from the world waits. The world ends a stream that waits too
/// long, and the next one starts with a full report.
const REPORT_QUEUE: usize = 256;

/// How long a start waits for the bus, so that a ready replica receives the lines of the others.
const BUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The daemon.
pub struct Chat;

impl Service for Chat {
    const KIND: DaemonKind = DaemonKind::Chat;
    type Config = ChatConfig;

    async fn run(settings: Settings<ChatConfig>, daemon: Daemon) -> anyhow::Result<()> {
        ensure!(settings.cluster.world != 0, "a chat daemon needs the number of its world: cluster.world");
        metrics::describe();
        shardkeep_bus::describe();
        shardkeep_link::describe();
        let config = &settings.service;
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let bus = Bus::open(&config.bus).context("chat.bus")?;
        let topic = actor::topic(node.world());
        let replicas = bus.subscribe(&topic);
        if timeout(BUS_TIMEOUT, bus.subscribed(&topic)).await.is_err() {
            tracing::warn!("the bus does not answer: other replicas are not heard until it does");
        }
        let mut chats = node.directory(DaemonKind::Chat);
        let single_replica = !Bus::is_shared(&config.bus);
        if single_replica {
            single_replica::wait_and_check(&node, &mut chats).await?;
        }
        let (hub, links) = LinkHub::new(&node, backend(&node));
        let (moderation, jobs) = Moderation::new();
        let (reports, presence) = mpsc::channel(REPORT_QUEUE);
        node.serve(Routes::new(hub.service()).add_service(ChatServer::new(moderation)));
        daemon.spawn("presence", presence_stream::presence(node.clone(), reports));
        let room = Room::new(node.id().name.clone(), node.id().incarnation, config);
        let sources = Sources { jobs, links, presence, replicas, chats };
        Actor { room, node, daemon, hub, bus, single_replica }.run(sources).await
    }
}

/// Describes this backend to the gateways: opcodes and limits as in `docs/protocol.md`, section 13.
fn backend(node: &Node) -> BackendSpec {
    let speak = Route { first: 0x2000, last: 0x2FFF, max_payload: 1100, rate: 10, burst: 20 };
    BackendSpec { kind: BackendKind::CHAT, world: node.world(), routes: vec![speak], auto_bind: true }
}

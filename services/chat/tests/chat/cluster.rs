//! Chats among stand-ins, over real sockets and mutual TLS.

use std::time::Duration;

use shardkeep_chat::{Chat, ChatConfig};
use shardkeep_cluster::{Leadership, Node, certs};
use shardkeep_daemon::{ClusterConfig, Daemon, DaemonConfig, Running, Settings, launch};
use shardkeep_rpc::{
    chat::chat_client::ChatClient, registry::registry_server::RegistryServer,
    world::world_server::WorldServer,
};
use shardkeep_testkit::FakeRegistry;
use shardkeep_types::{DaemonKind, WorldId};
use tempfile::TempDir;
use tonic::{service::Routes, transport::Channel};

use crate::{gateway::FakeGateway, world::FakeWorld};

/// Longest wait for an event that takes a moment on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    folder: TempDir,
    registries: Vec<String>,
    // Dropping them would end the stand-ins.
    members: Vec<(Daemon, Node)>,
}

impl Cluster {
    /// Starts a registry and a leading world.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs::make_ca(folder.path()).unwrap();
        let mut cluster = Self { folder, registries: Vec::new(), members: Vec::new() };
        let registry = cluster.member(DaemonKind::Registry, "registry-1").await;
        registry.serve(Routes::new(RegistryServer::new(FakeRegistry::default())));
        cluster.registries.push(registry.grpc_address());
        let world = cluster.member(DaemonKind::World, "world-1").await;
        world.set_leadership(Leadership::Leader);
        world.serve(Routes::new(WorldServer::new(FakeWorld)));
        cluster
    }

    async fn member(&mut self, kind: DaemonKind, name: &str) -> Node {
        let settings = self.settings::<()>(kind, name);
        let daemon = Daemon::new(kind, name);
        let node = Node::join(&settings, &daemon, kind).await.unwrap();
        self.members.push((daemon, node.clone()));
        node
    }

    /// Starts a chat that may still refuse to start.
    pub(crate) async fn launch(&self, name: &str, bus: &str) -> Running {
        let mut settings = self.settings::<ChatConfig>(DaemonKind::Chat, name);
        settings.service.bus = bus.to_owned();
        launch::<Chat>(settings).await.unwrap()
    }

    /// Starts a chat and waits until it is ready.
    pub(crate) async fn chat(&self, name: &str, bus: &str) -> Running {
        let mut running = self.launch(name, bus).await;
        running.ready().await.unwrap();
        running
    }

    /// A gateway whose session `number` is bound to the chat.
    pub(crate) async fn gateway(&mut self, name: &str, chat: &str, number: u8) -> FakeGateway {
        let node = self.member(DaemonKind::Gateway, name).await;
        node.serve(Routes::default());
        FakeGateway::open(node, chat, number).await
    }

    pub(crate) async fn moderator(&mut self, chat: &Running) -> ChatClient<Channel> {
        let name = format!("gm-{}", self.members.len());
        let node = self.member(DaemonKind::Gm, &name).await;
        ChatClient::new(node.channel(DaemonKind::Chat, &chat.daemon().bound().grpc))
    }

    fn settings<C: Default>(&self, kind: DaemonKind, name: &str) -> Settings<C> {
        let world = match kind {
            DaemonKind::World | DaemonKind::Chat => 1,
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

//! Chats among doubles of other daemons, over real sockets and mutual TLS.

use shardkeep_chat::{Chat, ChatConfig};
use shardkeep_cluster::Leadership;
use shardkeep_daemon::{Running, launch};
use shardkeep_rpc::{
    chat::chat_client::ChatClient,
    world::{Presence, PresenceReport, world_server::WorldServer},
};
use shardkeep_testkit::{FakeCluster, FakeWorld};
use shardkeep_types::DaemonKind;
use tonic::{service::Routes, transport::Channel};

use crate::speaker::Speaker;

pub(crate) struct Cluster(FakeCluster);

impl Cluster {
    /// Starts a registry and a leading world. Hero1 and Hero2 are close to each other, and Hero3 is far away.
    pub(crate) async fn start() -> Self {
        let mut members = FakeCluster::start().await;
        let world = FakeWorld::default();
        let present = vec![hero(1, 5), hero(2, 6), hero(3, 20)];
        world.report(PresenceReport { present, ..PresenceReport::default() });
        let node = members.member(DaemonKind::World, "world-1").await;
        node.set_leadership(Leadership::Leader);
        node.serve(Routes::new(WorldServer::new(world)));
        Self(members)
    }

    /// Starts a chat that may still refuse to start.
    pub(crate) async fn launch(&self, name: &str, bus: &str) -> Running {
        let mut settings = self.0.settings::<ChatConfig>(DaemonKind::Chat, name);
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
    pub(crate) async fn speaker(&mut self, gateway: &str, chat: &str, number: u8) -> Speaker {
        let node = self.0.serve(DaemonKind::Gateway, gateway, Routes::default()).await;
        Speaker::open(node, chat, number).await
    }

    pub(crate) fn moderator(&self, chat: &Running) -> ChatClient<Channel> {
        let address = chat.daemon().bound().grpc;
        ChatClient::new(self.0.channel(DaemonKind::Gm, "gm-1", DaemonKind::Chat, &address))
    }
}

/// Hero`number` with session `number`, in a cell of zone-1.
fn hero(number: u8, cell_x: u32) -> Presence {
    Presence {
        character: number.into(),
        name: format!("Hero{number}"),
        session: vec![number; 16],
        account: number.into(),
        space: 1,
        cell_x,
        cell_y: 5,
        zone: "zone-1".into(),
        epoch: 1,
    }
}

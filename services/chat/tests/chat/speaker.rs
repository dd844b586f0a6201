//! A player who chats through a gateway's link.

use prost::Message;
use shardkeep_cluster::Node;
use shardkeep_link::{BackendItem, ServerMessage, SessionChange};
use shardkeep_testkit::FakeGatewayLink;
use shardkeep_types::DaemonKind;
use shardkeep_wire::{
    opcode,
    payload::{Channel, ChatMessage, Error, ErrorCode, Speak},
};

pub(crate) struct Speaker {
    link: FakeGatewayLink,
    number: u8,
    requests: u64,
}

impl Speaker {
    /// Waits until the session is subscribed to the world channel.
    pub(crate) async fn open(node: Node, chat: &str, number: u8) -> Self {
        let mut link = FakeGatewayLink::open(node, DaemonKind::Chat, chat).await;
        link.session_event(number, SessionChange::Joined);
        let subscribed = link.next_item(|item| match item {
            BackendItem::Subscribe { groups, .. } => Some(groups.clone()),
            _ => None,
        });
        subscribed.await.into_iter().for_each(|group| link.watch(group));
        Self { link, number, requests: 0 }
    }

    /// Sends a line; returns the error code if it is refused.
    pub(crate) async fn speak(&mut self, channel: Channel, text: &str, to: &str) -> Option<ErrorCode> {
        self.requests += 1;
        let line = Speak { channel: channel.into(), text: text.into(), to: to.into() };
        self.link.request(self.number, opcode::SPEAK, self.requests, &line).await;
        let reply = self.link.reply(self.number, self.requests).await;
        (reply.opcode == opcode::ERROR).then(|| Error::decode(&*reply.payload).unwrap().code())
    }

    /// The next line that the session receives.
    pub(crate) async fn next_line(&mut self) -> ChatMessage {
        let line = |message: &ServerMessage| {
            (message.opcode == opcode::CHAT_MESSAGE).then(|| ChatMessage::decode(&*message.payload).unwrap())
        };
        self.link
            .next_item(|item| match item {
                BackendItem::Send { messages, .. } => messages.iter().find_map(line),
                BackendItem::Publish { message, .. } => line(message),
                _ => None,
            })
            .await
    }
}

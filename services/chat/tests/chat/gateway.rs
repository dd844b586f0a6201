//! A gateway with one session, and its link to one chat.

use prost::Message;
use shardkeep_cluster::Node;
use shardkeep_link::{
    BackendInfo, BackendItem, ClientMessage, GatewayLink, Limits, LinkHandler, MessageKind, NodeDialer,
    ServerMessage, SessionChange, SessionEvent,
};
use shardkeep_types::{AccountId, DaemonKind, Epoch, Generation, GroupKey, SessionId, WorldId};
use shardkeep_wire::{
    opcode,
    payload::{Channel, ChatMessage, Error, ErrorCode, Speak},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::SOON;

pub(crate) struct FakeGateway {
    link: GatewayLink,
    session: SessionId,
    messages: mpsc::UnboundedReceiver<ServerMessage>,
    requests_sent: u64,
    _stop: DropGuard,
}

/// Announces the session, records its subscriptions, and keeps the messages for it.
struct Handler {
    session: SessionId,
    messages: mpsc::UnboundedSender<ServerMessage>,
    subscribed: mpsc::UnboundedSender<GroupKey>,
}

impl LinkHandler for Handler {
    fn up(&self, link: &GatewayLink, _: &BackendInfo, fresh: bool) {
        if fresh {
            link.session(SessionEvent {
                session: self.session,
                session_epoch: Epoch(1),
                kind: SessionChange::Joined,
                account: AccountId(1),
                world: WorldId(1),
                generation: Generation(1),
            });
        }
    }

    fn batch(&self, link: &GatewayLink, items: Vec<BackendItem>) {
        for item in items {
            match item {
                BackendItem::Send { messages, .. } => {
                    messages.into_iter().for_each(|message| self.messages.send(message).unwrap());
                }
                BackendItem::Publish { message, .. } => self.messages.send(message).unwrap(),
                BackendItem::Subscribe { groups, .. } => {
                    for group in groups {
                        link.watch(group);
                        let _ = self.subscribed.send(group);
                    }
                }
                _ => {}
            }
        }
    }

    fn down(&self, _: &GatewayLink) {}
}

impl FakeGateway {
    /// Waits until the session is subscribed to the world channel.
    pub(crate) async fn open(node: Node, chat: &str, number: u8) -> Self {
        let session = SessionId([number; 16]);
        let link = GatewayLink::new(node.id().clone(), chat, Limits::default());
        let (messages, receiver) = mpsc::unbounded_channel();
        let (subscribed, mut subscriptions) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let directory = node.directory(DaemonKind::Chat);
        let dial = NodeDialer { node, directory, kind: DaemonKind::Chat, name: chat.to_owned() };
        tokio::spawn({
            let (link, stop) = (link.clone(), stop.clone());
            async move { link.run(&dial, &Handler { session, messages, subscribed }, &stop).await }
        });
        timeout(SOON, subscriptions.recv()).await.expect("the session hears the world").unwrap();
        Self { link, session, messages: receiver, requests_sent: 0, _stop: stop.drop_guard() }
    }

    /// Sends a line; returns the error code if it is refused.
    pub(crate) async fn speak(&mut self, channel: Channel, text: &str, to: &str) -> Option<ErrorCode> {
        self.requests_sent += 1;
        let request = Speak { channel: channel.into(), text: text.into(), to: to.into() };
        let message = ClientMessage {
            opcode: opcode::SPEAK,
            kind: MessageKind::Request,
            request: self.requests_sent,
            payload: request.encode_to_vec().into(),
        };
        let mut messages = vec![message];
        // After the link opens, the announcement goes out before messages are accepted.
        while let Err(rejected) = self.link.deliver(self.session, Epoch(1), messages) {
            messages = rejected;
            tokio::task::yield_now().await;
        }
        loop {
            let message = self.next().await;
            if message.kind == MessageKind::Reply {
                assert_eq!(message.request, self.requests_sent);
                let refused = message.opcode == opcode::ERROR;
                return refused.then(|| Error::decode(&*message.payload).unwrap().code());
            }
        }
    }

    /// The next line that the session receives.
    pub(crate) async fn next_line(&mut self) -> ChatMessage {
        let message = self.next().await;
        assert_eq!(message.opcode, opcode::CHAT_MESSAGE, "{message:?}");
        ChatMessage::decode(&*message.payload).unwrap()
    }

    async fn next(&mut self) -> ServerMessage {
        timeout(SOON, self.messages.recv()).await.expect("the chat says something").unwrap()
    }
}

//! A gateway's link to one backend, and its players. Player `n` has the session id of sixteen bytes `n`.

use std::collections::VecDeque;

use bytes::BytesMut;
use prost::Message;
use shardkeep_cluster::Node;
use shardkeep_link::{
    BackendInfo, BackendItem, Bound, ClientMessage, GatewayLink, Limits, LinkHandler, MessageKind,
    NodeDialer, ServerMessage, SessionChange, SessionEvent,
};
use shardkeep_types::{
    AccountId, CellId, DaemonKind, Epoch, Generation, GroupKey, SessionId, WorldId, group_kind,
};
use shardkeep_wire::{
    movement::{Avatar, Move},
    opcode,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wait::TIMEOUT;

pub struct FakeGatewayLink {
    link: GatewayLink,
    items: mpsc::UnboundedReceiver<BackendItem>,
    skipped: VecDeque<BackendItem>,
    _stop: DropGuard,
}

struct Handler {
    items: mpsc::UnboundedSender<BackendItem>,
    up: mpsc::UnboundedSender<()>,
}

impl LinkHandler for Handler {
    fn up(&self, _: &GatewayLink, _: &BackendInfo, _: bool) {
        let _ = self.up.send(());
    }

    fn batch(&self, _: &GatewayLink, items: Vec<BackendItem>) {
        for item in items.into_iter().flat_map(split_messages) {
            let _ = self.items.send(item);
        }
    }

    fn down(&self, _: &GatewayLink) {}
}

/// Splits a batch into items with one message each, so that a test can wait for each message.
fn split_messages(item: BackendItem) -> Vec<BackendItem> {
    match item {
        BackendItem::Send { sessions, messages } => {
            let send = |message| BackendItem::Send { sessions: sessions.clone(), messages: vec![message] };
            messages.into_iter().map(send).collect()
        }
        other => vec![other],
    }
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

impl FakeGatewayLink {
    /// Opens a link to the instance `name` of this kind.
    pub async fn open(node: Node, kind: DaemonKind, name: &str) -> Self {
        let link = GatewayLink::new(node.id().clone(), name, Limits::default());
        let (items, receiver) = mpsc::unbounded_channel();
        let (up, mut is_up) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let directory = node.directory(kind);
        let dial = NodeDialer { node, directory, kind, name: name.to_owned() };
        tokio::spawn({
            let (link, stop) = (link.clone(), stop.clone());
            async move { link.run(&dial, &Handler { items, up }, &stop).await }
        });
        timeout(TIMEOUT, is_up.recv()).await.expect("the link opens").unwrap();
        Self { link, items: receiver, skipped: VecDeque::new(), _stop: stop.drop_guard() }
    }

    /// Announces that this gateway holds the player's session.
    pub fn bound(&self, number: u8, bind_epoch: u64) {
        self.link.bound(Bound {
            session: session(number),
            session_epoch: Epoch(1),
            bind_epoch: Epoch(bind_epoch),
            account: AccountId(number.into()),
            link_dead: false,
        });
    }

    pub fn session_event(&self, number: u8, kind: SessionChange) {
        self.link.session(SessionEvent {
            session: session(number),
            session_epoch: Epoch(1),
            kind,
            account: AccountId(number.into()),
            world: WorldId(1),
            generation: Generation(1),
        });
    }

    pub fn watch(&self, group: GroupKey) {
        self.link.watch(group);
    }

    pub fn watch_cell(&self, x: u16, y: u16) {
        let cell = CellId { space: shardkeep_types::SpaceId(1), x, y };
        self.watch(GroupKey::new(group_kind::CELL, 1, cell.number()));
    }

    pub async fn walk(&self, number: u8, sequence: u32, velocity: [i16; 2]) {
        let mut payload = BytesMut::new();
        Move { sequence, velocity, facing: 0 }.encode(&mut payload);
        let message = ClientMessage {
            opcode: opcode::MOVE,
            kind: MessageKind::State,
            request: 0,
            payload: payload.freeze(),
        };
        self.deliver(number, message).await;
    }

    pub async fn request(&self, number: u8, opcode: u16, request: u64, payload: &impl Message) {
        let payload = payload.encode_to_vec().into();
        self.deliver(number, ClientMessage { opcode, kind: MessageKind::Request, request, payload }).await;
    }

    async fn deliver(&self, number: u8, message: ClientMessage) {
        let mut messages = vec![message];
        // After the link opens, its announcements are sent first.
        while let Err(back) = self.link.deliver(session(number), Epoch(1), messages) {
            messages = back;
            tokio::task::yield_now().await;
        }
    }

    /// The next item that `pick` accepts. Other items stay in the queue.
    pub async fn next_item<T>(&mut self, pick: impl Fn(&BackendItem) -> Option<T>) -> T {
        if let Some((at, picked)) =
            self.skipped.iter().enumerate().find_map(|(at, item)| Some((at, pick(item)?)))
        {
            self.skipped.remove(at);
            return picked;
        }
        let next = async {
            loop {
                let item = self.items.recv().await.expect("the link lives");
                match pick(&item) {
                    Some(picked) => return picked,
                    None => self.skipped.push_back(item),
                }
            }
        };
        timeout(TIMEOUT, next).await.expect("the backend sends it")
    }

    /// The next message to a player that `pick` accepts.
    pub async fn message<T>(&mut self, number: u8, pick: impl Fn(&ServerMessage) -> Option<T>) -> T {
        self.next_item(|item| match item {
            BackendItem::Send { sessions, messages } if sessions.contains(&session(number)) => {
                messages.iter().find_map(&pick)
            }
            _ => None,
        })
        .await
    }

    pub async fn reply(&mut self, number: u8, request: u64) -> ServerMessage {
        self.message(number, |message| (message.request == request).then(|| message.clone())).await
    }

    pub async fn event<M: Message + Default>(&mut self, number: u8, opcode: u16) -> M {
        let is = |message: &ServerMessage| {
            (message.opcode == opcode).then(|| M::decode(&*message.payload).unwrap())
        };
        self.message(number, is).await
    }

    /// The next state of the player's avatar that `is` accepts.
    pub async fn avatar(&mut self, number: u8, is: impl Fn(&Avatar) -> bool) -> Avatar {
        let is = |message: &ServerMessage| {
            let avatar =
                (message.opcode == opcode::AVATAR).then(|| Avatar::decode(&message.payload).unwrap());
            avatar.filter(&is)
        };
        self.message(number, is).await
    }

    /// Waits for `Ready` and returns the epoch of the binding.
    pub async fn ready(&mut self, number: u8) -> u64 {
        self.next_item(|item| match item {
            BackendItem::Ready { session: of, bind_epoch } if *of == session(number) => Some(bind_epoch.0),
            _ => None,
        })
        .await
    }

    /// Waits for `Bind` and returns its target and epoch.
    pub async fn bind(&mut self, number: u8) -> (String, u64) {
        self.next_item(|item| match item {
            BackendItem::Bind { session: of, instance, bind_epoch, .. } if *of == session(number) => {
                Some((instance.clone(), bind_epoch.0))
            }
            _ => None,
        })
        .await
    }
}

//! A gateway's two connections to a world: calls about sessions, and the link.

use std::collections::VecDeque;

use prost::Message;
use shardkeep_cluster::Node;
use shardkeep_link::{
    BackendInfo, BackendItem, ClientMessage, GatewayLink, Limits, LinkHandler, MessageKind, NodeDialer,
    ServerMessage, SessionChange, SessionEvent,
};
use shardkeep_rpc::world::{OpenSessionsRequest, Opening};
use shardkeep_types::{AccountId, DaemonKind, Epoch, Generation, SessionId, WorldId};
use shardkeep_wire::{
    opcode,
    payload::{CharacterCreated, CreateCharacter, Enter, QueuePosition},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::cluster::{TIMEOUT, client_of};

pub(crate) struct StandInGateway {
    pub(crate) node: Node,
    link: GatewayLink,
    items: mpsc::UnboundedReceiver<BackendItem>,
    skipped: VecDeque<BackendItem>,
    stop: CancellationToken,
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
        for item in items {
            let _ = self.items.send(item);
        }
    }

    fn down(&self, _: &GatewayLink) {}
}

impl StandInGateway {
    /// Opens a link to `world`.
    pub(crate) async fn open(node: Node, world: &str) -> Self {
        let link = GatewayLink::new(node.id().clone(), world, Limits::default());
        let (items, receiver) = mpsc::unbounded_channel();
        let (up, mut is_up) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let directory = node.directory(DaemonKind::World);
        let dial =
            NodeDialer { node: node.clone(), directory, kind: DaemonKind::World, name: world.to_owned() };
        tokio::spawn({
            let (link, stop) = (link.clone(), stop.clone());
            async move { link.run(&dial, &Handler { items, up }, &stop).await }
        });
        timeout(TIMEOUT, is_up.recv()).await.expect("the link opens").unwrap();
        Self { node, link, items: receiver, skipped: VecDeque::new(), stop }
    }

    /// The data with which a gateway presents a session of account `number`.
    pub(crate) fn opening(&self, number: u8, epoch: u64, character: u64) -> Opening {
        Opening {
            session: vec![number; 16],
            session_epoch: epoch,
            account: number.into(),
            account_name: format!("account{number}"),
            generation: 1,
            resume_key: vec![number; 32],
            character,
            queue_place: 0,
        }
    }

    /// Opens one session at a world. Returns its epoch and the world's term.
    pub(crate) async fn open_session(&self, world: &str, opening: Opening) -> Result<(u64, u64), Status> {
        self.open_as(&self.node.id().name, world, opening).await
    }

    pub(crate) async fn open_as(
        &self,
        gateway: &str,
        world: &str,
        opening: Opening,
    ) -> Result<(u64, u64), Status> {
        let request = OpenSessionsRequest { gateway: gateway.to_owned(), openings: vec![opening] };
        let reply = client_of(&self.node, world).await.open_sessions(request).await?.into_inner();
        match &reply.opened[..] {
            [opened] if opened.code == 0 => Ok((opened.session_epoch, reply.term)),
            [refused] => {
                let code = Code::from_i32(refused.code.try_into().unwrap());
                Err(Status::new(code, refused.detail.clone()))
            }
            more => panic!("one opening, {} answers", more.len()),
        }
    }

    pub(crate) fn session_event(&self, number: u8, kind: SessionChange) {
        self.link.session(SessionEvent {
            session: SessionId([number; 16]),
            session_epoch: Epoch(1),
            kind,
            account: AccountId(number.into()),
            world: WorldId(1),
            generation: Generation(1),
        });
    }

    pub(crate) async fn request(&self, number: u8, opcode: u16, request: u64, payload: &impl Message) {
        let message = ClientMessage {
            opcode,
            kind: MessageKind::Request,
            request,
            payload: payload.encode_to_vec().into(),
        };
        let mut messages = vec![message];
        // Just after its opening, the gateway's own announcements go first.
        while let Err(back) = self.link.deliver(SessionId([number; 16]), Epoch(1), messages) {
            messages = back;
            tokio::task::yield_now().await;
        }
    }

    /// The next item for which `pick` returns a value; others stay in the queue.
    pub(crate) async fn next_item<T>(&mut self, pick: impl Fn(&BackendItem) -> Option<T>) -> T {
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
        timeout(TIMEOUT, next).await.expect("the world says it")
    }

    /// The reply to a request.
    pub(crate) async fn reply(&mut self, request: u64) -> ServerMessage {
        self.next_item(|item| match item {
            BackendItem::Send { messages, .. } => {
                messages.iter().find(|message| message.request == request).cloned()
            }
            _ => None,
        })
        .await
    }

    /// The zone and epoch that the world binds a session to.
    pub(crate) async fn bound(&mut self) -> (String, u64) {
        self.next_item(|item| match item {
            BackendItem::Bind { instance, bind_epoch, .. } => Some((instance.clone(), bind_epoch.0)),
            _ => None,
        })
        .await
    }

    /// The place in the queue that the session is told.
    pub(crate) async fn place(&mut self, number: u8) -> u32 {
        let session = SessionId([number; 16]);
        let message = self.next_item(|item| match item {
            BackendItem::Send { sessions, messages } if sessions.contains(&session) => {
                messages.iter().find(|message| message.opcode == opcode::QUEUE_POSITION).cloned()
            }
            _ => None,
        });
        QueuePosition::decode(&*message.await.payload).unwrap().place
    }

    pub(crate) async fn enter(&self, number: u8, request: u64, character: u64) {
        self.request(number, opcode::ENTER, request, &Enter { character_id: character }).await;
    }

    /// A new session of account `number` with a new character, in the world or its queue. The requests are `10 *
    /// number` to create and `10 * number + 1` to enter. Returns the character.
    pub(crate) async fn enter_new_character(&mut self, world: &str, number: u8, name: &str) -> u64 {
        let (epoch, _) = self.open_session(world, self.opening(number, 0, 0)).await.unwrap();
        assert_eq!(epoch, 1);
        self.session_event(number, SessionChange::Joined);
        let create = CreateCharacter { name: name.to_owned() };
        let request = u64::from(number) * 10;
        self.request(number, opcode::CREATE_CHARACTER, request, &create).await;
        let created = CharacterCreated::decode(&*self.reply(request).await.payload).unwrap();
        let character = created.character.expect("a character").id;
        self.enter(number, request + 1, character).await;
        character
    }
}

impl Drop for StandInGateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

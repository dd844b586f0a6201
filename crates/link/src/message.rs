//! What travels on a link, as types.

use bytes::Bytes;
use shardkeep_rpc::Malformed;
use shardkeep_types::{AccountId, BackendKind, Epoch, Generation, GroupKey, SessionId, WorldId};

/// Kinds of client messages, with their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    Request = 0,
    Reply = 1,
    Event = 2,
    State = 3,
}

impl TryFrom<u32> for MessageKind {
    type Error = Malformed;

    fn try_from(kind: u32) -> Result<Self, Malformed> {
        Ok(match kind {
            0 => Self::Request,
            1 => Self::Reply,
            2 => Self::Event,
            3 => Self::State,
            other => return Err(Malformed::new("kind", format!("{other} is no kind of message"))),
        })
    }
}

/// A message of a client on its way to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMessage {
    pub opcode: u16,
    pub kind: MessageKind,
    /// Requests and replies only, else 0.
    pub request: u64,
    pub payload: Bytes,
}

/// A [`ClientMessage`] whose payload lies in somebody's buffer.
#[derive(Debug, Clone, Copy)]
pub struct ClientView<'a> {
    pub opcode: u16,
    pub kind: MessageKind,
    pub request: u64,
    pub payload: &'a [u8],
}

impl ClientMessage {
    pub fn view(&self) -> ClientView<'_> {
        ClientView { opcode: self.opcode, kind: self.kind, request: self.request, payload: &self.payload }
    }
}

/// Opcode of the transport's `Error` message, also as the reply that refuses a request.
const ERROR_OPCODE: u16 = 0x0001;

/// A message of a backend on its way to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    pub opcode: u16,
    pub kind: MessageKind,
    /// Replies only: the request they answer.
    pub request: u64,
    /// State only: class (lower is shed later) and supersede key.
    pub class: u8,
    pub key: u64,
    pub payload: Bytes,
}

impl ServerMessage {
    /// The answer to a request; carries its opcode and number.
    pub fn reply(opcode: u16, request: u64, payload: impl Into<Bytes>) -> Self {
        Self::new(opcode, MessageKind::Reply, request, payload.into())
    }

    /// The answer that refuses a request; `payload` is an encoded `Error` of the client protocol.
    pub fn refusal(request: u64, payload: impl Into<Bytes>) -> Self {
        Self::new(ERROR_OPCODE, MessageKind::Reply, request, payload.into())
    }

    pub fn event(opcode: u16, payload: impl Into<Bytes>) -> Self {
        Self::new(opcode, MessageKind::Event, 0, payload.into())
    }

    /// A newer state message of the same class and key replaces an older one that was not sent yet.
    pub fn state(opcode: u16, class: u8, key: u64, payload: impl Into<Bytes>) -> Self {
        Self { class, key, ..Self::new(opcode, MessageKind::State, 0, payload.into()) }
    }

    fn new(opcode: u16, kind: MessageKind, request: u64, payload: Bytes) -> Self {
        Self { opcode, kind, request, class: 0, key: 0, payload }
    }
}

/// How the gateway treats what is published to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishKind {
    /// State: replaces whatever the gateway has kept of the group.
    Keyframe,
    /// State: applies after the keyframe and deltas before; kept with them.
    Delta,
    /// Event: delivered to present subscribers, not kept.
    Event,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange {
    /// Bound to this backend now, or told again because the link is fresh.
    Joined,
    /// The client is back after a link loss: send what is not in groups.
    Resumed,
    /// The client lost its connection; the session waits for it.
    LinkDead,
    Left,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEvent {
    pub session: SessionId,
    pub session_epoch: Epoch,
    pub kind: SessionChange,
    pub account: AccountId,
    pub world: WorldId,
    pub generation: Generation,
}

/// The target of a `Bind` learns that the session is its own now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub session: SessionId,
    pub session_epoch: Epoch,
    pub bind_epoch: Epoch,
    pub account: AccountId,
    /// The client is away at this moment.
    pub link_dead: bool,
}

/// A session that moves from one gateway to another, and the epoch of the gateway that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub session: SessionId,
    pub session_epoch: Epoch,
}

/// Gateway to backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayItem {
    Deliver {
        session: SessionId,
        session_epoch: Epoch,
        messages: Vec<ClientMessage>,
    },
    Session(SessionEvent),
    Watch(GroupKey),
    Unwatch(GroupKey),
    Bound(Bound),
    /// The session leaves: what is said to it is to be kept from now on.
    Fence(Fence),
    /// It has arrived: what was kept is to be said.
    Lift(Fence),
}

/// Backend to gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendItem {
    Send {
        sessions: Vec<SessionId>,
        messages: Vec<ServerMessage>,
    },
    Publish {
        group: GroupKey,
        epoch: Epoch,
        sequence: u64,
        kind: PublishKind,
        message: ServerMessage,
    },
    Subscribe {
        session: SessionId,
        groups: Vec<GroupKey>,
        /// Drop the session's other groups of this backend kind.
        replace: bool,
    },
    Unsubscribe {
        session: SessionId,
        groups: Vec<GroupKey>,
    },
    Bind {
        session: SessionId,
        kind: BackendKind,
        instance: String,
        bind_epoch: Epoch,
    },
    Ready {
        session: SessionId,
        bind_epoch: Epoch,
    },
    Close {
        session: SessionId,
        code: u32,
        detail: String,
    },
    /// From here on, events of groups are not for the session at this gateway.
    Fenced(Fence),
    /// From here on they are.
    Lifted(Fence),
    /// An event of a group that was published while the session moved.
    Missed {
        session: SessionId,
        group: GroupKey,
        message: ServerMessage,
    },
}

/// What one item costs beside its payloads.
const ITEM_BYTES: usize = 48;
pub(crate) const MESSAGE_BYTES: usize = 32;

impl GatewayItem {
    /// Roughly its bytes in memory and on the wire, for bounds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Deliver { messages, .. } => deliver_bytes(messages.iter().map(ClientMessage::view)),
            _ => ITEM_BYTES,
        }
    }
}

pub(crate) fn deliver_bytes<'a>(messages: impl Iterator<Item = ClientView<'a>>) -> usize {
    ITEM_BYTES + messages.map(|message| MESSAGE_BYTES + message.payload.len()).sum::<usize>()
}

impl BackendItem {
    /// Roughly its bytes in memory and on the wire, for bounds.
    pub(crate) fn bytes(&self) -> usize {
        ITEM_BYTES
            + match self {
                Self::Send { sessions, messages } => {
                    sessions.len() * 18
                        + messages.iter().map(|message| MESSAGE_BYTES + message.payload.len()).sum::<usize>()
                }
                Self::Publish { message, .. } | Self::Missed { message, .. } => {
                    MESSAGE_BYTES + message.payload.len()
                }
                Self::Subscribe { groups, .. } | Self::Unsubscribe { groups, .. } => groups.len() * 20,
                Self::Bind { .. } | Self::Ready { .. } | Self::Fenced(_) | Self::Lifted(_) => 0,
                Self::Close { detail, .. } => detail.len(),
            }
    }
}

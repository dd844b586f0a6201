//! Everything that travels on a link, as types. `codec` reads and writes them.

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
    /// Of requests and replies; otherwise 0.
    pub request: u64,
    pub payload: Bytes,
}

/// A [`ClientMessage`] with a borrowed payload.
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

/// Opcode of the protocol's `Error` message, also in a reply that refuses a request.
const ERROR_OPCODE: u16 = 0x0001;

/// A message of a backend on its way to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMessage {
    pub opcode: u16,
    pub kind: MessageKind,
    /// Of replies: the request that they answer.
    pub request: u64,
    /// Of state messages: class (lower is dropped later) and supersede key.
    pub class: u8,
    pub key: u64,
    pub payload: Bytes,
}

impl ServerMessage {
    /// The reply to a request, with its opcode and number.
    pub fn reply(opcode: u16, request: u64, payload: impl Into<Bytes>) -> Self {
        Self::new(opcode, MessageKind::Reply, request, payload.into())
    }

    /// The reply that refuses a request; `payload` is an encoded `Error` of the client protocol.
    pub fn refusal(request: u64, payload: impl Into<Bytes>) -> Self {
        Self::new(ERROR_OPCODE, MessageKind::Reply, request, payload.into())
    }

    pub fn event(opcode: u16, payload: impl Into<Bytes>) -> Self {
        Self::new(opcode, MessageKind::Event, 0, payload.into())
    }

    /// A newer state message of the same class and key replaces an older unsent one.
    pub fn state(opcode: u16, class: u8, key: u64, payload: impl Into<Bytes>) -> Self {
        Self { class, key, ..Self::new(opcode, MessageKind::State, 0, payload.into()) }
    }

    fn new(opcode: u16, kind: MessageKind, request: u64, payload: Bytes) -> Self {
        Self { opcode, kind, request, class: 0, key: 0, payload }
    }
}

/// How the gateway treats a message to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishKind {
    /// State: replaces whatever the gateway has kept of the group.
    Keyframe = 1,
    /// State: applies after the keyframe and deltas before; kept with them.
    Delta = 2,
    /// Event: delivered to present subscribers, not kept.
    Event = 3,
    /// State: completes the keyframe before it, which did not fit one message; kept with it.
    Part = 4,
}

impl PublishKind {
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        [Self::Keyframe, Self::Delta, Self::Event, Self::Part].into_iter().find(|kind| *kind as u64 == number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange {
    /// The session is bound to this backend; also sent again when the link is fresh.
    Joined = 1,
    /// The client has resumed: send everything that is not in groups.
    Resumed = 2,
    /// The client has lost its connection; the session waits for it.
    LinkDead = 3,
    Left = 4,
}

impl SessionChange {
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        let all = [Self::Joined, Self::Resumed, Self::LinkDead, Self::Left];
        all.into_iter().find(|change| *change as u64 == number)
    }
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

/// Tells the target of a `Bind` that it serves the session now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub session: SessionId,
    pub session_epoch: Epoch,
    pub bind_epoch: Epoch,
    pub account: AccountId,
    /// The client is away at this moment.
    pub link_dead: bool,
}

/// A session that moves between gateways, and its epoch at the gateway that sends this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub session: SessionId,
    pub session_epoch: Epoch,
}

/// An item from a gateway to a backend.
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
    /// The session leaves: the backend keeps later messages to it.
    Fence(Fence),
    /// The session has arrived: the backend sends what it kept.
    Lift(Fence),
}

/// An item from a backend to a gateway.
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
    /// Later events of groups are not for the session at this gateway.
    Fenced(Fence),
    /// Later events of groups are for the session again.
    Lifted(Fence),
    /// An event of a group that was published while the session moved.
    Missed {
        session: SessionId,
        group: GroupKey,
        message: ServerMessage,
    },
}

/// Bytes of an item without its payloads.
const ITEM_BYTES: usize = 48;
pub(crate) const MESSAGE_BYTES: usize = 32;

impl GatewayItem {
    /// Estimate of its bytes in memory and on the wire, for bounds.
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
    /// Estimate of its bytes in memory and on the wire, for bounds.
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

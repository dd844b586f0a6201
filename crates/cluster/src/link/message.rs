//! What travels on a link, as types. The conversions from and to `proto/link.proto` live here, so that nothing
//! malformed gets further.

use bytes::Bytes;
use shardkeep_rpc::{Malformed, link as proto, session_id};
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
    pub what: SessionChange,
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

/// Gateway to backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayItem {
    Deliver { session: SessionId, session_epoch: Epoch, messages: Vec<ClientMessage> },
    Session(SessionEvent),
    Watch(GroupKey),
    Unwatch(GroupKey),
    Bound(Bound),
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
        what: PublishKind,
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
}

/// What one item costs beside its payloads.
const ITEM_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 32;

impl GatewayItem {
    /// Roughly its bytes in memory and on the wire, for bounds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Deliver { messages, .. } => deliver_bytes(messages),
            _ => ITEM_BYTES,
        }
    }
}

pub(crate) fn deliver_bytes(messages: &[ClientMessage]) -> usize {
    ITEM_BYTES + messages.iter().map(|message| MESSAGE_BYTES + message.payload.len()).sum::<usize>()
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
                Self::Publish { message, .. } => MESSAGE_BYTES + message.payload.len(),
                Self::Subscribe { groups, .. } | Self::Unsubscribe { groups, .. } => groups.len() * 20,
                Self::Bind { .. } | Self::Ready { .. } => 0,
                Self::Close { detail, .. } => detail.len(),
            }
    }
}

fn id(session: SessionId) -> Bytes {
    Bytes::copy_from_slice(session.as_bytes())
}

fn opcode(value: u32) -> Result<u16, Malformed> {
    u16::try_from(value).map_err(|error| Malformed::new("opcode", error))
}

fn group(value: Option<proto::Group>) -> Result<GroupKey, Malformed> {
    value.ok_or_else(|| Malformed::missing("group"))?.try_into()
}

impl From<ClientMessage> for proto::ClientMessage {
    fn from(message: ClientMessage) -> Self {
        Self {
            opcode: message.opcode.into(),
            kind: message.kind as u32,
            request: message.request,
            payload: message.payload,
        }
    }
}

impl TryFrom<proto::ClientMessage> for ClientMessage {
    type Error = Malformed;

    fn try_from(message: proto::ClientMessage) -> Result<Self, Malformed> {
        Ok(Self {
            opcode: opcode(message.opcode)?,
            kind: message.kind.try_into()?,
            request: message.request,
            payload: message.payload,
        })
    }
}

impl From<ServerMessage> for proto::ServerMessage {
    fn from(message: ServerMessage) -> Self {
        Self {
            opcode: message.opcode.into(),
            kind: message.kind as u32,
            request: message.request,
            class: message.class.into(),
            key: message.key,
            payload: message.payload,
        }
    }
}

impl TryFrom<proto::ServerMessage> for ServerMessage {
    type Error = Malformed;

    fn try_from(message: proto::ServerMessage) -> Result<Self, Malformed> {
        Ok(Self {
            opcode: opcode(message.opcode)?,
            kind: message.kind.try_into()?,
            request: message.request,
            class: u8::try_from(message.class).map_err(|error| Malformed::new("class", error))?,
            key: message.key,
            payload: message.payload,
        })
    }
}

impl From<GatewayItem> for proto::GatewayItem {
    fn from(item: GatewayItem) -> Self {
        use proto::gateway_item::Item;
        let item = match item {
            GatewayItem::Deliver { session, session_epoch, messages } => Item::Deliver(proto::Deliver {
                session: id(session),
                session_epoch: session_epoch.0,
                messages: messages.into_iter().map(Into::into).collect(),
            }),
            GatewayItem::Session(event) => Item::Session(event.into()),
            GatewayItem::Watch(group) => Item::Watch(group.into()),
            GatewayItem::Unwatch(group) => Item::Unwatch(group.into()),
            GatewayItem::Bound(bound) => Item::Bound(proto::Bound {
                session: id(bound.session),
                session_epoch: bound.session_epoch.0,
                bind_epoch: bound.bind_epoch.0,
                account: bound.account.0,
                link_dead: bound.link_dead,
            }),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<proto::GatewayItem> for GatewayItem {
    type Error = Malformed;

    fn try_from(item: proto::GatewayItem) -> Result<Self, Malformed> {
        use proto::gateway_item::Item;
        Ok(match item.item.ok_or_else(|| Malformed::missing("item"))? {
            Item::Deliver(deliver) => Self::Deliver {
                session: session_id(&deliver.session)?,
                session_epoch: Epoch(deliver.session_epoch),
                messages: deliver.messages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Item::Session(event) => Self::Session(event.try_into()?),
            Item::Watch(key) => Self::Watch(key.try_into()?),
            Item::Unwatch(key) => Self::Unwatch(key.try_into()?),
            Item::Bound(bound) => Self::Bound(Bound {
                session: session_id(&bound.session)?,
                session_epoch: Epoch(bound.session_epoch),
                bind_epoch: Epoch(bound.bind_epoch),
                account: AccountId(bound.account),
                link_dead: bound.link_dead,
            }),
        })
    }
}

impl From<SessionEvent> for proto::SessionEvent {
    fn from(event: SessionEvent) -> Self {
        use proto::session_event::What;
        let what = match event.what {
            SessionChange::Joined => What::Joined,
            SessionChange::Resumed => What::Resumed,
            SessionChange::LinkDead => What::LinkDead,
            SessionChange::Left => What::Left,
        };
        Self {
            session: id(event.session),
            session_epoch: event.session_epoch.0,
            what: what.into(),
            account: event.account.0,
            world: event.world.0,
            generation: event.generation.0,
        }
    }
}

impl TryFrom<proto::SessionEvent> for SessionEvent {
    type Error = Malformed;

    fn try_from(event: proto::SessionEvent) -> Result<Self, Malformed> {
        use proto::session_event::What;
        let what = match event.what() {
            What::Joined => SessionChange::Joined,
            What::Resumed => SessionChange::Resumed,
            What::LinkDead => SessionChange::LinkDead,
            What::Left => SessionChange::Left,
            What::Unspecified => return Err(Malformed::missing("what")),
        };
        Ok(Self {
            session: session_id(&event.session)?,
            session_epoch: Epoch(event.session_epoch),
            what,
            account: AccountId(event.account),
            world: WorldId(event.world),
            generation: Generation(event.generation),
        })
    }
}

impl From<BackendItem> for proto::BackendItem {
    fn from(item: BackendItem) -> Self {
        use proto::backend_item::Item;
        let groups = |groups: Vec<GroupKey>| groups.into_iter().map(Into::into).collect();
        let item = match item {
            BackendItem::Send { sessions, messages } => Item::Send(proto::Send {
                sessions: sessions.into_iter().map(id).collect(),
                messages: messages.into_iter().map(Into::into).collect(),
            }),
            BackendItem::Publish { group, epoch, sequence, what, message } => Item::Publish(proto::Publish {
                group: Some(group.into()),
                epoch: epoch.0,
                sequence,
                what: match what {
                    PublishKind::Keyframe => proto::publish::What::Keyframe,
                    PublishKind::Delta => proto::publish::What::Delta,
                    PublishKind::Event => proto::publish::What::Event,
                }
                .into(),
                message: Some(message.into()),
            }),
            BackendItem::Subscribe { session, groups: keys, replace } => {
                Item::Subscribe(proto::Subscribe { session: id(session), groups: groups(keys), replace })
            }
            BackendItem::Unsubscribe { session, groups: keys } => Item::Unsubscribe(proto::Subscribe {
                session: id(session),
                groups: groups(keys),
                replace: false,
            }),
            BackendItem::Bind { session, kind, instance, bind_epoch } => Item::Bind(proto::Bind {
                session: id(session),
                kind: kind.0.into(),
                instance,
                bind_epoch: bind_epoch.0,
            }),
            BackendItem::Ready { session, bind_epoch } => {
                Item::Ready(proto::Ready { session: id(session), bind_epoch: bind_epoch.0 })
            }
            BackendItem::Close { session, code, detail } => {
                Item::Close(proto::Close { session: id(session), code, detail })
            }
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<proto::BackendItem> for BackendItem {
    type Error = Malformed;

    fn try_from(item: proto::BackendItem) -> Result<Self, Malformed> {
        use proto::{backend_item::Item, publish::What};
        let groups =
            |groups: Vec<proto::Group>| groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>();
        Ok(match item.item.ok_or_else(|| Malformed::missing("item"))? {
            Item::Send(send) => Self::Send {
                sessions: send
                    .sessions
                    .iter()
                    .map(|session| session_id(session))
                    .collect::<Result<_, _>>()?,
                messages: send.messages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            Item::Publish(publish) => Self::Publish {
                what: match publish.what() {
                    What::Keyframe => PublishKind::Keyframe,
                    What::Delta => PublishKind::Delta,
                    What::Event => PublishKind::Event,
                    What::Unspecified => return Err(Malformed::missing("what")),
                },
                group: group(publish.group)?,
                epoch: Epoch(publish.epoch),
                sequence: publish.sequence,
                message: publish.message.ok_or_else(|| Malformed::missing("message"))?.try_into()?,
            },
            Item::Subscribe(subscribe) => Self::Subscribe {
                session: session_id(&subscribe.session)?,
                groups: groups(subscribe.groups)?,
                replace: subscribe.replace,
            },
            Item::Unsubscribe(subscribe) => Self::Unsubscribe {
                session: session_id(&subscribe.session)?,
                groups: groups(subscribe.groups)?,
            },
            Item::Bind(bind) => Self::Bind {
                session: session_id(&bind.session)?,
                kind: u8::try_from(bind.kind)
                    .map(BackendKind)
                    .map_err(|error| Malformed::new("bind.kind", error))?,
                instance: bind.instance,
                bind_epoch: Epoch(bind.bind_epoch),
            },
            Item::Ready(ready) => {
                Self::Ready { session: session_id(&ready.session)?, bind_epoch: Epoch(ready.bind_epoch) }
            }
            Item::Close(close) => {
                Self::Close { session: session_id(&close.session)?, code: close.code, detail: close.detail }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    #[test]
    fn gateway_items_come_back() {
        let request = ClientMessage {
            opcode: 0x1010,
            kind: MessageKind::Request,
            request: 9,
            payload: Bytes::from_static(b"x"),
        };
        let items = [
            GatewayItem::Deliver { session: SESSION, session_epoch: Epoch(2), messages: vec![request] },
            GatewayItem::Session(SessionEvent {
                session: SESSION,
                session_epoch: Epoch(2),
                what: SessionChange::LinkDead,
                account: AccountId(5),
                world: WorldId(1),
                generation: Generation(3),
            }),
            GatewayItem::Watch(GroupKey::new(0x0200, 1, 77)),
            GatewayItem::Bound(Bound {
                session: SESSION,
                session_epoch: Epoch(2),
                bind_epoch: Epoch(4),
                account: AccountId(5),
                link_dead: true,
            }),
        ];
        for item in items {
            assert_eq!(GatewayItem::try_from(proto::GatewayItem::from(item.clone())).unwrap(), item);
        }
    }

    #[test]
    fn backend_items_come_back() {
        let state = ServerMessage::state(0x1001, 3, 99, Bytes::from_static(b"cell"));
        let group = GroupKey::new(0x0200, 1, 77);
        let items = [
            BackendItem::Send {
                sessions: vec![SESSION],
                messages: vec![ServerMessage::event(0x1021, Bytes::new())],
            },
            BackendItem::Publish {
                group,
                epoch: Epoch(1),
                sequence: 8,
                what: PublishKind::Delta,
                message: state,
            },
            BackendItem::Subscribe { session: SESSION, groups: vec![group], replace: true },
            BackendItem::Unsubscribe { session: SESSION, groups: vec![group] },
            BackendItem::Bind {
                session: SESSION,
                kind: BackendKind::ZONE,
                instance: "zone-1".into(),
                bind_epoch: Epoch(6),
            },
            BackendItem::Ready { session: SESSION, bind_epoch: Epoch(6) },
            BackendItem::Close { session: SESSION, code: 10, detail: "bye".into() },
        ];
        for item in items {
            assert_eq!(BackendItem::try_from(proto::BackendItem::from(item.clone())).unwrap(), item);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = BackendItem::try_from(proto::BackendItem { item: None }).unwrap_err();
        assert!(error.to_string().contains("`item`"));
        let short = proto::Ready { session: Bytes::from_static(b"short"), bind_epoch: 0 };
        let item = proto::BackendItem { item: Some(proto::backend_item::Item::Ready(short)) };
        assert!(BackendItem::try_from(item).unwrap_err().to_string().contains("16 bytes"));
    }
}

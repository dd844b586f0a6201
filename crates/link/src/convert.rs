//! From and to `proto/link.proto`: bytes become types here, so that nothing malformed gets further.

use bytes::Bytes;
use shardkeep_rpc::{Malformed, link as proto, session_id};
use shardkeep_types::{AccountId, BackendKind, Epoch, Generation, GroupKey, SessionId, WorldId};

use crate::message::{
    BackendItem, Bound, ClientMessage, Fence, GatewayItem, PublishKind, ServerMessage, SessionChange,
    SessionEvent,
};

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

impl From<Fence> for proto::Fence {
    fn from(fence: Fence) -> Self {
        Self { session: id(fence.session), session_epoch: fence.session_epoch.0 }
    }
}

impl TryFrom<proto::Fence> for Fence {
    type Error = Malformed;

    fn try_from(fence: proto::Fence) -> Result<Self, Malformed> {
        Ok(Self { session: session_id(&fence.session)?, session_epoch: Epoch(fence.session_epoch) })
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
            GatewayItem::Fence(fence) => Item::Fence(fence.into()),
            GatewayItem::Lift(fence) => Item::Lift(fence.into()),
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
            Item::Fence(fence) => Self::Fence(fence.try_into()?),
            Item::Lift(fence) => Self::Lift(fence.try_into()?),
        })
    }
}

impl From<SessionEvent> for proto::SessionEvent {
    fn from(event: SessionEvent) -> Self {
        use proto::session_event::Kind;
        let kind = match event.kind {
            SessionChange::Joined => Kind::Joined,
            SessionChange::Resumed => Kind::Resumed,
            SessionChange::LinkDead => Kind::LinkDead,
            SessionChange::Left => Kind::Left,
        };
        Self {
            session: id(event.session),
            session_epoch: event.session_epoch.0,
            kind: kind.into(),
            account: event.account.0,
            world: event.world.0,
            generation: event.generation.0,
        }
    }
}

impl TryFrom<proto::SessionEvent> for SessionEvent {
    type Error = Malformed;

    fn try_from(event: proto::SessionEvent) -> Result<Self, Malformed> {
        use proto::session_event::Kind;
        let kind = match event.kind() {
            Kind::Joined => SessionChange::Joined,
            Kind::Resumed => SessionChange::Resumed,
            Kind::LinkDead => SessionChange::LinkDead,
            Kind::Left => SessionChange::Left,
            Kind::Unspecified => return Err(Malformed::missing("kind")),
        };
        Ok(Self {
            session: session_id(&event.session)?,
            session_epoch: Epoch(event.session_epoch),
            kind,
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
            BackendItem::Publish { group, epoch, sequence, kind, message } => Item::Publish(proto::Publish {
                group: Some(group.into()),
                epoch: epoch.0,
                sequence,
                kind: match kind {
                    PublishKind::Keyframe => proto::publish::Kind::Keyframe,
                    PublishKind::Delta => proto::publish::Kind::Delta,
                    PublishKind::Event => proto::publish::Kind::Event,
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
            BackendItem::Fenced(fence) => Item::Fenced(fence.into()),
            BackendItem::Lifted(fence) => Item::Lifted(fence.into()),
            BackendItem::Missed { session, group, message } => Item::Missed(proto::Missed {
                session: id(session),
                group: Some(group.into()),
                message: Some(message.into()),
            }),
        };
        Self { item: Some(item) }
    }
}

impl TryFrom<proto::BackendItem> for BackendItem {
    type Error = Malformed;

    fn try_from(item: proto::BackendItem) -> Result<Self, Malformed> {
        use proto::{backend_item::Item, publish::Kind};
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
                kind: match publish.kind() {
                    Kind::Keyframe => PublishKind::Keyframe,
                    Kind::Delta => PublishKind::Delta,
                    Kind::Event => PublishKind::Event,
                    Kind::Unspecified => return Err(Malformed::missing("kind")),
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
            Item::Fenced(fence) => Self::Fenced(fence.try_into()?),
            Item::Lifted(fence) => Self::Lifted(fence.try_into()?),
            Item::Missed(missed) => Self::Missed {
                session: session_id(&missed.session)?,
                group: group(missed.group)?,
                message: missed.message.ok_or_else(|| Malformed::missing("message"))?.try_into()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::MessageKind, *};

    const SESSION: SessionId = SessionId([7; 16]);

    #[test]
    fn gateway_items_round_trip() {
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
                kind: SessionChange::LinkDead,
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
            GatewayItem::Fence(Fence { session: SESSION, session_epoch: Epoch(2) }),
            GatewayItem::Lift(Fence { session: SESSION, session_epoch: Epoch(3) }),
        ];
        for item in items {
            assert_eq!(GatewayItem::try_from(proto::GatewayItem::from(item.clone())).unwrap(), item);
        }
    }

    #[test]
    fn backend_items_round_trip() {
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
                kind: PublishKind::Delta,
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
            BackendItem::Fenced(Fence { session: SESSION, session_epoch: Epoch(2) }),
            BackendItem::Lifted(Fence { session: SESSION, session_epoch: Epoch(3) }),
            BackendItem::Missed {
                session: SESSION,
                group,
                message: ServerMessage::event(0x1040, Bytes::from_static(b"once")),
            },
        ];
        for item in items {
            assert_eq!(BackendItem::try_from(proto::BackendItem::from(item.clone())).unwrap(), item);
        }
    }

    #[test]
    fn conversion_error_names_the_field() {
        let error = BackendItem::try_from(proto::BackendItem { item: None }).unwrap_err();
        assert!(error.to_string().contains("`item`"));
        let short = proto::Ready { session: Bytes::from_static(b"short"), bind_epoch: 0 };
        let item = proto::BackendItem { item: Some(proto::backend_item::Item::Ready(short)) };
        assert!(BackendItem::try_from(item).unwrap_err().to_string().contains("16 bytes"));
    }
}

//! What backends say, obeyed in the order it was said and only as far as it is theirs to say: a backend touches
//! sessions that are bound to it and groups of its own kind.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use shardkeep_cluster::link::{
    BackendInfo, BackendItem, Fence, GatewayLink, LinkHandler, MessageKind, PublishKind, ServerMessage,
};
use shardkeep_types::{BackendKind, Epoch, GroupKey, SessionId, WorldId};
use shardkeep_wire::{
    Head, Kind, Message,
    opcode::{self, Route},
    payload::{Entered, ErrorCode, QueuePlace},
    range::{FIRST_STUDIO, Range},
    session::is_reliable,
};
use tracing::warn;

use crate::{
    core::Core,
    costs::COSTS,
    groups::{Change, Publish, Published},
    metrics::{BINDS, HOT, ITEMS_DROPPED, SHED},
    session::{Binder, Bound, Ending, Inner, Kept, Outbox, Session},
};

pub(crate) struct Items {
    core: Arc<Core>,
}

type Touched = Vec<Arc<Session>>;

impl Items {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl LinkHandler for Items {
    fn up(&self, link: &GatewayLink, backend: &BackendInfo, fresh: bool) {
        self.learn_routes(backend);
        if !fresh {
            return;
        }
        for session in self.core.sessions.all() {
            self.announce(link, backend, &session);
        }
        // Under the groups' lock, so that no change slips between the list and the link.
        self.core.with_groups(|groups| {
            groups.watched(backend.kind, backend.world).into_iter().for_each(|key| link.watch(key));
            ((), Vec::new())
        });
        if backend.kind == BackendKind::WORLD {
            self.core.worlds.notify_one();
        }
    }

    fn batch(&self, link: &GatewayLink, items: Vec<BackendItem>) {
        let Some(backend) = link.info() else { return };
        let mut touched = Touched::new();
        for item in items {
            let bill = COSTS.sample().map(|mut bill| {
                said(&item, |message| bill.add(message.opcode, message.payload.len()));
                bill
            });
            self.obey(link, &backend, item, &mut touched);
            bill.into_iter().for_each(|bill| COSTS.charge(bill));
        }
        self.core.wake(touched);
    }

    fn down(&self, _: &GatewayLink) {}
}

impl Items {
    /// A fresh link to the backend: what it was asked before is lost, and it must hear of its sessions again. A
    /// world hears of them by `OpenSessions` first; until then what their clients say is held.
    fn announce(&self, link: &GatewayLink, backend: &BackendInfo, session: &Arc<Session>) {
        let mut inner = session.lock();
        if inner.moving.is_none() && inner.is_deaf_to(link.backend()) {
            link.lift(session.fence(&inner));
        }
        let Some(binding) = inner.bindings.get(backend.kind) else {
            drop(inner);
            return self.core.bind_any(session);
        };
        if *binding.instance != **link.backend() {
            return;
        }
        if backend.kind == BackendKind::WORLD {
            inner.bindings.set(backend.kind, link.backend(), Epoch::default(), true);
        } else {
            session.announce(&inner, binding, link);
        }
        if inner.awaits_fence(link.backend()) {
            link.fence(session.fence(&inner));
        }
        inner.fail_in_flight(backend.kind);
        drop(inner);
        session.bell.ring();
    }

    /// A studio's backend brings its opcodes with it.
    fn learn_routes(&self, backend: &BackendInfo) {
        if backend.kind < BackendKind::FIRST_CUSTOM {
            return;
        }
        let mut ranges = self.core.ranges.write();
        let mut more = (**ranges).clone();
        for route in &backend.routes {
            let range = Range {
                first: route.first,
                last: route.last,
                max_payload: usize::try_from(route.max_payload).unwrap_or(usize::MAX),
                per_second: route.rate,
                burst: route.burst,
                backend: backend.kind,
            };
            if let Err(error) = more.insert(range) {
                warn!(backend = %backend.id, %error, "route refused");
            }
        }
        *ranges = Arc::new(more);
    }

    fn obey(&self, link: &GatewayLink, backend: &BackendInfo, item: BackendItem, touched: &mut Touched) {
        let name = &**link.backend();
        match item {
            BackendItem::Send { sessions, messages } => {
                self.send(backend, name, &sessions, messages, touched);
            }
            BackendItem::Publish { group, epoch, what, message, .. } => {
                self.publish(backend, name, group, epoch, what, &message, touched);
            }
            BackendItem::Subscribe { session, groups, replace } => {
                self.subscribe(backend, name, session, &groups, replace, touched);
            }
            BackendItem::Unsubscribe { session, groups } => {
                self.unsubscribe(backend, name, session, &groups);
            }
            BackendItem::Bind { session, kind, instance, bind_epoch } => {
                self.bind(backend, name, session, kind, &instance, bind_epoch);
            }
            BackendItem::Ready { session, bind_epoch } => self.ready(backend, name, session, bind_epoch),
            BackendItem::Close { session, code, detail } => {
                if let Some(session) = self.bound(backend, name, session) {
                    let code = i32::try_from(code).ok().and_then(|code| ErrorCode::try_from(code).ok());
                    self.core.end(&session, Ending::new(code.unwrap_or(ErrorCode::Kicked), detail));
                }
            }
            BackendItem::Fenced(Fence { session, session_epoch }) => {
                if let Some(session) = self.core.sessions.get(session) {
                    let mut inner = session.lock();
                    if inner.epoch == session_epoch {
                        inner.fenced(link.backend());
                    }
                }
            }
            BackendItem::Lifted(Fence { session, session_epoch }) => {
                if let Some(session) = self.core.sessions.get(session) {
                    let mut inner = session.lock();
                    if inner.epoch >= session_epoch {
                        inner.lifted(name);
                    }
                }
            }
            BackendItem::Missed { session, group, message } => {
                self.missed(backend, session, group, &message, touched);
            }
        }
    }

    /// The session, if it is bound to this backend.
    fn bound(&self, backend: &BackendInfo, name: &str, session: SessionId) -> Option<Arc<Session>> {
        let session = self.core.sessions.get(session);
        let bound = session.filter(|session| session.lock().bindings.is_bound_to(backend.kind, name));
        if bound.is_none() {
            dropped("not_bound");
        }
        bound
    }

    fn send(
        &self,
        backend: &BackendInfo,
        name: &str,
        sessions: &[SessionId],
        messages: Vec<ServerMessage>,
        touched: &mut Touched,
    ) {
        let encoded: Vec<_> = messages
            .into_iter()
            .filter_map(|message| encode(backend.kind, &message).map(|bytes| (message, bytes)))
            .collect();
        for &id in sessions {
            let Some(session) = self.core.sessions.get(id) else {
                dropped("no_session");
                continue;
            };
            let left = {
                let mut inner = session.lock();
                if !inner.bindings.is_bound_to(backend.kind, name) {
                    dropped("not_bound");
                    continue;
                }
                let zoned = inner.bindings.get(BackendKind::ZONE).is_some();
                for (message, bytes) in &encoded {
                    if backend.kind == BackendKind::WORLD {
                        notice(&mut inner, message);
                    }
                    append(&mut inner, message, bytes);
                }
                zoned && inner.bindings.get(BackendKind::ZONE).is_none()
            };
            if left {
                self.core.with_groups(|groups| ((), groups.leave(id, Some(BackendKind::ZONE))));
            }
            if session.bell.touch() {
                touched.push(session);
            }
        }
    }

    /// An event of a group that the session did not hear because it moved.
    fn missed(
        &self,
        backend: &BackendInfo,
        id: SessionId,
        group: GroupKey,
        message: &ServerMessage,
        touched: &mut Touched,
    ) {
        if group.backend() != backend.kind
            || backend.world != WorldId(0) && !self.is_of_world(id, backend.world)
        {
            return dropped("foreign_group");
        }
        if kind(message.kind).is_none_or(|kind| !is_reliable(kind, message.opcode)) {
            return dropped("wrong_kind");
        }
        let Some(bytes) = encode(backend.kind, message) else { return };
        let Some(session) = self.core.sessions.get(id) else { return dropped("no_session") };
        if !self.core.with_groups(|groups| (groups.hears(id, group), Vec::new())) {
            return dropped("unheard");
        }
        session.lock().reliable(bytes);
        if session.bell.touch() {
            touched.push(session);
        }
    }

    fn is_of_world(&self, id: SessionId, world: WorldId) -> bool {
        self.core.sessions.get(id).is_some_and(|session| session.world == world)
    }

    #[allow(clippy::too_many_arguments, reason = "one for each field of the item")]
    fn publish(
        &self,
        backend: &BackendInfo,
        name: &str,
        group: GroupKey,
        epoch: Epoch,
        what: PublishKind,
        message: &ServerMessage,
        touched: &mut Touched,
    ) {
        if group.backend() != backend.kind {
            return dropped("foreign_group");
        }
        let reliable = kind(message.kind).is_some_and(|kind| is_reliable(kind, message.opcode));
        if reliable != (what == PublishKind::Event) {
            return dropped("wrong_kind");
        }
        let Some(bytes) = encode(backend.kind, message) else { return };
        let publish = Publish { from: name, world: backend.world, group, epoch, what, message: &bytes };
        let published = self.core.with_groups(|groups| match groups.publish(&publish, touched) {
            Published::To(count, watch) => (Ok(count), Vec::from_iter(watch)),
            Published::Unheard => (Err("unheard"), Vec::new()),
            Published::Outdated => (Err("outdated_writer"), Vec::new()),
            Published::Foreign => (Err("foreign_world"), Vec::new()),
        });
        match published {
            Ok(count) => {
                HOT.published.increment(1);
                HOT.fanned_out.increment(count as u64);
            }
            Err(reason) => dropped(reason),
        }
    }

    fn subscribe(
        &self,
        backend: &BackendInfo,
        name: &str,
        id: SessionId,
        keys: &[GroupKey],
        replace: bool,
        touched: &mut Touched,
    ) {
        if keys.iter().any(|key| key.backend() != backend.kind) {
            return dropped("foreign_group");
        }
        let Some(session) = self.core.sessions.get(id) else { return dropped("no_session") };
        let subscribed = self.core.with_groups(|groups| {
            // Under the groups' lock: neither an end nor a bind of the session can come between.
            if !is_of(backend, name, &session) {
                return (false, Vec::<Change>::new());
            }
            (true, groups.subscribe(&session, session.world, keys, replace.then_some(backend.kind)))
        });
        if subscribed {
            if session.bell.touch() {
                touched.push(session);
            }
        } else {
            dropped("not_bound");
        }
    }

    fn unsubscribe(&self, backend: &BackendInfo, name: &str, id: SessionId, keys: &[GroupKey]) {
        let Some(session) = self.core.sessions.get(id) else { return dropped("no_session") };
        self.core.with_groups(|groups| {
            if is_of(backend, name, &session) {
                return ((), groups.unsubscribe(id, keys));
            }
            dropped("not_bound");
            ((), Vec::new())
        });
    }

    fn bind(
        &self,
        backend: &BackendInfo,
        name: &str,
        id: SessionId,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
    ) {
        let Some(session) = self.core.sessions.get(id) else { return dropped("no_session") };
        let mut inner = session.lock();
        let by = match backend.kind {
            BackendKind::WORLD if inner.bindings.is_bound_to(BackendKind::WORLD, name) => Binder::World,
            _ if backend.kind == kind => Binder::Peer(name),
            _ => return dropped("bind_refused"),
        };
        if instance.is_empty() && by == Binder::World {
            inner.bindings.remove(kind);
            drop(inner);
            return self.core.with_groups(|groups| ((), groups.leave(id, Some(kind))));
        }
        match inner.bindings.bind(by, kind, instance, epoch) {
            Bound::Refused => dropped("bind_refused"),
            Bound::Same => {}
            Bound::New => {
                counter!(BINDS, "kind" => kind.to_string()).increment(1);
                // Under the session's lock: nothing of the session overtakes it. A target whose link is not open
                // yet is told when it opens.
                if let (Some(link), Some(binding)) = (self.core.links.get(instance), inner.bindings.get(kind))
                {
                    link.bound(session.bound(&inner, binding));
                    if inner.moving.is_some() && link.fence(session.fence(&inner)) {
                        inner.await_fence(link.backend());
                    }
                }
            }
        }
    }

    fn ready(&self, backend: &BackendInfo, name: &str, id: SessionId, epoch: Epoch) {
        let Some(session) = self.core.sessions.get(id) else { return dropped("no_session") };
        let mut inner = session.lock();
        if let Some(held) = inner.bindings.ready(backend.kind, name, epoch) {
            self.core.deliver_to(id, &mut inner, name, held);
            drop(inner);
            session.bell.ring();
        }
    }
}

/// The messages in what a backend says.
fn said(item: &BackendItem, each: impl FnMut(&ServerMessage)) {
    match item {
        BackendItem::Send { messages, .. } => messages.iter().for_each(each),
        BackendItem::Publish { message, .. } | BackendItem::Missed { message, .. } => {
            std::iter::once(message).for_each(each);
        }
        _ => {}
    }
}

fn is_of(backend: &BackendInfo, name: &str, session: &Session) -> bool {
    let inner = session.lock();
    inner.ended.is_none() && inner.bindings.is_bound_to(backend.kind, name)
}

/// What the gateway keeps of a session's dealings with its world, to tell a new world after a crash; and a session
/// without an avatar is bound to no zone.
fn notice(inner: &mut Inner, message: &ServerMessage) {
    match (message.kind, message.opcode) {
        (MessageKind::Event, opcode::QUEUE_PLACE) => {
            inner.queue_place = QueuePlace::decode(&*message.payload).map_or(0, |queue| queue.place);
        }
        (MessageKind::Reply, opcode::ENTER) => {
            inner.queue_place = 0;
            inner.character = Entered::decode(&*message.payload).map_or(0, |entered| entered.character_id);
        }
        (MessageKind::Reply, opcode::LEAVE) => {
            inner.character = 0;
            inner.bindings.remove(BackendKind::ZONE);
        }
        _ => {}
    }
}

fn append(inner: &mut Inner, message: &ServerMessage, bytes: &Bytes) {
    match message.kind {
        MessageKind::State => {
            let key = (message.opcode, message.class, message.key);
            if inner.out.state(key, bytes.clone()) == Kept::Shed {
                counter!(SHED).increment(1);
            }
        }
        MessageKind::Reply => {
            inner.answered(u32::try_from(message.request).unwrap_or_default());
            inner.reliable(bytes.clone());
        }
        MessageKind::Event | MessageKind::Request => inner.reliable(bytes.clone()),
    }
}

/// The message as clients get it, encoded once for all of them; `None` if it is not the backend's to say.
fn encode(backend: BackendKind, message: &ServerMessage) -> Option<Bytes> {
    let head = match message.kind {
        MessageKind::Reply => {
            u32::try_from(message.request).ok().filter(|request| *request > 0).map(Head::Reply)
        }
        MessageKind::Event => Some(Head::Event),
        MessageKind::State => Some(Head::State { class: message.class, key: message.key }),
        MessageKind::Request => None,
    };
    let refusal = message.kind == MessageKind::Reply && message.opcode == opcode::ERROR;
    if !refusal && !speaks(backend, message.opcode) {
        dropped("foreign_opcode");
        return None;
    }
    let message = Message::new(message.opcode, head?, &message.payload);
    if message.encoded_len() > Outbox::max_message() {
        dropped("too_large");
        return None;
    }
    Some(message.to_bytes())
}

/// Whether an opcode is this kind of backend's.
fn speaks(backend: BackendKind, opcode: u16) -> bool {
    if opcode >= FIRST_STUDIO {
        return backend >= BackendKind::FIRST_CUSTOM;
    }
    opcode::lookup(opcode).is_some_and(|rule| rule.route == Route::Backend(backend))
}

fn kind(kind: MessageKind) -> Option<Kind> {
    match kind {
        MessageKind::Request => None,
        MessageKind::Reply => Some(Kind::Reply),
        MessageKind::Event => Some(Kind::Event),
        MessageKind::State => Some(Kind::State),
    }
}

fn dropped(reason: &'static str) {
    counter!(ITEMS_DROPPED, "reason" => reason).increment(1);
}

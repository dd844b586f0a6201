//! What backends say, obeyed in the order it was said and only as far as it is theirs to say: a backend touches
//! sessions that are bound to it and groups of its own kind.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use prost::Message as _;
use shardkeep_link::{
    BackendInfo, BackendItem, Fence, GatewayLink, LinkHandler, MessageKind, PublishKind, ServerMessage,
};
use shardkeep_types::{BackendKind, Epoch, GroupKey, SessionId, WorldId};
use shardkeep_wire::{
    Head, Kind, Message,
    opcode::{self, Route},
    payload::{Entered, ErrorCode, QueuePosition},
    range::{FIRST_STUDIO, Range},
    session::is_reliable,
};
use tracing::warn;

use crate::{
    core::Core,
    costs::COSTS,
    groups::{Change, Publish, PublishOutcome},
    metrics::{BINDS, HOT, ITEMS_DROPPED, SHED},
    session::{BindRequester, Bound, Ending, EnqueueResult, Inner, Outbox, Session},
};

pub(crate) struct ItemHandler {
    core: Arc<Core>,
}

type WakeList = Vec<Arc<Session>>;

impl ItemHandler {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl LinkHandler for ItemHandler {
    fn up(&self, link: &GatewayLink, backend: &BackendInfo, fresh: bool) {
        self.add_routes(backend);
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
        let mut to_wake = WakeList::new();
        for item in items {
            let sample = COSTS.sample().map(|mut sample| {
                visit_messages(&item, |message| sample.add(message.opcode, message.payload.len()));
                sample
            });
            self.apply_item(link, &backend, item, &mut to_wake);
            sample.into_iter().for_each(|sample| COSTS.charge(sample));
        }
        self.core.wake(to_wake);
    }

    fn down(&self, _: &GatewayLink) {}
}

impl ItemHandler {
    /// A fresh link to the backend: what it was asked before is lost, and it must hear of its sessions again. A
    /// world hears of them by `OpenSessions` first; until then what their clients say is held.
    fn announce(&self, link: &GatewayLink, backend: &BackendInfo, session: &Arc<Session>) {
        let mut inner = session.lock();
        if inner.moving.is_none() && inner.is_muted(link.backend()) {
            link.lift(session.fence(&inner));
        }
        let Some(binding) = inner.bindings.get(backend.kind) else {
            drop(inner);
            return self.core.bind_auto(session);
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
        session.waker.notify();
    }

    /// A studio's backend brings its opcodes with it.
    fn add_routes(&self, backend: &BackendInfo) {
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

    fn apply_item(
        &self,
        link: &GatewayLink,
        backend: &BackendInfo,
        item: BackendItem,
        to_wake: &mut WakeList,
    ) {
        let name = &**link.backend();
        match item {
            BackendItem::Send { sessions, messages } => {
                self.send(backend, name, &sessions, messages, to_wake);
            }
            BackendItem::Publish { group, epoch, kind: publish_kind, message, .. } => {
                self.publish(backend, name, group, epoch, publish_kind, &message, to_wake);
            }
            BackendItem::Subscribe { session, groups, replace } => {
                self.subscribe(backend, name, session, &groups, replace, to_wake);
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
                self.missed(backend, session, group, &message, to_wake);
            }
        }
    }

    /// The session, if it is bound to this backend.
    fn bound(&self, backend: &BackendInfo, name: &str, session: SessionId) -> Option<Arc<Session>> {
        let session = self.core.sessions.get(session);
        let bound = session.filter(|session| session.lock().bindings.is_bound_to(backend.kind, name));
        if bound.is_none() {
            count_dropped("not_bound");
        }
        bound
    }

    fn send(
        &self,
        backend: &BackendInfo,
        name: &str,
        sessions: &[SessionId],
        messages: Vec<ServerMessage>,
        to_wake: &mut WakeList,
    ) {
        let encoded: Vec<_> = messages
            .into_iter()
            .filter_map(|message| encode(backend.kind, &message).map(|bytes| (message, bytes)))
            .collect();
        for &id in sessions {
            let Some(session) = self.core.sessions.get(id) else {
                count_dropped("no_session");
                continue;
            };
            let left_zone = {
                let mut inner = session.lock();
                if !inner.bindings.is_bound_to(backend.kind, name) {
                    count_dropped("not_bound");
                    continue;
                }
                let was_in_zone = inner.bindings.get(BackendKind::ZONE).is_some();
                for (message, bytes) in &encoded {
                    if backend.kind == BackendKind::WORLD {
                        track_world_state(&mut inner, message);
                    }
                    append(&mut inner, message, bytes);
                }
                was_in_zone && inner.bindings.get(BackendKind::ZONE).is_none()
            };
            if left_zone {
                self.core.with_groups(|groups| ((), groups.leave(id, Some(BackendKind::ZONE))));
            }
            if session.waker.set_pending() {
                to_wake.push(session);
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
        to_wake: &mut WakeList,
    ) {
        if group.backend() != backend.kind
            || backend.world != WorldId(0) && !self.is_in_world(id, backend.world)
        {
            return count_dropped("foreign_group");
        }
        if kind(message.kind).is_none_or(|kind| !is_reliable(kind, message.opcode)) {
            return count_dropped("wrong_kind");
        }
        let Some(bytes) = encode(backend.kind, message) else { return };
        let Some(session) = self.core.sessions.get(id) else { return count_dropped("no_session") };
        if !self.core.with_groups(|groups| (groups.is_subscribed(id, group), Vec::new())) {
            return count_dropped("no_subscriber");
        }
        session.lock().reliable(bytes);
        if session.waker.set_pending() {
            to_wake.push(session);
        }
    }

    fn is_in_world(&self, id: SessionId, world: WorldId) -> bool {
        self.core.sessions.get(id).is_some_and(|session| session.world == world)
    }

    #[allow(clippy::too_many_arguments, reason = "one for each field of the item")]
    fn publish(
        &self,
        backend: &BackendInfo,
        name: &str,
        group: GroupKey,
        epoch: Epoch,
        publish_kind: PublishKind,
        message: &ServerMessage,
        to_wake: &mut WakeList,
    ) {
        if group.backend() != backend.kind {
            return count_dropped("foreign_group");
        }
        let reliable = kind(message.kind).is_some_and(|kind| is_reliable(kind, message.opcode));
        if reliable != (publish_kind == PublishKind::Event) {
            return count_dropped("wrong_kind");
        }
        let Some(bytes) = encode(backend.kind, message) else { return };
        let publish =
            Publish { from: name, world: backend.world, group, epoch, kind: publish_kind, message: &bytes };
        let published = self.core.with_groups(|groups| match groups.publish(&publish, to_wake) {
            PublishOutcome::Delivered(count, watch) => (Ok(count), Vec::from_iter(watch)),
            PublishOutcome::NoSubscribers => (Err("no_subscriber"), Vec::new()),
            PublishOutcome::StaleWriter => (Err("outdated_writer"), Vec::new()),
            PublishOutcome::WrongWorld => (Err("foreign_world"), Vec::new()),
        });
        match published {
            Ok(count) => {
                HOT.published.increment(1);
                HOT.fanned_out.increment(count as u64);
            }
            Err(reason) => count_dropped(reason),
        }
    }

    fn subscribe(
        &self,
        backend: &BackendInfo,
        name: &str,
        id: SessionId,
        keys: &[GroupKey],
        replace: bool,
        to_wake: &mut WakeList,
    ) {
        if keys.iter().any(|key| key.backend() != backend.kind) {
            return count_dropped("foreign_group");
        }
        let Some(session) = self.core.sessions.get(id) else { return count_dropped("no_session") };
        let subscribed = self.core.with_groups(|groups| {
            // Under the groups' lock: neither an end nor a bind of the session can come between.
            if !is_live_and_bound(backend, name, &session) {
                return (false, Vec::<Change>::new());
            }
            (true, groups.subscribe(&session, session.world, keys, replace.then_some(backend.kind)))
        });
        if subscribed {
            if session.waker.set_pending() {
                to_wake.push(session);
            }
        } else {
            count_dropped("not_bound");
        }
    }

    fn unsubscribe(&self, backend: &BackendInfo, name: &str, id: SessionId, keys: &[GroupKey]) {
        let Some(session) = self.core.sessions.get(id) else { return count_dropped("no_session") };
        self.core.with_groups(|groups| {
            if is_live_and_bound(backend, name, &session) {
                return ((), groups.unsubscribe(id, keys));
            }
            count_dropped("not_bound");
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
        let Some(session) = self.core.sessions.get(id) else { return count_dropped("no_session") };
        let mut inner = session.lock();
        let by = match backend.kind {
            BackendKind::WORLD if inner.bindings.is_bound_to(BackendKind::WORLD, name) => {
                BindRequester::World
            }
            _ if backend.kind == kind => BindRequester::Peer(name),
            _ => return count_dropped("bind_refused"),
        };
        if instance.is_empty() && by == BindRequester::World {
            inner.bindings.remove(kind);
            drop(inner);
            return self.core.with_groups(|groups| ((), groups.leave(id, Some(kind))));
        }
        match inner.bindings.bind(by, kind, instance, epoch) {
            Bound::Refused => count_dropped("bind_refused"),
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
        let Some(session) = self.core.sessions.get(id) else { return count_dropped("no_session") };
        let mut inner = session.lock();
        if let Some(held) = inner.bindings.ready(backend.kind, name, epoch) {
            self.core.deliver_to(id, &mut inner, name, held);
            drop(inner);
            session.waker.notify();
        }
    }
}

/// The messages in what a backend says.
fn visit_messages(item: &BackendItem, each: impl FnMut(&ServerMessage)) {
    match item {
        BackendItem::Send { messages, .. } => messages.iter().for_each(each),
        BackendItem::Publish { message, .. } | BackendItem::Missed { message, .. } => {
            std::iter::once(message).for_each(each);
        }
        _ => {}
    }
}

fn is_live_and_bound(backend: &BackendInfo, name: &str, session: &Session) -> bool {
    let inner = session.lock();
    inner.ended.is_none() && inner.bindings.is_bound_to(backend.kind, name)
}

/// What the gateway keeps of a session's dealings with its world, to tell a new world after a crash; and a session
/// without an avatar is bound to no zone.
fn track_world_state(inner: &mut Inner, message: &ServerMessage) {
    match (message.kind, message.opcode) {
        (MessageKind::Event, opcode::QUEUE_POSITION) => {
            inner.queue_place = QueuePosition::decode(&*message.payload).map_or(0, |queue| queue.place);
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
            if inner.out.state(key, bytes.clone()) == EnqueueResult::Shed {
                counter!(SHED).increment(1);
            }
        }
        MessageKind::Reply => {
            inner.complete_request(u32::try_from(message.request).unwrap_or_default());
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
    if !refusal && !owns_opcode(backend, message.opcode) {
        count_dropped("foreign_opcode");
        return None;
    }
    let message = Message::new(message.opcode, head?, &message.payload);
    if message.encoded_len() > Outbox::max_message() {
        count_dropped("too_large");
        return None;
    }
    Some(message.to_bytes())
}

/// Whether an opcode is this kind of backend's.
fn owns_opcode(backend: BackendKind, opcode: u16) -> bool {
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

fn count_dropped(reason: &'static str) {
    counter!(ITEMS_DROPPED, "reason" => reason).increment(1);
}

//! Applies what backends send, in the order in which each sent it. A backend may touch only sessions that are bound to it
//! and groups of its kind.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use metrics::counter;
use shardkeep_link::{
    BackendInfo, BackendItem, Fence, GatewayLink, LinkHandler, MessageKind, PublishKind, ServerMessage,
};
use shardkeep_types::{BackendKind, Epoch, GroupKey, SessionId, WorldId};
use shardkeep_wire::{
    Head, Kind, Message,
    opcode::{self, Route},
    payload::{Error, ErrorCode},
    range::FIRST_STUDIO,
    session::is_reliable,
};
use tracing::error;

use crate::{
    app::App,
    domain::{
        costs::COSTS,
        groups::{Change, MAX_KEYFRAME_BYTES, Publish, PublishOutcome},
        session::{BindOutcome, BindRequester, Ending, Outbox, Session},
    },
    metrics::{BINDS, HOT, ITEMS_DROPPED},
};

pub(crate) struct ItemHandler {
    app: Arc<App>,
}

type WakeList = Vec<Arc<Session>>;

impl ItemHandler {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

impl LinkHandler for ItemHandler {
    fn up(&self, link: &GatewayLink, backend: &BackendInfo, fresh: bool) {
        self.app.routes().add(backend);
        if !fresh {
            return;
        }
        for session in self.app.sessions().all() {
            self.app.link_restarted(&session, backend.kind, link.backend());
        }
        // Under the lock of the groups, so that no change falls between the list and the link.
        self.app.with_groups(|groups| {
            groups.watched(backend.kind, backend.world).into_iter().for_each(|key| link.watch(key));
            ((), Vec::new())
        });
        if backend.kind == BackendKind::WORLD {
            self.app.unpresented().notify_one();
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
        self.app.wake(to_wake);
    }

    fn down(&self, _: &GatewayLink) {}
}

impl ItemHandler {
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
                    self.app.end(&session, Ending::new(code.unwrap_or(ErrorCode::Kicked), detail));
                }
            }
            BackendItem::Fenced(Fence { session, session_epoch }) => {
                if let Some(session) = self.app.sessions().get(session) {
                    session.lock().fenced(link.backend(), session_epoch);
                }
            }
            BackendItem::Lifted(Fence { session, session_epoch }) => {
                if let Some(session) = self.app.sessions().get(session) {
                    session.lock().lifted(name, session_epoch);
                }
            }
            BackendItem::Missed { session, group, message } => {
                self.missed(backend, session, group, &message, to_wake);
            }
        }
    }

    /// The session, if it is bound to this backend.
    fn bound(&self, backend: &BackendInfo, name: &str, session: SessionId) -> Option<Arc<Session>> {
        let session = self.app.sessions().get(session);
        let bound = session.filter(|session| session.lock().is_bound_to(backend.kind, name));
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
            let Some(session) = self.app.sessions().get(id) else {
                count_dropped("no_session");
                continue;
            };
            let left_zone = {
                let mut state = session.lock();
                if !state.is_bound_to(backend.kind, name) {
                    count_dropped("not_bound");
                    continue;
                }
                let was_in_zone = state.is_bound(BackendKind::ZONE);
                for (message, bytes) in &encoded {
                    state.append(backend.kind, message, bytes);
                }
                was_in_zone && !state.is_bound(BackendKind::ZONE)
            };
            if left_zone {
                self.app.with_groups(|groups| ((), groups.leave(id, Some(BackendKind::ZONE))));
            }
            if session.waker().set_pending() {
                to_wake.push(session);
            }
        }
    }

    /// An event of a group that the session missed while it moved.
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
        let Some(session) = self.app.sessions().get(id) else { return count_dropped("no_session") };
        if !self.app.with_groups(|groups| (groups.is_subscribed(id, group), Vec::new())) {
            return count_dropped("no_subscriber");
        }
        session.lock().reliable(bytes);
        if session.waker().set_pending() {
            to_wake.push(session);
        }
    }

    fn is_in_world(&self, id: SessionId, world: WorldId) -> bool {
        self.app.sessions().get(id).is_some_and(|session| session.world() == world)
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
        let published = self.app.with_groups(|groups| match groups.publish(&publish, to_wake) {
            PublishOutcome::Delivered(count, watch) => (Ok(count), Vec::from_iter(watch)),
            PublishOutcome::NoSubscribers => (Err("no_subscriber"), Vec::new()),
            PublishOutcome::StaleWriter => (Err("outdated_writer"), Vec::new()),
            PublishOutcome::WrongWorld => (Err("foreign_world"), Vec::new()),
            PublishOutcome::NoKeyframe => (Err("no_keyframe"), Vec::new()),
            PublishOutcome::TooLarge => (Err("keyframe_too_large"), Vec::new()),
        });
        match published {
            Ok(count) => {
                HOT.published.increment(1);
                HOT.fanned_out.increment(count as u64);
            }
            Err(reason) => {
                if reason == "keyframe_too_large" {
                    let what = format!("the keyframe of group {:#x}/{}", group.kind(), group.number());
                    log_too_large(backend.kind, &what, MAX_KEYFRAME_BYTES + 1, MAX_KEYFRAME_BYTES);
                }
                count_dropped(reason);
            }
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
        let Some(session) = self.app.sessions().get(id) else { return count_dropped("no_session") };
        let subscribed = self.app.with_groups(|groups| {
            // Under the lock of the groups, so that no end and no bind of the session falls between.
            if !is_live_and_bound(backend, name, &session) {
                return (false, Vec::<Change>::new());
            }
            (true, groups.subscribe(&session, session.world(), keys, replace.then_some(backend.kind)))
        });
        if subscribed {
            if session.waker().set_pending() {
                to_wake.push(session);
            }
        } else {
            count_dropped("not_bound");
        }
    }

    fn unsubscribe(&self, backend: &BackendInfo, name: &str, id: SessionId, keys: &[GroupKey]) {
        let Some(session) = self.app.sessions().get(id) else { return count_dropped("no_session") };
        self.app.with_groups(|groups| {
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
        let Some(session) = self.app.sessions().get(id) else { return count_dropped("no_session") };
        let mut state = session.lock();
        let by = match backend.kind {
            BackendKind::WORLD if state.is_bound_to(BackendKind::WORLD, name) => BindRequester::World,
            _ if backend.kind == kind => BindRequester::Peer(name),
            _ => return count_dropped("bind_refused"),
        };
        if instance.is_empty() && by == BindRequester::World {
            state.unbind(kind);
            drop(state);
            return self.app.with_groups(|groups| ((), groups.leave(id, Some(kind))));
        }
        match state.bind(by, kind, instance, epoch) {
            BindOutcome::Refused => count_dropped("bind_refused"),
            BindOutcome::Same => {}
            BindOutcome::New(effects) => {
                counter!(BINDS, "kind" => kind.to_string()).increment(1);
                self.app.apply(&session, &mut state, effects);
            }
        }
    }

    fn ready(&self, backend: &BackendInfo, name: &str, id: SessionId, epoch: Epoch) {
        let Some(session) = self.app.sessions().get(id) else { return count_dropped("no_session") };
        let mut state = session.lock();
        if let Some(effects) = state.ready(backend.kind, name, epoch) {
            self.app.apply(&session, &mut state, effects);
            drop(state);
            session.waker().notify();
        }
    }
}

/// Calls `each` with the messages of an item.
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
    let state = session.lock();
    state.ended().is_none() && state.is_bound_to(backend.kind, name)
}

/// The message as clients get it, encoded once for all of them; `None` if this kind of backend may not send it. A reply
/// that does not fit a record becomes an error reply, so that its client does not wait for it.
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
    let encoded = Message::new(message.opcode, head?, &message.payload);
    let (bytes, limit) = (encoded.encoded_len(), Outbox::max_message());
    if bytes <= limit {
        return Some(encoded.to_bytes());
    }
    count_dropped("too_large");
    let name = opcode::name(message.opcode);
    log_too_large(backend, &format!("message {name} ({:#06x})", message.opcode), bytes, limit);
    let Some(Head::Reply(request)) = head else { return None };
    let error =
        Error::of(ErrorCode::TooLarge, format!("the reply has {bytes} bytes, more than a record holds"));
    Some(Message::error_reply(request, &error).to_bytes())
}

/// Logs the first, second, fourth, eighth and so on of these faults, so that a faulty backend cannot fill the log.
fn log_too_large(backend: BackendKind, what: &str, bytes: usize, limit: usize) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        error!(%backend, bytes, limit, count, "{what} is too large for clients and was dropped; the backend must split it");
    }
}

/// Whether this kind of backend serves the opcode.
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

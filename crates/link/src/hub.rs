//! The backend's end of all its links. Every method only enqueues, so a backend never waits for a link.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::BytesMut;
use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use shardkeep_rpc::link::{self as proto, link_server::LinkServer};
use shardkeep_types::{BackendKind, Epoch, GroupKey, InstanceId, SessionId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    codec,
    event::{BackendSpec, GatewayId, LinkEvent},
    fences::{Destination, FENCE_LIFETIME, Fences},
    message::{BackendItem, Fence, MessageKind, PublishKind, ServerMessage},
    metrics::{DROPPED, FRESH, HUB_LOCK_WAITS, REFUSED},
    outbound::{Outbound, Priority},
    pipe::Limits,
    session_owners::SessionOwners,
};
use shardkeep_cluster::{MESSAGE_LIMIT, Node};

/// Most events that wait for the backend. Overflow: the gateways' streams wait, and their own bounds apply.
const EVENT_QUEUE: usize = 4096;
/// The owner is asked for a keyframe at the first delta that needs one, and again after this many.
const DELTAS_PER_KEYFRAME_REQUEST: u32 = 16;

/// Serves the links of all gateways; clones are the same hub.
#[derive(Clone)]
pub struct LinkHub {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) id: InstanceId,
    pub(crate) spec: BackendSpec,
    pub(crate) limits: Limits,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) links: HashMap<GatewayId, LinkEnd>,
    watchers: HashMap<GroupKey, Vec<GatewayId>>,
    pub(crate) session_owners: SessionOwners,
    pub(crate) fences: Fences,
    sequence: u64,
    streams: u64,
    read_permits: HashMap<GatewayId, ReadPermit>,
}

/// The right to read from a gateway. One stream has it at a time, so that events keep their order over
/// reconnections.
#[derive(Clone, Default)]
pub(crate) struct ReadPermit {
    pub(crate) reader_lock: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when a newer stream of the same gateway asks for the right.
    pub(crate) superseded: CancellationToken,
}

/// The backend's end of the link to one gateway.
pub(crate) struct LinkEnd {
    pub(crate) incarnation: u64,
    pub(crate) link_id: u64,
    pub(crate) out: Outbound,
    /// Groups whose next keyframe this gateway needs before it can use a delta, with the number of deltas held back.
    stale: HashMap<GroupKey, u32>,
    /// Groups whose owner has to be asked for a keyframe once the link has room again.
    keyframe_requests: BTreeSet<GroupKey>,
}

impl LinkHub {
    /// Add [`LinkHub::service`] to the node's routes and read the events. Events of a gateway come in the order in
    /// which it sent them.
    pub fn new(node: &Node, spec: BackendSpec) -> (Self, mpsc::Receiver<LinkEvent>) {
        Self::with_limits(node.id().clone(), spec, Limits::default())
    }

    pub fn with_limits(
        id: InstanceId,
        spec: BackendSpec,
        limits: Limits,
    ) -> (Self, mpsc::Receiver<LinkEvent>) {
        let (events, receiver) = mpsc::channel(EVENT_QUEUE);
        let shared = Shared { id, spec, limits, events, state: Mutex::default() };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    /// The gRPC service that gateways dial.
    pub fn service(&self) -> LinkServer<Self> {
        LinkServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Sends messages to sessions of one gateway, each encoded once. State messages are dropped when the link is
    /// full.
    pub fn send(&self, gateway: &GatewayId, sessions: &[SessionId], messages: Vec<ServerMessage>) {
        if sessions.is_empty() || messages.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if state.fences.is_empty() {
            return state.send(gateway, sessions.to_vec(), messages);
        }
        let mut direct = Vec::with_capacity(sessions.len());
        for &session in sessions {
            match state.fences.destination(session, gateway) {
                Destination::Direct => direct.push(session),
                Destination::Held => state.fences.hold_messages(session, &messages),
                Destination::Moved(gateway) => state.send(&gateway, vec![session], messages.clone()),
            }
        }
        if !direct.is_empty() {
            state.send(gateway, direct, messages);
        }
    }

    /// Sends a message to every subscriber of a group, on every gateway that watches it.
    pub fn publish(&self, group: GroupKey, epoch: Epoch, kind: PublishKind, message: ServerMessage) {
        let mut state = self.shared.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        if kind == PublishKind::Event {
            // Also without watchers: a subscriber may be moving to another gateway.
            state.fences.hold_event(group, &message);
        }
        let State { links, watchers, .. } = &mut *state;
        let Some(gateways) = watchers.get(&group) else { return };
        let item = codec::encode_shared(&BackendItem::Publish { group, epoch, sequence, kind, message });
        for gateway in gateways {
            if let Some(end) = links.get_mut(gateway) {
                end.publish(group, kind, &item);
                end.request_keyframes(&self.shared.events);
            }
        }
    }

    /// Subscribes the session to these groups; `replace` removes it from its other groups of this kind of backend.
    pub fn subscribe(&self, gateway: &GatewayId, session: SessionId, groups: &[GroupKey], replace: bool) {
        self.push(gateway, session, BackendItem::Subscribe { session, groups: groups.to_vec(), replace });
    }

    pub fn unsubscribe(&self, gateway: &GatewayId, session: SessionId, groups: &[GroupKey]) {
        self.push(gateway, session, BackendItem::Unsubscribe { session, groups: groups.to_vec() });
    }

    /// Hands the session's inputs of `kind` to another instance. Gateways obey only the present owner, or the
    /// session's world with a higher epoch.
    pub fn bind(
        &self,
        gateway: &GatewayId,
        session: SessionId,
        kind: BackendKind,
        instance: &str,
        bind_epoch: Epoch,
    ) {
        let bind = BackendItem::Bind { session, kind, instance: instance.to_owned(), bind_epoch };
        self.push(gateway, session, bind);
    }

    /// Answers [`LinkEvent::Bound`]: the gateway delivers the inputs that it held.
    pub fn ready(&self, gateway: &GatewayId, session: SessionId, bind_epoch: Epoch) {
        self.push(gateway, session, BackendItem::Ready { session, bind_epoch });
    }

    /// Ends the session; `code` is an `ErrorCode` of the client protocol.
    pub fn close(&self, gateway: &GatewayId, session: SessionId, code: u32, detail: &str) {
        self.push(gateway, session, BackendItem::Close { session, code, detail: detail.to_owned() });
    }

    /// Number of gateways that watch the group.
    pub fn watchers(&self, group: GroupKey) -> usize {
        self.shared.lock().watchers.get(&group).map_or(0, Vec::len)
    }

    fn push(&self, gateway: &GatewayId, session: SessionId, item: BackendItem) {
        let mut state = self.shared.lock();
        match state.fences.destination(session, gateway) {
            Destination::Direct => state.push(gateway, item),
            Destination::Held => state.fences.hold(session, item),
            Destination::Moved(gateway) => state.push(&gateway, item),
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.try_lock().unwrap_or_else(|| {
            counter!(HUB_LOCK_WAITS).increment(1);
            self.state.lock()
        })
    }

    /// Stops the reader of this gateway's earlier stream, and lets the next one wait until it has finished.
    pub(crate) fn next_read_permit(&self, gateway: &GatewayId) -> ReadPermit {
        let mut state = self.lock();
        let read_permit = state.read_permits.entry(gateway.clone()).or_default();
        read_permit.superseded.cancel();
        read_permit.superseded = CancellationToken::new();
        read_permit.clone()
    }

    /// A gateway's stream begins; `None` if a later start of that gateway is connected already.
    pub(crate) fn open(
        &self,
        gateway: &GatewayId,
        hello: &proto::GatewayHello,
        incarnation: u64,
        permit: mpsc::Permit<'_, LinkEvent>,
    ) -> Option<Opened> {
        let mut state = self.lock();
        if state.links.get(gateway).is_some_and(|end| end.incarnation > incarnation) {
            return None;
        }
        let resumed = state.links.get(gateway).is_some_and(|end| {
            end.link_id == hello.link_id
                && end.incarnation == incarnation
                && hello.backend_incarnation == self.id.incarnation
                && !end.out.overflowed()
                && end.out.pipe.can_resume(hello.received)
        });
        if !resumed {
            counter!(FRESH, "side" => "backend").increment(1);
            state.forget_gateway(gateway);
        }
        state.streams += 1;
        let stream = state.streams;
        let end = state.links.entry(gateway.clone()).or_insert_with(|| LinkEnd {
            incarnation,
            link_id: hello.link_id,
            out: Outbound::new("backend", self.limits),
            stale: HashMap::new(),
            keyframe_requests: BTreeSet::new(),
        });
        if resumed {
            end.out.pipe.resume(hello.received);
        }
        end.out.attach(stream);
        permit.send(LinkEvent::Up { gateway: gateway.clone(), fresh: !resumed });
        Some(Opened { stream, resumed, received: end.out.pipe.received() })
    }

    pub(crate) fn closed(&self, gateway: &GatewayId, stream: u64) {
        if let Some(end) = self.lock().links.get_mut(gateway).filter(|end| end.out.carried_by(stream)) {
            end.out.close();
        }
    }

    /// A session leaves its gateway: keeps later messages, and tells the gateway where the earlier ones end.
    pub(crate) fn raise(self: &Arc<Self>, state: &mut State, gateway: &GatewayId, fence: Fence) {
        let Fence { session, session_epoch } = fence;
        // A gateway that has already lost the session only gets its answer.
        if state.session_owners.allows(session, session_epoch) {
            let number = state.fences.raise(session, session_epoch, gateway);
            let shared = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(FENCE_LIFETIME).await;
                shared.lock().fences.expire(session, number);
            });
        }
        state.push(gateway, BackendItem::Fenced(fence));
    }

    /// The grace time after a stream has passed: the gateway is down unless another stream came.
    pub(crate) fn expire(&self, gateway: &GatewayId, stream: u64, permit: mpsc::Permit<'_, LinkEvent>) {
        let mut state = self.lock();
        if state.links.get(gateway).is_some_and(|end| end.out.detached_since(stream)) {
            state.forget_gateway(gateway);
            permit.send(LinkEvent::Down { gateway: gateway.clone() });
        }
    }
}

pub(crate) struct Opened {
    pub(crate) stream: u64,
    pub(crate) resumed: bool,
    pub(crate) received: u64,
}

impl State {
    /// A gateway announces the session: sends it what was kept.
    pub(crate) fn deliver_held(&mut self, session: SessionId, epoch: Epoch, gateway: &GatewayId) {
        if self.fences.is_empty() {
            return;
        }
        for item in self.fences.lift(session, epoch, gateway) {
            self.push(gateway, item);
        }
    }

    /// Sends what was kept, and then tells the gateway that this was all.
    pub(crate) fn lift(&mut self, gateway: &GatewayId, fence: Fence) {
        self.deliver_held(fence.session, fence.session_epoch, gateway);
        self.push(gateway, BackendItem::Lifted(fence));
    }

    fn send(&mut self, gateway: &GatewayId, sessions: Vec<SessionId>, messages: Vec<ServerMessage>) {
        let state_only = messages.iter().all(|message| message.kind == MessageKind::State);
        let item = BackendItem::Send { sessions, messages };
        if !state_only {
            return self.push(gateway, item);
        }
        let bytes = item.bytes();
        self.with_link(gateway, |end| {
            if end.out.offer(bytes, |out| codec::encode(out, &item)).is_err() {
                counter!(DROPPED, "side" => "backend").increment(1);
            }
        });
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers make the item for this call")]
    fn push(&mut self, gateway: &GatewayId, item: BackendItem) {
        self.with_link(gateway, |end| {
            end.out.push(item.bytes(), Priority::Prompt, |out| codec::encode(out, &item));
        });
    }

    fn with_link(&mut self, gateway: &GatewayId, act: impl FnOnce(&mut LinkEnd)) {
        match self.links.get_mut(gateway) {
            Some(end) => act(end),
            None => counter!(REFUSED, "side" => "backend", "reason" => "no_link").increment(1),
        }
    }

    pub(crate) fn watch(&mut self, gateway: &GatewayId, group: GroupKey) {
        let gateways = self.watchers.entry(group).or_default();
        if !gateways.contains(gateway) {
            gateways.push(gateway.clone());
        }
        if let Some(end) = self.links.get_mut(gateway) {
            end.stale.insert(group, 0);
        }
    }

    pub(crate) fn unwatch(&mut self, gateway: &GatewayId, group: GroupKey) {
        if let Some(gateways) = self.watchers.get_mut(&group) {
            gateways.retain(|other| other != gateway);
            if gateways.is_empty() {
                self.watchers.remove(&group);
            }
        }
        if let Some(end) = self.links.get_mut(gateway) {
            end.stale.remove(&group);
        }
    }

    fn forget_gateway(&mut self, gateway: &GatewayId) {
        if let Some(mut end) = self.links.remove(gateway) {
            end.out.close();
        }
        self.watchers.retain(|_, gateways| {
            gateways.retain(|other| other != gateway);
            !gateways.is_empty()
        });
        self.session_owners.forget(gateway);
    }
}

impl LinkEnd {
    /// `item` is encoded once for all gateways that watch the group.
    fn publish(&mut self, group: GroupKey, kind: PublishKind, item: &[u8]) {
        let encode = |out: &mut BytesMut| out.extend_from_slice(item);
        match kind {
            PublishKind::Event => self.out.push(item.len(), Priority::Prompt, encode),
            PublishKind::Keyframe => match self.out.offer(item.len(), encode) {
                Ok(()) => {
                    self.stale.remove(&group);
                }
                Err(_) => self.dropped(group),
            },
            // A part without its keyframe is useless, and the keyframe was asked for already.
            PublishKind::Part if self.stale.contains_key(&group) => {}
            PublishKind::Part | PublishKind::Delta => match self.stale.get_mut(&group) {
                Some(held_back) => {
                    if held_back.is_multiple_of(DELTAS_PER_KEYFRAME_REQUEST) {
                        self.keyframe_requests.insert(group);
                    }
                    *held_back += 1;
                }
                None if self.out.offer(item.len(), encode).is_err() => self.dropped(group),
                None => {}
            },
        }
    }

    fn dropped(&mut self, group: GroupKey) {
        counter!(DROPPED, "side" => "backend").increment(1);
        self.stale.insert(group, 0);
        self.keyframe_requests.insert(group);
    }

    /// Asks for dropped keyframes once the link has room for them.
    pub(crate) fn request_keyframes(&mut self, events: &mpsc::Sender<LinkEvent>) {
        if !self.out.pipe.has_headroom() {
            return;
        }
        while let Some(group) = self.keyframe_requests.pop_first() {
            if self.stale.contains_key(&group)
                && events.try_send(LinkEvent::KeyframeWanted { group }).is_err()
            {
                self.keyframe_requests.insert(group);
                break;
            }
        }
    }
}

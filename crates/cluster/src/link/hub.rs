//! The backend's end of all its links. Every method only enqueues: a backend never waits for a link.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::BytesMut;
use metrics::counter;
use parking_lot::Mutex;
use shardkeep_rpc::link::{self as proto, link_server::LinkServer};
use shardkeep_types::{BackendKind, Epoch, GroupKey, InstanceId, SessionId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    encode,
    event::{BackendSpec, GatewayId, LinkEvent},
    message::{BackendItem, PublishKind, ServerMessage},
    metrics::{DROPPED, FRESH, REFUSED},
    outbound::Outbound,
    pipe::Limits,
    seats::Seats,
};
use crate::{MESSAGE_LIMIT, Node};

/// Bound of the channel of events; beyond it the gateways' streams wait, and their own bounds apply.
const EVENTS: usize = 4096;
/// The owner is asked for a keyframe at the first delta that needs one, and again after so many.
const ASK_AGAIN: u32 = 16;

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
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) links: HashMap<GatewayId, End>,
    watchers: HashMap<GroupKey, Vec<GatewayId>>,
    pub(crate) seats: Seats,
    sequence: u64,
    streams: u64,
    turns: HashMap<GatewayId, Turn>,
}

/// The right to read from a gateway: one stream at a time, so that events keep their order over reconnections.
#[derive(Clone, Default)]
pub(crate) struct Turn {
    pub(crate) reading: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when a newer stream of the same gateway wants its turn.
    pub(crate) over: CancellationToken,
}

/// This side of the link to one gateway.
pub(crate) struct End {
    pub(crate) incarnation: u64,
    pub(crate) link_id: u64,
    pub(crate) out: Outbound,
    /// Groups whose next keyframe this gateway needs before any delta makes sense, with the deltas held back.
    stale: HashMap<GroupKey, u32>,
    /// Groups whose owner is to be asked as soon as there is room again.
    ask: BTreeSet<GroupKey>,
}

impl LinkHub {
    /// Add [`LinkHub::service`] to the node's routes and read the events; the order of events is the order in which
    /// each gateway said them.
    pub fn new(node: &Node, spec: BackendSpec) -> (Self, mpsc::Receiver<LinkEvent>) {
        Self::with_limits(node.id().clone(), spec, Limits::default())
    }

    pub fn with_limits(
        id: InstanceId,
        spec: BackendSpec,
        limits: Limits,
    ) -> (Self, mpsc::Receiver<LinkEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Shared { id, spec, limits, events, state: Mutex::default() };
        (Self { shared: Arc::new(shared) }, receiver)
    }

    /// The gRPC service that gateways dial.
    pub fn service(&self) -> LinkServer<Self> {
        LinkServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Messages to some sessions of one gateway, each encoded once. State messages are dropped when the link is full.
    pub fn send(&self, gateway: &GatewayId, sessions: &[SessionId], messages: Vec<ServerMessage>) {
        if sessions.is_empty() || messages.is_empty() {
            return;
        }
        let state_only = messages.iter().all(|message| message.kind == super::MessageKind::State);
        let item = BackendItem::Send { sessions: sessions.to_vec(), messages };
        let bytes = item.bytes();
        self.with_link(gateway, |end| {
            let encode = |out: &mut BytesMut| encode::backend_item(out, item);
            if !state_only {
                end.out.push(bytes, encode);
            } else if end.out.offer(bytes, encode).is_err() {
                counter!(DROPPED, "side" => "backend").increment(1);
            }
        });
    }

    /// A message to every subscriber of a group, on every gateway that watches it.
    pub fn publish(&self, group: GroupKey, epoch: Epoch, what: PublishKind, message: ServerMessage) {
        let mut state = self.shared.state.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        let State { links, watchers, .. } = &mut *state;
        let Some(gateways) = watchers.get(&group) else { return };
        let item = encode::backend_item_bytes(BackendItem::Publish { group, epoch, sequence, what, message });
        for gateway in gateways {
            if let Some(end) = links.get_mut(gateway) {
                end.publish(group, what, &item);
                end.ask_for_keyframes(&self.shared.events);
            }
        }
    }

    /// The session hears these groups from now on; `replace` drops its other groups of this kind of backend.
    pub fn subscribe(&self, gateway: &GatewayId, session: SessionId, groups: &[GroupKey], replace: bool) {
        self.push(gateway, BackendItem::Subscribe { session, groups: groups.to_vec(), replace });
    }

    pub fn unsubscribe(&self, gateway: &GatewayId, session: SessionId, groups: &[GroupKey]) {
        self.push(gateway, BackendItem::Unsubscribe { session, groups: groups.to_vec() });
    }

    /// Hands the session's inputs of `kind` to another instance. Only its present owner, or its world with a higher
    /// epoch, is obeyed.
    pub fn bind(
        &self,
        gateway: &GatewayId,
        session: SessionId,
        kind: BackendKind,
        instance: &str,
        bind_epoch: Epoch,
    ) {
        self.push(gateway, BackendItem::Bind { session, kind, instance: instance.to_owned(), bind_epoch });
    }

    /// The answer to [`LinkEvent::Bound`]: the inputs held back may flow.
    pub fn ready(&self, gateway: &GatewayId, session: SessionId, bind_epoch: Epoch) {
        self.push(gateway, BackendItem::Ready { session, bind_epoch });
    }

    /// Ends the session; `code` is an `ErrorCode` of the client protocol.
    pub fn close(&self, gateway: &GatewayId, session: SessionId, code: u32, detail: &str) {
        self.push(gateway, BackendItem::Close { session, code, detail: detail.to_owned() });
    }

    /// Number of gateways that watch the group.
    pub fn watchers(&self, group: GroupKey) -> usize {
        self.shared.state.lock().watchers.get(&group).map_or(0, Vec::len)
    }

    fn push(&self, gateway: &GatewayId, item: BackendItem) {
        self.with_link(gateway, |end| end.out.push(item.bytes(), |out| encode::backend_item(out, item)));
    }

    fn with_link(&self, gateway: &GatewayId, act: impl FnOnce(&mut End)) {
        match self.shared.state.lock().links.get_mut(gateway) {
            Some(end) => act(end),
            None => counter!(REFUSED, "side" => "backend", "reason" => "no_link").increment(1),
        }
    }
}

impl Shared {
    /// Ends the reader of this gateway's stream before, and lets the next one wait for it.
    pub(crate) fn next_turn(&self, gateway: &GatewayId) -> Turn {
        let mut state = self.state.lock();
        let turn = state.turns.entry(gateway.clone()).or_default();
        turn.over.cancel();
        turn.over = CancellationToken::new();
        turn.clone()
    }

    /// A gateway's stream begins; `None` if a later start of that gateway is connected already.
    pub(crate) fn open(
        &self,
        gateway: &GatewayId,
        hello: &proto::GatewayHello,
        incarnation: u64,
        place: mpsc::Permit<'_, LinkEvent>,
    ) -> Option<Opened> {
        let mut state = self.state.lock();
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
        let end = state.links.entry(gateway.clone()).or_insert_with(|| End {
            incarnation,
            link_id: hello.link_id,
            out: Outbound::new("backend", self.limits),
            stale: HashMap::new(),
            ask: BTreeSet::new(),
        });
        if resumed {
            end.out.pipe.resume(hello.received);
        }
        end.out.attach(stream);
        place.send(LinkEvent::Up { gateway: gateway.clone(), fresh: !resumed });
        Some(Opened { stream, resumed, received: end.out.pipe.received() })
    }

    pub(crate) fn closed(&self, gateway: &GatewayId, stream: u64) {
        if let Some(end) = self.state.lock().links.get_mut(gateway).filter(|end| end.out.carried_by(stream)) {
            end.out.close();
        }
    }

    /// The grace after a stream is over: if no other came, the gateway is down.
    pub(crate) fn expire(&self, gateway: &GatewayId, stream: u64, place: mpsc::Permit<'_, LinkEvent>) {
        let mut state = self.state.lock();
        if state.links.get(gateway).is_some_and(|end| end.out.abandoned_since(stream)) {
            state.forget_gateway(gateway);
            place.send(LinkEvent::Down { gateway: gateway.clone() });
        }
    }
}

pub(crate) struct Opened {
    pub(crate) stream: u64,
    pub(crate) resumed: bool,
    pub(crate) received: u64,
}

impl State {
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
        self.seats.forget(gateway);
    }
}

impl End {
    /// `item` is encoded, for all gateways that watch the group.
    fn publish(&mut self, group: GroupKey, what: PublishKind, item: &[u8]) {
        let encode = |out: &mut BytesMut| out.extend_from_slice(item);
        match what {
            PublishKind::Event => self.out.push(item.len(), encode),
            PublishKind::Keyframe => match self.out.offer(item.len(), encode) {
                Ok(()) => {
                    self.stale.remove(&group);
                }
                Err(_) => self.dropped(group),
            },
            PublishKind::Delta => match self.stale.get_mut(&group) {
                Some(held_back) => {
                    if held_back.is_multiple_of(ASK_AGAIN) {
                        self.ask.insert(group);
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
        self.ask.insert(group);
    }

    /// Asks for the keyframes that were dropped, once there is room for them.
    pub(crate) fn ask_for_keyframes(&mut self, events: &mpsc::Sender<LinkEvent>) {
        if !self.out.pipe.relaxed() {
            return;
        }
        while let Some(group) = self.ask.pop_first() {
            if self.stale.contains_key(&group)
                && events.try_send(LinkEvent::KeyframeWanted { group }).is_err()
            {
                self.ask.insert(group);
                break;
            }
        }
    }
}

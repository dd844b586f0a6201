//! Brings events of gateways and calls of other daemons to the space that they concern.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_link::{ClientMessage, GatewayId, LinkEvent, LinkHub, MessageKind, SessionChange};
use shardkeep_types::{CharacterId, Epoch, GroupKey, SessionId, SpaceId, WorldId};
use shardkeep_wire::payload::ErrorCode;
use tokio::sync::{Notify, mpsc};

use crate::{
    domain::{bindings::Binding, outbox, publish, routes::Routes, watchers::Watchers},
    edge::message::Message,
    metrics,
};

/// The most messages of clients that wait for one space: ten thousand clients at the rate of their route, for 100 ms.
/// Overflow: requests are answered with UNAVAILABLE, and moves are dropped and counted. Other events are never dropped.
const MAX_WAITING: usize = 32_768;

/// How long a call waits for a space to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);

/// The ends of the queues to one space.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) messages: mpsc::Sender<Message>,
    links: mpsc::UnboundedSender<LinkEvent>,
    waiting: Arc<AtomicUsize>,
}

/// Link events for one space, in order.
pub(crate) struct SpaceLinks {
    events: mpsc::UnboundedReceiver<LinkEvent>,
    waiting: Arc<AtomicUsize>,
}

impl SpaceLinks {
    pub(crate) async fn recv(&mut self) -> Option<LinkEvent> {
        let event = self.events.recv().await?;
        Some(self.taken(event))
    }

    pub(crate) fn try_recv(&mut self) -> Option<LinkEvent> {
        let event = self.events.try_recv().ok()?;
        Some(self.taken(event))
    }

    fn taken(&self, event: LinkEvent) -> LinkEvent {
        if let LinkEvent::Deliver { messages, .. } = &event {
            self.waiting.fetch_sub(messages.len(), Ordering::Relaxed);
        }
        event
    }
}

#[derive(Default)]
struct State {
    routes: Routes,
    spaces: BTreeMap<SpaceId, Queues>,
    /// Also of spaces that are not here yet: a gateway announces a watch once.
    watchers: Watchers,
    gateways: Vec<GatewayId>,
}

impl Queues {
    /// An error means that the space has just ended, and that its routes will be removed.
    fn push(&self, event: LinkEvent) {
        let _ = self.links.send(event);
    }
}

impl State {
    fn push_to(&self, space: Option<SpaceId>, event: LinkEvent) {
        if let Some(queues) = space.and_then(|space| self.spaces.get(&space)) {
            queues.push(event);
        }
    }

    fn push_to_all(&self, event: &LinkEvent) {
        self.spaces.values().for_each(|queues| queues.push(event.clone()));
    }

    /// Forgets what a gateway has announced.
    fn forget_gateway(&mut self, gateway: &GatewayId) {
        self.routes.forget_gateway(gateway);
        self.watchers.remove_gateway(gateway);
        self.gateways.retain(|known| known != gateway);
    }
}

fn bound(session: SessionId, binding: Binding) -> LinkEvent {
    let Binding { gateway, session_epoch, bind_epoch, link_dead, account } = binding;
    LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, account, link_dead }
}

#[derive(Clone)]
pub(crate) struct Switchboard {
    world: WorldId,
    hub: LinkHub,
    state: Arc<Mutex<State>>,
    /// Tells that a space has begun.
    begun: Arc<Notify>,
}

impl Switchboard {
    pub(crate) fn new(world: WorldId, hub: LinkHub) -> Self {
        Self { world, hub, state: Arc::default(), begun: Arc::default() }
    }

    /// Connects a space. It first gets the gateways that are up and their watches.
    pub(crate) fn connect(&self, space: SpaceId, messages: mpsc::Sender<Message>) -> SpaceLinks {
        let (links, events) = mpsc::unbounded_channel();
        let queues = Queues { messages, links, waiting: Arc::default() };
        let waiting = queues.waiting.clone();
        let mut state = self.state.lock();
        for gateway in &state.gateways {
            queues.push(LinkEvent::Up { gateway: gateway.clone(), fresh: true });
        }
        for (group, gateway) in state.watchers.iter() {
            if self.space_of(group) == Some(space) {
                queues.push(LinkEvent::Watched { gateway: gateway.clone(), group });
            }
        }
        state.spaces.insert(space, queues);
        self.begun.notify_waiters();
        SpaceLinks { events, waiting }
    }

    pub(crate) fn disconnect(&self, space: SpaceId) {
        let mut state = self.state.lock();
        state.spaces.remove(&space);
        state.routes.space_ended(space);
    }

    /// The queue of a space that is here.
    pub(crate) fn space(&self, space: SpaceId) -> Option<mpsc::Sender<Message>> {
        self.state.lock().spaces.get(&space).map(|queues| queues.messages.clone())
    }

    /// The queue of a space that is here, or begins here soon: the world may send an avatar before this zone has read the
    /// partition that gives it the space.
    pub(crate) async fn space_soon(&self, space: SpaceId) -> Option<mpsc::Sender<Message>> {
        let wait = async {
            loop {
                let begun = self.begun.notified();
                if let Some(queue) = self.space(space) {
                    return queue;
                }
                begun.await;
            }
        };
        tokio::time::timeout(BEGINS_WITHIN, wait).await.ok()
    }

    /// The queues of all spaces.
    pub(crate) fn spaces(&self) -> Vec<(SpaceId, mpsc::Sender<Message>)> {
        let state = self.state.lock();
        state.spaces.iter().map(|(&space, queues)| (space, queues.messages.clone())).collect()
    }

    /// The queue of the space in which a character most likely is.
    pub(crate) fn space_of_character(&self, character: CharacterId) -> Option<mpsc::Sender<Message>> {
        let state = self.state.lock();
        let spaces = state.routes.of_character(character);
        spaces.filter_map(|space| state.spaces.get(&space)).last().map(|queues| queues.messages.clone())
    }

    /// An avatar will enter a space with this ownership epoch.
    pub(crate) fn expect(&self, session: SessionId, character: CharacterId, space: SpaceId, epoch: Epoch) {
        let mut state = self.state.lock();
        if let Some(binding) = state.routes.expect(session, character, space, epoch)
            && let Some(queues) = state.spaces.get(&space)
        {
            queues.push(bound(session, binding));
        }
    }

    pub(crate) fn left(&self, session: SessionId, space: SpaceId) {
        self.state.lock().routes.left(Instant::now(), session, space);
    }

    pub(crate) fn remove_expired(&self) {
        self.state.lock().routes.remove_expired(Instant::now());
    }

    /// Brings an event to its space, or to all that it concerns.
    pub(crate) fn link_event(&self, event: LinkEvent) {
        let now = Instant::now();
        let state = &mut *self.state.lock();
        match event {
            LinkEvent::Up { ref gateway, fresh } => {
                if fresh {
                    state.forget_gateway(gateway);
                }
                state.gateways.retain(|known| known != gateway);
                state.gateways.push(gateway.clone());
                state.push_to_all(&event);
            }
            LinkEvent::Down { ref gateway } => {
                state.forget_gateway(gateway);
                state.push_to_all(&event);
            }
            LinkEvent::Deliver { gateway, session, session_epoch, messages } => {
                let Some(queues) = state.routes.of_session(session).and_then(|it| state.spaces.get(&it))
                else {
                    messages.iter().for_each(|_| metrics::refused("unknown_session"));
                    return;
                };
                if queues.waiting.load(Ordering::Relaxed) + messages.len() > MAX_WAITING {
                    self.refuse(&gateway, session, &messages);
                    return;
                }
                queues.waiting.fetch_add(messages.len(), Ordering::Relaxed);
                queues.push(LinkEvent::Deliver { gateway, session, session_epoch, messages });
            }
            LinkEvent::Session { event: ref change, .. } => {
                let (session, ended) = (change.session, change.kind == SessionChange::Left);
                for space in state.routes.concerned(session) {
                    state.push_to(Some(space), event.clone());
                }
                if ended {
                    state.routes.session_ended(now, session);
                }
            }
            LinkEvent::Watched { ref gateway, group } => {
                state.watchers.add(group, gateway.clone());
                state.push_to(self.space_of(group), event);
            }
            LinkEvent::Unwatched { ref gateway, group } => {
                state.watchers.remove(group, gateway);
                state.push_to(self.space_of(group), event);
            }
            LinkEvent::KeyframeWanted { group } => state.push_to(self.space_of(group), event),
            LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, account, link_dead } => {
                let binding = Binding { gateway, account, session_epoch, bind_epoch, link_dead };
                let space = state.routes.bound(now, session, &binding);
                state.push_to(space, bound(session, binding));
            }
        }
    }

    fn space_of(&self, group: GroupKey) -> Option<SpaceId> {
        publish::cell_of(group, self.world).map(|(cell, _)| cell.space)
    }

    fn refuse(&self, gateway: &GatewayId, session: SessionId, messages: &[ClientMessage]) {
        let requests = messages.iter().filter(|message| message.kind == MessageKind::Request);
        let refusals = requests.map(|message| {
            outbox::refusal(message.request, ErrorCode::Unavailable, "the zone has too much to do")
        });
        let refusals: Vec<_> = refusals.collect();
        (0..messages.len()).for_each(|_| metrics::dropped("inputs"));
        if !refusals.is_empty() {
            self.hub.send(gateway, &[session], refusals);
        }
    }
}

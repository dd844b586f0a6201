//! The state of a session. Methods on control paths return the effects on backends; the relay of a client's messages
//! calls the way to backends directly, on borrowed data.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use metrics::counter;
use shardkeep_auth::{Key, session::SessionKeys};
use shardkeep_link::{ClientMessage, ClientView, MessageKind, ServerMessage, SessionChange};
use shardkeep_types::{BackendKind, Epoch, GroupKey};
use shardkeep_wire::{
    Fault, Head, Message, WireError,
    message::{self, MessageError},
    opcode::{self, Violation},
    payload::{Ack, Error, ErrorCode, Ping},
    range::Ranges,
    record::Writer,
    session::{Inbox, SessionError},
};
use tokio::sync::oneshot;

use super::{
    bindings::{BindRequester, Binding, Bindings, Bound, Target},
    delayed::DelayedState,
    effect::{BackendEffect, Effects},
    ending::{Ending, RETRY},
    inputs::{Deliver, Judge, Verdict, for_backend, owned},
    keys::{ResumeClaim, ResumeKeys},
    moving::Moving,
    outbox::{EnqueueResult, Outbox},
    requests::Requests,
    snapshot::{HeldBinding, Snapshot},
    world_record::WorldRecord,
};
use crate::{
    domain::costs::{COSTS, CostSample},
    metrics::{FAULTS, HOT, REFUSED, SHED},
};

pub(crate) struct State {
    /// Given by the world; a session of a higher epoch replaces this one.
    epoch: Epoch,
    keys: ResumeKeys,
    client: ClientState,
    ended: Option<Ending>,
    out: Outbox,
    inbox: Inbox,
    bindings: Bindings,
    requests: Requests,
    judge: Judge,
    delayed: DelayedState,
    /// The key that the client proved when the log was last begun anew. A client that proves this key again does not
    /// know that both counts began again.
    restart_key: Option<Key>,
    moving: Moving,
    world: WorldRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Connected { connection: u64, address: IpAddr },
    Disconnected { since: Instant, address: IpAddr },
}

/// Actions that follow from a record.
#[derive(Default)]
pub(crate) struct Outputs {
    /// The record was the last under the client's present key.
    pub(crate) key_update: bool,
    pub(crate) logout: bool,
    /// Set if the time of this record is measured.
    pub(crate) sample: Option<CostSample>,
}

/// The result of a backend's request to bind the session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BindOutcome {
    New(Effects),
    Same,
    Refused,
}

/// Identity, epoch and ending.
impl State {
    pub(super) fn new(keys: ResumeKeys, connection: u64, address: IpAddr) -> Self {
        Self {
            epoch: Epoch::default(),
            keys,
            client: ClientState::Connected { connection, address },
            ended: None,
            out: Outbox::new(),
            inbox: Inbox::default(),
            bindings: Bindings::default(),
            requests: Requests::default(),
            judge: Judge::default(),
            delayed: DelayedState::default(),
            restart_key: None,
            moving: Moving::default(),
            world: WorldRecord::default(),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The world has given the session this epoch.
    pub(crate) fn opened(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// The key that the world keeps, and what a new leader of the world has to know.
    pub(crate) fn world_record(&self) -> (&Key, WorldRecord) {
        (self.keys.world(), self.world)
    }

    pub(crate) fn ended(&self) -> Option<&Ending> {
        self.ended.as_ref()
    }

    /// Ends the session. The first reason stays.
    pub(crate) fn end(&mut self, ending: Ending) {
        self.ended.get_or_insert(ending);
    }

    /// Ends the session if it has not ended, and returns why it ended and which backends have to be told.
    pub(crate) fn finish(&mut self) -> (Ending, Effects) {
        let ending = self.ended.get_or_insert(Ending::LinkLoss).clone();
        let effects =
            if ending == Ending::Moved { Effects::new() } else { self.tell_bound(SessionChange::Left) };
        (ending, effects)
    }

    fn tell_bound(&self, change: SessionChange) -> Effects {
        let effect = |binding: &Binding| (binding.instance().clone(), BackendEffect::Changed(change));
        self.bindings.iter().map(effect).collect()
    }
}

/// The client's connection.
impl State {
    /// The connection that carries the session; 0: none. Connections are numbered in the order in which they come.
    pub(crate) fn connection(&self) -> u64 {
        match self.client {
            ClientState::Connected { connection, .. } => connection,
            ClientState::Disconnected { .. } => 0,
        }
    }

    pub(crate) fn is_attached_to(&self, connection: u64) -> bool {
        self.is_connected() && self.connection() == connection
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.client, ClientState::Connected { .. })
    }

    /// Whether backends count the client as away. While the session moves to another gateway, backends are not told
    /// that the client is disconnected.
    pub(crate) fn is_link_dead(&self) -> bool {
        !self.is_connected() && !self.moving.is_leaving()
    }

    pub(crate) fn disconnected_since(&self) -> Option<Instant> {
        match self.client {
            ClientState::Connected { .. } => None,
            ClientState::Disconnected { since, .. } => Some(since),
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self.client {
            ClientState::Connected { address, .. } | ClientState::Disconnected { address, .. } => address,
        }
    }

    /// The client is back on a new connection and has `received` reliable messages. Later ones are queued again.
    ///
    /// # Errors
    /// When the client cannot have that many messages.
    pub(crate) fn attach(
        &mut self,
        connection: u64,
        address: IpAddr,
        received: u64,
        change: SessionChange,
    ) -> Result<Effects, SessionError> {
        self.out.attach(received)?;
        self.client = ClientState::Connected { connection, address };
        Ok(self.tell_bound(change))
    }

    /// A restored session begins to send on the connection with which it was made.
    ///
    /// # Errors
    /// When the client cannot have that many messages.
    pub(crate) fn attach_restored(&mut self, received: u64) -> Result<(), SessionError> {
        self.out.attach(received)
    }

    /// The connection is lost. `None`: another connection carries the session.
    pub(crate) fn connection_lost(&mut self, connection: u64, now: Instant) -> Option<Effects> {
        if !self.is_attached_to(connection) {
            return None;
        }
        self.detach(now);
        Some(if self.ended.is_none() { self.tell_bound(SessionChange::LinkDead) } else { Effects::new() })
    }

    fn detach(&mut self, now: Instant) {
        self.client = ClientState::Disconnected { since: now, address: self.address() };
        self.out.detach();
        self.delayed.clear();
    }

    /// The gateway's key that the client has proved, if any.
    pub(crate) fn proved_key(&self, claim: &ResumeClaim<'_>, mac: &[u8]) -> Option<Key> {
        self.keys.proved(claim, mac)
    }

    /// The client has confirmed a resume by `used`. Returns false if the session has ended or the key was replaced since.
    #[must_use]
    pub(crate) fn resume_by_key(&mut self, used: &Key, keys: &SessionKeys) -> bool {
        self.ended.is_none() && self.keys.replace(used, keys)
    }

    /// The client has proved the world's key, and the world has given this gateway the epoch. Returns false if the client
    /// does not know that the log was begun anew.
    pub(crate) fn resume_by_claim(&mut self, epoch: Epoch, used: &Key, keys: &SessionKeys) -> bool {
        self.epoch = epoch;
        self.keys = ResumeKeys::new(keys);
        self.restart_key.as_ref() != Some(used)
    }

    /// Reliable messages received from the client. Acknowledges them.
    pub(crate) fn acknowledge_input(&mut self) -> u64 {
        self.inbox.acknowledge()
    }
}

/// Bindings to backends.
impl State {
    pub(crate) fn is_bound_to(&self, kind: BackendKind, instance: &str) -> bool {
        self.bindings.is_bound_to(kind, instance)
    }

    pub(crate) fn is_bound(&self, kind: BackendKind) -> bool {
        self.bindings.get(kind).is_some()
    }

    pub(crate) fn instance(&self, kind: BackendKind) -> Option<&Arc<str>> {
        self.bindings.get(kind).map(Binding::instance)
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<str>> {
        self.bindings.iter().map(Binding::instance)
    }

    /// Tells every backend that the session is bound to.
    pub(crate) fn announce_all(&self) -> Effects {
        self.bindings.iter().flat_map(|binding| self.announce(binding)).collect()
    }

    fn announce(&self, binding: &Binding) -> Effects {
        let effect = |effect| (binding.instance().clone(), effect);
        if binding.is_pending() && binding.kind() != BackendKind::WORLD {
            return vec![effect(BackendEffect::Bound(binding.epoch()))];
        }
        let mut effects = vec![effect(BackendEffect::Changed(SessionChange::Joined))];
        if self.is_link_dead() {
            effects.push(effect(BackendEffect::Changed(SessionChange::LinkDead)));
        }
        effects
    }

    /// Binds a kind of which any instance will do to this instance.
    pub(crate) fn bind_auto(&mut self, kind: BackendKind, instance: &str) -> Effects {
        self.bindings.set(kind, instance, Epoch::default(), false);
        self.bindings.get(kind).map(|binding| self.announce(binding)).unwrap_or_default()
    }

    /// A backend asks to bind the kind to an instance.
    pub(crate) fn bind(
        &mut self,
        by: BindRequester<'_>,
        kind: BackendKind,
        instance: &str,
        epoch: Epoch,
    ) -> BindOutcome {
        match self.bindings.bind(by, kind, instance, epoch) {
            Bound::Refused => BindOutcome::Refused,
            Bound::Same => BindOutcome::Same,
            Bound::New => {
                let instance: Arc<str> = instance.into();
                let mut effects = vec![(instance.clone(), BackendEffect::Bound(epoch))];
                if self.moving.is_leaving() {
                    effects.push((instance, BackendEffect::Fence));
                }
                BindOutcome::New(effects)
            }
        }
    }

    pub(crate) fn unbind(&mut self, kind: BackendKind) {
        self.bindings.remove(kind);
    }

    /// An instance has answered its bind. `None`: it answers an older one.
    pub(crate) fn ready(&mut self, kind: BackendKind, instance: &str, epoch: Epoch) -> Option<Effects> {
        let held = self.bindings.ready(kind, instance, epoch)?;
        Some(vec![(instance.into(), BackendEffect::Deliver(held))])
    }

    /// Restores a binding of another gateway or of the world. With `hold`, the barrier closes.
    pub(crate) fn restore_binding(&mut self, kind: BackendKind, instance: &str, epoch: Epoch, hold: bool) {
        self.bindings.set(kind, instance, epoch, hold);
    }

    /// Holds messages that another gateway held for the kind.
    pub(crate) fn hold_all(&mut self, kind: BackendKind, messages: Vec<ClientMessage>) {
        for message in messages {
            if let Err(message) = self.bindings.hold(kind, message) {
                self.refuse_all(&[message], ErrorCode::Unavailable, "the server cannot be reached now");
            }
        }
    }

    /// A new link to the instance has opened, and the instance has lost earlier requests. A world is called with
    /// `OpenSessions` first; messages for it are held until then.
    pub(crate) fn link_restarted(&mut self, kind: BackendKind, instance: &Arc<str>) -> Effects {
        let mut effects = Effects::new();
        if !self.moving.is_leaving() && self.moving.is_muted(instance) {
            effects.push((instance.clone(), BackendEffect::Lift));
        }
        if !self.bindings.is_bound_to(kind, instance) {
            return effects;
        }
        if kind == BackendKind::WORLD {
            self.bindings.set(kind, instance, Epoch::default(), true);
        } else if let Some(binding) = self.bindings.get(kind) {
            effects.extend(self.announce(binding));
        }
        if self.moving.awaits_fence(instance) {
            effects.push((instance.clone(), BackendEffect::Fence));
        }
        self.fail_in_flight(kind);
        effects
    }

    /// The instance is gone. Returns true if the session was bound to it.
    pub(crate) fn backend_lost(&mut self, kind: BackendKind, instance: &str, auto_bind: bool) -> bool {
        self.moving.backend_lost(instance);
        if !self.bindings.is_bound_to(kind, instance) {
            return false;
        }
        self.fail_in_flight(kind);
        if auto_bind {
            self.bindings.remove(kind);
        }
        true
    }

    /// Binds the session to its world's leader, and returns whether the leader knows the session.
    pub(crate) fn bind_leader(&mut self, leader: &str) -> LeaderBinding {
        if self.bindings.is_bound_to(BackendKind::WORLD, leader) {
            let pending = self.bindings.get(BackendKind::WORLD).is_some_and(Binding::is_pending);
            return if pending { LeaderBinding::Pending } else { LeaderBinding::Open };
        }
        self.bindings.set(BackendKind::WORLD, leader, Epoch::default(), true);
        self.fail_in_flight(BackendKind::WORLD);
        LeaderBinding::New
    }

    /// The leader of the session's world knows the session now.
    pub(crate) fn world_opened(&mut self, leader: &str) -> Effects {
        let effect = |effect| (Arc::from(leader), effect);
        match &self.ended {
            Some(Ending::Moved) => return Effects::new(),
            // The world may receive the end before the announcement of the session.
            Some(_) => return vec![effect(BackendEffect::Changed(SessionChange::Left))],
            None => {}
        }
        let held = self.bindings.set(BackendKind::WORLD, leader, Epoch::default(), false);
        let mut effects =
            self.bindings.get(BackendKind::WORLD).map(|binding| self.announce(binding)).unwrap_or_default();
        effects.push(effect(BackendEffect::Deliver(held)));
        effects
    }
}

/// Whether the leader of a world knows a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaderBinding {
    /// The session was bound to another leader, or to none.
    New,
    /// The leader has not confirmed the session yet.
    Pending,
    Open,
}

/// Moves between gateways.
impl State {
    /// The session, which has this epoch here, begins to leave this gateway. Its client sends nothing after this. Returns false
    /// if another connection took the session, or it has ended.
    pub(crate) fn start_move(&mut self, epoch: Epoch, now: Instant) -> bool {
        if self.epoch != epoch || self.ended.is_some() || self.moving.is_leaving() {
            return false;
        }
        self.detach(now);
        true
    }

    /// The receiver tells when all these backends have answered the fence.
    pub(crate) fn await_fences(&mut self, backends: Vec<Arc<str>>) -> oneshot::Receiver<()> {
        self.moving.begin(backends)
    }

    pub(crate) fn await_fence(&mut self, backend: &Arc<str>) {
        self.moving.await_fence(backend);
    }

    pub(crate) fn is_moving(&self) -> bool {
        self.moving.is_leaving()
    }

    pub(crate) fn fenced(&mut self, backend: &Arc<str>, epoch: Epoch) {
        if self.epoch == epoch {
            self.moving.fenced(backend);
        }
    }

    pub(crate) fn lifted(&mut self, backend: &str, epoch: Epoch) {
        if self.epoch >= epoch {
            self.moving.lifted(backend);
        }
    }

    /// Asks backends that keep messages for the session to send them.
    pub(crate) fn lift_all(&self) -> Effects {
        self.moving.muted().iter().map(|backend| (backend.clone(), BackendEffect::Lift)).collect()
    }

    /// Whether a backend that puts up no fence still owes a reply.
    pub(crate) fn awaits_unfenced_replies(&self) -> bool {
        self.requests.iter().any(|(_, kind)| {
            self.bindings.get(kind).is_some_and(|binding| !self.moving.is_muted(binding.instance()))
        })
    }

    /// Ends the session here and returns what the next gateway needs. `None`: it has changed hands or ended.
    pub(crate) fn seal(&mut self, epoch: Epoch, groups: Vec<GroupKey>) -> Option<Snapshot> {
        if self.epoch != epoch || self.ended.is_some() {
            return None;
        }
        self.end(Ending::Moved);
        let (sent_to_client, unacknowledged) = self.out.log();
        let binding = |binding: &Binding| HeldBinding {
            kind: binding.kind(),
            instance: binding.instance().clone(),
            epoch: binding.epoch(),
            held: binding.held().cloned().collect(),
        };
        Some(Snapshot {
            received_from_client: self.inbox.received(),
            sent_to_client,
            unacknowledged,
            bindings: self.bindings.iter().map(binding).collect(),
            groups,
            fenced: self.moving.muted().to_vec(),
            pending: self.requests.iter().collect(),
            character: self.world.character(),
            queue_place: self.world.queue_place(),
            restart_key: self.restart_key.clone(),
        })
    }

    /// Continues where another gateway left the session. Bindings and groups follow apart.
    pub(super) fn restore(&mut self, epoch: Epoch, snapshot: &mut Snapshot, restart_key: Option<Key>) {
        let now = Instant::now();
        self.epoch = epoch;
        self.out = Outbox::restore(snapshot.sent_to_client, std::mem::take(&mut snapshot.unacknowledged));
        self.inbox = Inbox::restore(snapshot.received_from_client);
        self.restart_key = restart_key;
        self.moving = Moving::arrived(std::mem::take(&mut snapshot.fenced));
        self.world = WorldRecord::new(snapshot.character, snapshot.queue_place);
        for (request, kind) in snapshot.pending.drain(..) {
            self.requests.restore(request, kind, now);
        }
    }
}

/// Messages from the client.
impl State {
    /// Takes in the messages of a record, and hands on those for backends.
    ///
    /// # Errors
    /// Malformed bytes, or one strike too many: the connection ends.
    pub(crate) fn receive(
        &mut self,
        record: &[u8],
        ranges: &Ranges,
        now: Instant,
        backends: &impl Deliver,
    ) -> Result<Outputs, WireError> {
        let mut outputs = Outputs::default();
        let (mut count, mut sample) = (0, COSTS.sample());
        for message in message::parse_all(record) {
            let message = message?;
            if outputs.key_update {
                // `KeyUpdate` is the last message of its record.
                return Err(MessageError::Truncated.into());
            }
            count += 1;
            COSTS.received(message.opcode, message.payload.len());
            if let Some(sample) = &mut sample {
                sample.add(message.opcode, message.payload.len());
            }
            if message.is_reliable() {
                self.inbox.receive(now);
            }
            if let Err(error) = self.take(&message, ranges, now, backends, &mut outputs) {
                self.count_fault(&message, error, now)?;
            }
        }
        HOT.messages_in.increment(count);
        outputs.sample = sample;
        Ok(outputs)
    }

    fn take(
        &mut self,
        message: &Message<&[u8]>,
        ranges: &Ranges,
        now: Instant,
        backends: &impl Deliver,
        outputs: &mut Outputs,
    ) -> Result<(), WireError> {
        match self.judge.judge(message, ranges, now)? {
            Verdict::Backend(backend) => {
                self.delayed.supersede(message.opcode);
                self.route(backend, for_backend(message), now, backends);
            }
            Verdict::Delay(backend, retry_after) => {
                self.delayed.put(backend, owned(for_backend(message)), now + retry_after);
            }
            Verdict::Transport => self.transport(message, outputs)?,
            Verdict::Logout => outputs.logout = true,
        }
        Ok(())
    }

    fn transport(&mut self, message: &Message<&[u8]>, outputs: &mut Outputs) -> Result<(), WireError> {
        match message.opcode {
            opcode::ACK => self.out.acknowledge(message.decode::<Ack>()?.received)?,
            opcode::PING => {
                let pong = Message::new(opcode::PONG, Head::Event, message.payload).to_bytes();
                if !self.out.control(pong) {
                    self.end(Ending::new(
                        ErrorCode::TooSlow,
                        "the connection does not take the answers to its pings",
                    ));
                }
            }
            opcode::KEY_UPDATE => outputs.key_update = true,
            _ => {}
        }
        Ok(())
    }

    fn route(
        &mut self,
        backend: BackendKind,
        message: ClientView<'_>,
        now: Instant,
        backends: &impl Deliver,
    ) {
        // A client's request has a number of 32 bits.
        let request = (message.kind == MessageKind::Request)
            .then(|| u32::try_from(message.request).unwrap_or_default());
        if let Some(request) = request.filter(|request| !self.requests.track(*request, backend, now)) {
            return self.refuse(request, ErrorCode::TooFast, "too many requests wait for their reply", RETRY);
        }
        let (code, why) = match self.bindings.target(backend) {
            Target::To(instance) if backends.deliver(instance, self.epoch, message) => return,
            Target::To(_) => (ErrorCode::Unavailable, "the server cannot be reached now"),
            Target::Pending => match self.bindings.hold(backend, owned(message)) {
                Ok(()) => return,
                Err(_) => (ErrorCode::Unavailable, "too many messages wait for a hand-over"),
            },
            Target::Unbound => (ErrorCode::Refused, "not in the world yet"),
        };
        if let Some(request) = request {
            self.refuse(request, code, why, RETRY);
        }
    }

    /// Delivers delayed state messages that are due.
    pub(crate) fn deliver_delayed(&mut self, ranges: &Ranges, now: Instant, backends: &impl Deliver) {
        while let Some((backend, message)) = self.delayed.take_due(now) {
            self.judge.spend(message.opcode, ranges, now);
            self.route(backend, message.view(), now, backends);
        }
    }

    /// Whether a delayed message is due.
    pub(crate) fn has_due_input(&self, now: Instant) -> bool {
        self.delayed.deadline().is_some_and(|due| now >= due)
    }

    /// Counts the fault of a client's message, and refuses the message if it is a request.
    /// A returned error ends the connection.
    fn count_fault(
        &mut self,
        message: &Message<&[u8]>,
        error: WireError,
        now: Instant,
    ) -> Result<(), WireError> {
        counter!(FAULTS, "label" => error.label()).increment(1);
        if error.fault() == Fault::Fatal {
            return Err(error);
        }
        if let (Head::Request(request), Some(code)) = (message.head, error.code()) {
            let wait = match &error {
                WireError::Violation(Violation::TooFast { retry_after, .. }) => *retry_after,
                _ => Duration::ZERO,
            };
            self.refuse(request, code, &error.to_string(), wait);
        }
        if self.judge.strike(now) { Err(error) } else { Ok(()) }
    }

    /// Answers a request that no backend will answer.
    fn refuse(&mut self, request: u32, code: ErrorCode, detail: &str, retry_after: Duration) {
        counter!(REFUSED, "code" => code.as_str_name()).increment(1);
        self.requests.complete(request);
        let error = Error::of(code, detail).retry_after(retry_after);
        self.reliable(Message::error_reply(request, &error).to_bytes());
    }

    /// Answers the requests among messages that a backend cannot take.
    pub(crate) fn refuse_all(&mut self, messages: &[ClientMessage], code: ErrorCode, detail: &str) {
        for message in messages.iter().filter(|message| message.kind == MessageKind::Request) {
            self.refuse(u32::try_from(message.request).unwrap_or_default(), code, detail, RETRY);
        }
    }

    /// A backend has lost the requests that it had: they are answered here. Held requests are still to be delivered.
    fn fail_in_flight(&mut self, kind: BackendKind) {
        let held: Vec<u64> =
            self.bindings.get(kind).into_iter().flat_map(Binding::held).map(|held| held.request).collect();
        let lost = |(request, backend): &(u32, BackendKind)| {
            *backend == kind && !held.contains(&u64::from(*request))
        };
        for (request, _) in self.requests.iter().filter(lost).collect::<Vec<_>>() {
            self.refuse(request, ErrorCode::Unavailable, "the server was restarted", RETRY);
        }
    }
}

/// Messages to the client.
impl State {
    /// Queues an encoded message that must arrive. Overflow ends the session.
    pub(crate) fn reliable(&mut self, message: Bytes) {
        if let Err(error) = self.out.reliable(message) {
            self.end(Ending::new(ErrorCode::TooSlow, error.to_string()));
        }
    }

    /// Queues a message of the connection, which is neither logged nor repeated.
    pub(crate) fn control(&mut self, message: Bytes) {
        self.out.control(message);
    }

    /// Queues a message of a backend; `bytes` is its encoding.
    pub(crate) fn append(&mut self, from: BackendKind, message: &ServerMessage, bytes: &Bytes) {
        if from == BackendKind::WORLD && self.world.update(message) {
            // A session without a character is bound to no zone.
            self.bindings.remove(BackendKind::ZONE);
        }
        match message.kind {
            MessageKind::State => {
                let key = (message.opcode, message.class, message.key);
                if self.out.state(key, bytes.clone()) == EnqueueResult::Shed {
                    counter!(SHED).increment(1);
                }
            }
            MessageKind::Reply => {
                self.requests.complete(u32::try_from(message.request).unwrap_or_default());
                self.reliable(bytes.clone());
            }
            MessageKind::Event | MessageKind::Request => self.reliable(bytes.clone()),
        }
    }

    pub(super) fn keyframe(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.out.keyframe(group, message)
    }

    pub(super) fn part(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.out.part(group, message)
    }

    pub(super) fn delta(&mut self, group: GroupKey, message: &Bytes) -> EnqueueResult {
        self.out.delta(group, message)
    }

    /// Queues an event of a group, unless its publisher keeps its events for another gateway.
    pub(super) fn group_event(&mut self, from: &str, message: &Bytes) {
        if !self.moving.is_muted(from) {
            self.reliable(message.clone());
        }
    }

    pub(super) fn leave_group(&mut self, group: GroupKey) {
        self.out.leave(group);
    }

    /// Queues an acknowledgement if one should go now, and a ping if one is due and nothing else is queued.
    pub(crate) fn queue_transport(&mut self, now: Instant, ping_due: bool) {
        if self.inbox.should_send_ack(now, !self.out.is_empty()) {
            let received = self.inbox.acknowledge();
            self.out.control(Message::event(opcode::ACK, &Ack { received }).to_bytes());
        }
        if ping_due && self.out.is_empty() {
            self.out.control(Message::event(opcode::PING, &Ping { value: 0 }).to_bytes());
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// See [`Outbox::divert_lossy`].
    pub(crate) fn divert_lossy(&mut self, carry: fn(u16) -> bool, send: impl FnMut(&Bytes) -> bool) -> bool {
        self.out.divert_lossy(carry, send)
    }

    /// Moves queued messages into a record until it is full or nothing is left.
    pub(crate) fn fill(&mut self, record: &mut Writer<'_>, sample: Option<&mut CostSample>) {
        self.out.fill(record, sample);
    }

    /// Groups whose keyframe the client needs, once everything else is written. Each is named once.
    pub(crate) fn take_stale(&mut self, now: Instant) -> Vec<GroupKey> {
        self.out.take_stale(now)
    }

    /// When the session has something to do although nothing wakes its connection.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.inbox.deadline(), self.delayed.deadline(), self.out.resend_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The connection has been silent for a while: gives back memory.
    pub(crate) fn rest(&mut self) {
        self.out.rest();
        self.requests.rest();
    }
}

//! A session: one player's presence, which survives its connections. Its state stands behind one short lock; the
//! connection that carries it is woken to write, links and groups only append.
//!
//! Locks are taken in this order, never across an `await`: groups → session → link.

mod bindings;
mod inputs;
mod keys;
mod moving;
mod outbox;
mod waker;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use shardkeep_auth::Key;
use shardkeep_link::{self as link, ClientMessage, Fence, GatewayLink, SessionChange, SessionEvent};
use shardkeep_types::{AccountId, BackendKind, Epoch, Generation, GroupKey, SessionId, WorldId};
use shardkeep_wire::{
    Message,
    limit::{Limiter, Strikes, TokenBucket},
    payload::{Error, ErrorCode},
    session::Inbox,
};

pub(crate) use bindings::{BindRequester, Binding, Bindings, Bound, Target};
pub(crate) use inputs::Deliver;
pub(crate) use keys::{ResumeClaim, ResumeKeys};
pub(crate) use moving::PendingMove;
pub(crate) use outbox::{EnqueueResult, Outbox};
use waker::ConnectionWaker;

use crate::{
    groups::Subscriber,
    metrics::{REFUSED, SHED},
};

/// Requests of one session that may wait for their replies, and how long each counts: who waits longer has long
/// given up.
const MAX_IN_FLIGHT: usize = 256;
const REQUEST_TTL: Duration = Duration::from_secs(60);

pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) account: AccountId,
    pub(crate) account_name: String,
    pub(crate) generation: Generation,
    pub(crate) world: WorldId,
    /// Calls the connection that carries it.
    pub(crate) waker: ConnectionWaker,
    inner: Mutex<Inner>,
}

/// What identifies a new session, or one that comes from another gateway.
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    pub(crate) account: AccountId,
    pub(crate) account_name: String,
    pub(crate) generation: Generation,
    pub(crate) world: WorldId,
}

pub(crate) struct Inner {
    pub(crate) epoch: Epoch,
    pub(crate) keys: ResumeKeys,
    pub(crate) client: ClientState,
    pub(crate) ended: Option<Ending>,
    pub(crate) out: Outbox,
    pub(crate) inbox: Inbox,
    pub(crate) bindings: Bindings,
    /// Its log was begun anew when it was claimed: the key with which its client came then. One that comes with it again
    /// has not heard of that.
    pub(crate) restart_key: Option<Key>,
    /// It leaves for another gateway, which has asked for it.
    pub(crate) moving: Option<Box<PendingMove>>,
    /// Backends that keep their events for the gateway it goes to, or that have yet to say here what they have kept: from
    /// groups it hears nothing of them.
    pub(crate) muted_backends: Vec<Arc<str>>,
    /// Requests that a backend has and has not answered.
    in_flight: Vec<InFlightRequest>,
    limiter: Limiter,
    /// By the first opcode of the range. Few: one for each kind of studio's backend that the client talks to.
    range_limits: Vec<(u16, TokenBucket)>,
    strikes: Strikes,
    /// What the session last heard from its world, told again to a new one.
    pub(crate) character: u64,
    pub(crate) queue_place: u32,
}

/// A request that a backend has.
struct InFlightRequest {
    request: u32,
    backend: BackendKind,
    since: Instant,
}

/// Where the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientState {
    Connected { connection: u64, address: IpAddr },
    Disconnected { since: Instant, address: IpAddr },
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// For good; a client that is here is told.
    Over { code: ErrorCode, detail: String },
    /// Its client did not come back in time.
    LinkLoss,
    /// Another gateway has it: nobody is told anything here.
    Moved,
}

impl Ending {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Over { code, detail: detail.into() }
    }

    /// Low-cardinality name for metrics and events.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Over { code, .. } => code.as_str_name(),
            Self::LinkLoss => "LINK_LOSS",
            Self::Moved => "MOVED",
        }
    }
}

impl Session {
    pub(crate) fn new(
        identity: Identity,
        epoch: Epoch,
        keys: ResumeKeys,
        out: Outbox,
        inbox: Inbox,
        client: ClientState,
    ) -> Arc<Self> {
        let Identity { id, account, account_name, generation, world } = identity;
        let inner = Inner {
            epoch,
            keys,
            client,
            ended: None,
            out,
            inbox,
            bindings: Bindings::default(),
            restart_key: None,
            moving: None,
            muted_backends: Vec::new(),
            in_flight: Vec::new(),
            limiter: Limiter::default(),
            range_limits: Vec::new(),
            strikes: Strikes::default(),
            character: 0,
            queue_place: 0,
        };
        let waker = ConnectionWaker::new(inner.connection());
        Arc::new(Self { id, account, account_name, generation, world, waker, inner: Mutex::new(inner) })
    }

    /// When it began, in milliseconds since the Unix epoch: the first 48 bits of its id, so that any gateway that
    /// takes it over goes on with its clock.
    pub(crate) fn started_ms(&self) -> u64 {
        self.id.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(crate) fn event(&self, inner: &Inner, kind: SessionChange) -> SessionEvent {
        SessionEvent {
            session: self.id,
            session_epoch: inner.epoch,
            kind,
            account: self.account,
            world: self.world,
            generation: self.generation,
        }
    }

    /// Tells a backend of a session that is bound to it and that it may not know.
    pub(crate) fn announce(&self, inner: &Inner, binding: &Binding, link: &GatewayLink) {
        if binding.is_pending() && binding.kind != BackendKind::WORLD {
            return link.bound(self.bound(inner, binding));
        }
        link.session(self.event(inner, SessionChange::Joined));
        if !inner.is_connected() && inner.moving.is_none() {
            link.session(self.event(inner, SessionChange::LinkDead));
        }
    }

    /// As its present gateway names it to backends when it moves.
    pub(crate) fn fence(&self, inner: &Inner) -> Fence {
        Fence { session: self.id, session_epoch: inner.epoch }
    }

    pub(crate) fn bound(&self, inner: &Inner, binding: &Binding) -> link::Bound {
        link::Bound {
            session: self.id,
            session_epoch: inner.epoch,
            bind_epoch: binding.epoch,
            account: self.account,
            link_dead: !inner.is_connected() && inner.moving.is_none(),
        }
    }
}

impl Inner {
    /// The session is over. The first reason stays.
    pub(crate) fn end(&mut self, ending: Ending) {
        self.ended.get_or_insert(ending);
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.client, ClientState::Connected { .. })
    }

    /// Since when nobody carries the session.
    pub(crate) fn disconnected_since(&self) -> Option<Instant> {
        match self.client {
            ClientState::Connected { .. } => None,
            ClientState::Disconnected { since, .. } => Some(since),
        }
    }

    pub(crate) fn is_attached_to(&self, connection: u64) -> bool {
        self.is_connected() && self.connection() == connection
    }

    /// The connection that carries the session; 0: none. They are numbered as they come.
    pub(crate) fn connection(&self) -> u64 {
        match self.client {
            ClientState::Connected { connection, .. } => connection,
            ClientState::Disconnected { .. } => 0,
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self.client {
            ClientState::Connected { address, .. } | ClientState::Disconnected { address, .. } => address,
        }
    }

    /// A message that must arrive, encoded. Too many end the session.
    pub(crate) fn reliable(&mut self, message: Bytes) {
        if let Err(error) = self.out.reliable(message) {
            self.end(Ending::new(ErrorCode::TooSlow, error.to_string()));
        }
    }

    /// Answers a request that no backend will answer.
    pub(crate) fn refuse(&mut self, request: u32, code: ErrorCode, detail: &str, retry_after: Duration) {
        counter!(REFUSED, "code" => code.as_str_name()).increment(1);
        self.complete_request(request);
        let error = Error::of(code, detail).retry_after(retry_after);
        self.reliable(Message::error_reply(request, &error).to_bytes());
    }

    /// Answers those of a backend's messages that are requests, because it can not take them.
    pub(crate) fn refuse_all(&mut self, messages: &[ClientMessage], code: ErrorCode, detail: &str) {
        for message in messages {
            if message.kind == link::MessageKind::Request {
                // What a client sent as a request has a number of 32 bits.
                let request = u32::try_from(message.request).unwrap_or_default();
                self.refuse(request, code, detail, RETRY);
            }
        }
    }

    /// A backend has lost what it was asked: its unanswered requests are answered here. Those that it has not been given
    /// are still to be given.
    pub(crate) fn fail_in_flight(&mut self, kind: BackendKind) {
        let held: Vec<u64> =
            self.bindings.get(kind).into_iter().flat_map(Binding::held).map(|held| held.request).collect();
        let lost =
            |pending: &&InFlightRequest| pending.backend == kind && !held.contains(&pending.request.into());
        let pending = self.in_flight.iter().filter(lost);
        for request in pending.map(|pending| pending.request).collect::<Vec<_>>() {
            self.refuse(request, ErrorCode::Unavailable, "the server was restarted", RETRY);
        }
    }

    /// Notes a request that a backend gets; false: too many wait.
    fn track_request(&mut self, request: u32, backend: BackendKind, now: Instant) -> bool {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            self.in_flight.retain(|pending| now.saturating_duration_since(pending.since) < REQUEST_TTL);
        }
        let room = self.in_flight.len() < MAX_IN_FLIGHT;
        if room {
            self.complete_request(request);
            self.in_flight.push(InFlightRequest { request, backend, since: now });
        }
        room
    }

    /// Nothing has been said for a while: gives back memory.
    pub(crate) fn rest(&mut self) {
        self.out.rest();
        self.in_flight.shrink_to_fit();
    }

    /// Requests that backends have not answered, and the backends' kinds.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (u32, BackendKind)> {
        self.in_flight.iter().map(|pending| (pending.request, pending.backend))
    }

    /// Another gateway has given the request to a backend.
    pub(crate) fn restore_request(&mut self, request: u32, backend: BackendKind, now: Instant) {
        self.in_flight.push(InFlightRequest { request, backend, since: now });
    }

    pub(crate) fn complete_request(&mut self, request: u32) {
        if let Some(at) = self.in_flight.iter().position(|pending| pending.request == request) {
            self.in_flight.swap_remove(at);
        }
    }

    fn range_bucket(&mut self, first: u16) -> &mut TokenBucket {
        let at = self.range_limits.iter().position(|(of, _)| *of == first).unwrap_or_else(|| {
            self.range_limits.push((first, TokenBucket::default()));
            self.range_limits.len() - 1
        });
        &mut self.range_limits[at].1
    }
}

/// What a client is told to wait when a backend can not be reached.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

impl Subscriber for Arc<Session> {
    fn session(&self) -> SessionId {
        self.id
    }

    fn keyframe(&self, group: GroupKey, message: &Bytes) {
        count(self.lock().out.keyframe(group, message));
    }

    fn delta(&self, group: GroupKey, message: &Bytes) {
        count(self.lock().out.delta(group, message));
    }

    fn event(&self, from: &str, message: &Bytes) {
        let mut inner = self.lock();
        if !inner.is_muted(from) {
            inner.reliable(message.clone());
        }
    }

    fn set_pending(&self) -> bool {
        self.waker.set_pending()
    }

    fn leave(&self, group: GroupKey) {
        self.lock().out.leave(group);
    }
}

fn count(kept: EnqueueResult) {
    if kept == EnqueueResult::Shed {
        counter!(SHED).increment(1);
    }
}

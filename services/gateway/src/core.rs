//! What all parts of a gateway share, and the life of a session: it begins, is bound, loses and finds its client,
//! and ends. Links and connections call in here; nothing here waits.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use metrics::counter;
use parking_lot::{Mutex, RwLock};
use shardkeep_daemon::{ClusterConfig, Daemon, event};
use shardkeep_link::{ClientMessage, SessionChange};
use shardkeep_types::{Epoch, GroupKey, SessionId};
use shardkeep_wire::{
    payload::ErrorCode,
    preface::{Preface, Service, deployment_tag},
    range::Ranges,
    session::SessionError,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    backend::Links,
    balance::Balance,
    billing::Spool,
    closures::Closures,
    groups::{Change, Groups},
    incoming_sessions::IncomingSessions,
    metrics::{ENDED, HOT},
    revocations::UncheckedSessions,
    session::{ClientState, Ending, Session},
    table::SessionTable,
    tickets::Tickets,
};

/// A session and the connection that carries it. However a connection ends, with this the session is left to wait for its
/// client.
pub(crate) struct AttachedSession {
    pub(crate) core: Arc<Core>,
    pub(crate) session: Arc<Session>,
    pub(crate) connection: u64,
}

impl AttachedSession {
    pub(crate) fn new(core: Arc<Core>, session: Arc<Session>, connection: u64) -> Self {
        Self { core, session, connection }
    }
}

impl Drop for AttachedSession {
    fn drop(&mut self) {
        self.core.connection_lost(&self.session, self.connection);
    }
}

pub(crate) struct Core {
    pub(crate) config: Config,
    /// Instance name of this gateway.
    pub(crate) name: String,
    pub(crate) preface: Preface,
    /// `host:port` as players reach this gateway, and any.
    pub(crate) client_address: String,
    pub(crate) any_gateway: String,
    pub(crate) tickets: Mutex<Tickets>,
    pub(crate) sessions: SessionTable,
    pub(crate) incoming_sessions: IncomingSessions,
    /// Sessions that login has not been asked about.
    pub(crate) unchecked: UncheckedSessions,
    pub(crate) closures: Closures,
    groups: Mutex<Groups<Arc<Session>>>,
    pub(crate) links: Links,
    pub(crate) ranges: RwLock<Arc<Ranges>>,
    pub(crate) billing: Spool,
    pub(crate) balance: Balance,
    /// Wakes the task that presents sessions to their worlds.
    pub(crate) worlds: Notify,
    pub(crate) daemon: Daemon,
    pub(crate) draining: CancellationToken,
    /// Nobody is waited for any more: connections say DRAINING and close.
    closing: AtomicBool,
    connections: AtomicU64,
}

impl Core {
    pub(crate) fn new(
        config: Config,
        cluster: &ClusterConfig,
        name: &str,
        client_address: String,
        daemon: Daemon,
    ) -> Arc<Self> {
        let any_gateway = config.any_gateway.clone().unwrap_or_else(|| format!("gateway.{}", cluster.zone));
        Arc::new(Self {
            preface: Preface::new(Service::Gateway, deployment_tag(&cluster.deployment)),
            config,
            name: name.to_owned(),
            client_address,
            any_gateway,
            tickets: Mutex::default(),
            sessions: SessionTable::default(),
            incoming_sessions: IncomingSessions::default(),
            unchecked: UncheckedSessions::default(),
            closures: Closures::default(),
            groups: Mutex::default(),
            links: Links::default(),
            ranges: RwLock::default(),
            billing: Spool::default(),
            balance: Balance::default(),
            worlds: Notify::new(),
            draining: daemon.draining(),
            daemon,
            closing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        })
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends every connection; sessions that have not moved stay.
    pub(crate) fn leave(&self) {
        self.closing.store(true, Ordering::Release);
        self.sessions.all().iter().for_each(|session| session.waker.notify());
    }

    /// Changes groups and tells backends what follows from it, in one step, so that they hear changes in order.
    pub(crate) fn with_groups<R>(
        &self,
        change: impl FnOnce(&mut Groups<Arc<Session>>) -> (R, Vec<Change>),
    ) -> R {
        let mut groups = self.groups.lock();
        let (result, changes) = change(&mut groups);
        for change in changes {
            match change {
                Change::Watch(world, key) => self.links.serving(key.backend(), world, |link| link.watch(key)),
                Change::Unwatch(world, key) => {
                    self.links.serving(key.backend(), world, |link| link.unwatch(key));
                }
            }
        }
        result
    }

    /// Groups with a subscriber here.
    pub(crate) fn groups(&self) -> usize {
        self.groups.lock().len()
    }

    /// A session begins here, or comes from elsewhere with its groups: the backends it is bound to are told.
    pub(crate) fn register_session(&self, session: &Arc<Session>, groups: &[GroupKey]) {
        self.sessions.insert(session);
        self.unchecked.add(session);
        self.resume_groups(session, groups);
        {
            let inner = session.lock();
            for binding in inner.bindings.iter() {
                if let Some(link) = self.links.get(&binding.instance) {
                    session.announce(&inner, binding, &link);
                }
            }
        }
        self.bind_auto(session);
        HOT.sessions.set(self.sessions.len() as f64);
    }

    /// Binds the session to one instance of each kind of which any will do.
    pub(crate) fn bind_auto(&self, session: &Arc<Session>) {
        for link in self.links.choose_auto_bind(session.world, session.id) {
            let Some(info) = link.info() else { continue };
            let mut inner = session.lock();
            let current = inner.bindings.get(info.kind).map(|binding| binding.instance.clone());
            if current.is_some_and(|instance| self.links.get(&instance).is_some()) {
                continue;
            }
            inner.bindings.set(info.kind, link.backend(), Epoch::default(), false);
            if let Some(binding) = inner.bindings.get(info.kind) {
                session.announce(&inner, binding, &link);
            }
        }
    }

    /// The client is back on a new connection and has `received` reliable messages. What it lacks is queued again,
    /// groups begin with their keyframes, and backends are told.
    ///
    /// # Errors
    /// When its count cannot be.
    pub(crate) fn reattach(
        self: &Arc<Self>,
        session: &Arc<Session>,
        address: IpAddr,
        received: u64,
        kind: SessionChange,
    ) -> Result<AttachedSession, SessionError> {
        let connection = self.next_connection();
        {
            let mut inner = session.lock();
            inner.out.attach(received)?;
            inner.client = ClientState::Connected { connection, address };
            // A connection before this one, if it still stands, sees that it is replaced.
            session.waker.rebind(connection);
            self.notify_bound_backends(session, &inner, kind);
        }
        let attached = AttachedSession::new(self.clone(), session.clone(), connection);
        self.with_groups(|groups| {
            let subscribed = groups.subscribed_groups(session.id);
            ((), groups.resend(session, subscribed))
        });
        Ok(attached)
    }

    /// Tells every backend that the session is bound to.
    fn notify_bound_backends(
        &self,
        session: &Arc<Session>,
        inner: &crate::session::Inner,
        kind: SessionChange,
    ) {
        for binding in inner.bindings.iter() {
            if let Some(link) = self.links.get(&binding.instance) {
                link.session(session.event(inner, kind));
            }
        }
    }

    /// The connection is lost. The session waits for its client, but not for ever.
    fn connection_lost(&self, session: &Arc<Session>, connection: u64) {
        let since = Instant::now();
        let ended = {
            let mut inner = session.lock();
            if !inner.is_attached_to(connection) {
                return;
            }
            inner.client = ClientState::Disconnected { since, address: inner.address() };
            inner.out.detach();
            if inner.ended.is_none() {
                self.notify_bound_backends(session, &inner, SessionChange::LinkDead);
            }
            inner.ended.is_some()
        };
        if ended {
            return self.finish(session);
        }
        event!("link_lost", account = session.account.0, session = %session.id, world = session.world.0);
    }

    /// Ends those whose clients have not come back in time, and those that nobody carries and that overflowed
    /// meanwhile. Returns how many are away.
    pub(crate) fn sweep(&self, sessions: &[Arc<Session>], now: Instant) -> usize {
        let mut disconnected = 0;
        for session in sessions {
            let (ended, since) = {
                let inner = session.lock();
                (inner.ended.is_some(), inner.disconnected_since())
            };
            disconnected += usize::from(since.is_some());
            if since.is_some_and(|since| now >= since + self.config.link_loss) {
                self.end(session, Ending::LinkLoss);
            } else if ended {
                self.finish(session);
            }
        }
        disconnected
    }

    /// Ends a session, for good or because another gateway has it. Later reasons change nothing.
    pub(crate) fn end(&self, session: &Arc<Session>, ending: Ending) {
        session.lock().end(ending);
        self.finish(session);
    }

    /// Does what follows from a session's end.
    pub(crate) fn finish(&self, session: &Arc<Session>) {
        if !self.sessions.remove(session) {
            return;
        }
        let ending = {
            let inner = session.lock();
            let ending = inner.ended.clone().unwrap_or(Ending::LinkLoss);
            if ending != Ending::Moved {
                self.notify_bound_backends(session, &inner, SessionChange::Left);
            }
            ending
        };
        self.with_groups(|groups| ((), groups.leave(session.id, None)));
        if ending != Ending::Moved {
            self.billing.ended(session);
        }
        session.waker.notify();
        counter!(ENDED, "reason" => ending.label()).increment(1);
        HOT.sessions.set(self.sessions.len() as f64);
        event!(
            "leave",
            account = session.account.0,
            session = %session.id,
            world = session.world.0,
            reason = ending.label(),
        );
    }

    /// Wakes those to whom something was appended and that were touched for it, and ends those for whom it was too much.
    pub(crate) fn wake(&self, to_wake: Vec<Arc<Session>>) {
        for session in to_wake {
            if session.lock().ended.is_some() {
                self.finish(&session);
            }
            session.waker.wake();
        }
    }

    /// Sends messages that were held. Call it under the session's lock, so that nothing overtakes them.
    pub(crate) fn deliver_to(
        &self,
        id: SessionId,
        inner: &mut crate::session::Inner,
        instance: &str,
        messages: Vec<ClientMessage>,
    ) {
        if messages.is_empty() {
            return;
        }
        let refused = match self.links.get(instance) {
            Some(link) => link.deliver(id, inner.epoch, messages).err(),
            None => Some(messages),
        };
        if let Some(messages) = refused {
            inner.refuse_all(&messages, ErrorCode::Unavailable, "the server cannot be reached now");
        }
    }
}

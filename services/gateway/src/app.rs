//! Routes effects between the domain and the edge. Backends receive the changes of sessions and groups in the order in which
//! they happened. Nothing here waits.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use metrics::counter;
use parking_lot::{Mutex, MutexGuard};
use shardkeep_daemon::{ClusterConfig, Daemon, event};
use shardkeep_link::SessionChange;
use shardkeep_types::{AccountId, BackendKind, Generation, GroupKey};
use shardkeep_wire::{
    Message, opcode,
    payload::{Announcement, ErrorCode, LaneAddress},
    preface::{Preface, Service, deployment_tag},
    session::SessionError,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    domain::{
        balance::Balance,
        closures::{ClosureEffect, Closures},
        groups::{Change, Groups},
        incoming_sessions::IncomingSessions,
        play_time::PlayTimeSpool,
        routes::Routes,
        session::{BackendEffect, Effects, Ending, HeldBinding, LeaderBinding, Session, State},
        sessions::SessionTable,
        tickets::Tickets,
        unchecked::UncheckedSessions,
    },
    edge::links::Links,
    metrics::{ENDED, HOT, MAINTENANCE_DISCONNECTS},
};

/// The answer to requests of a client for a backend that cannot be reached.
const UNREACHABLE: &str = "the server cannot be reached now";

/// A session and the connection that carries it. Dropping it leaves the session to wait for its client.
pub(crate) struct AttachedSession {
    app: Arc<App>,
    session: Arc<Session>,
    connection: u64,
}

impl AttachedSession {
    pub(crate) fn new(app: Arc<App>, session: Arc<Session>, connection: u64) -> Self {
        Self { app, session, connection }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for AttachedSession {
    fn drop(&mut self) {
        self.app.connection_lost(&self.session, self.connection);
    }
}

pub(crate) struct App {
    config: Config,
    name: String,
    preface: Preface,
    client_address: String,
    lane_addresses: Vec<LaneAddress>,
    any_gateway: String,
    tickets: Mutex<Tickets>,
    sessions: SessionTable,
    incoming_sessions: IncomingSessions,
    unchecked: UncheckedSessions,
    closures: Closures,
    groups: Mutex<Groups<Arc<Session>>>,
    links: Links,
    routes: Routes,
    play_time: PlayTimeSpool,
    balance: Balance,
    unpresented: Notify,
    daemon: Daemon,
    draining: CancellationToken,
    closing: AtomicBool,
    connections: AtomicU64,
}

impl App {
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
            lane_addresses: config.lane_addresses(),
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
            routes: Routes::default(),
            play_time: PlayTimeSpool::default(),
            balance: Balance::default(),
            unpresented: Notify::new(),
            draining: daemon.draining(),
            daemon,
            closing: AtomicBool::new(false),
            connections: AtomicU64::new(0),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Instance name of this gateway.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn preface(&self) -> &Preface {
        &self.preface
    }

    /// `host:port` at which players reach this gateway.
    pub(crate) fn client_address(&self) -> &str {
        &self.client_address
    }

    /// Lanes of this gateway at other addresses.
    pub(crate) fn lane_addresses(&self) -> &[LaneAddress] {
        &self.lane_addresses
    }

    /// Name at which players reach any gateway.
    pub(crate) fn any_gateway(&self) -> &str {
        &self.any_gateway
    }

    pub(crate) fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock()
    }

    pub(crate) fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    pub(crate) fn incoming_sessions(&self) -> &IncomingSessions {
        &self.incoming_sessions
    }

    pub(crate) fn unchecked(&self) -> &UncheckedSessions {
        &self.unchecked
    }

    pub(crate) fn closures(&self) -> &Closures {
        &self.closures
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    pub(crate) fn play_time(&self) -> &PlayTimeSpool {
        &self.play_time
    }

    pub(crate) fn balance(&self) -> &Balance {
        &self.balance
    }

    /// Notified when a session may have to be presented to its world.
    pub(crate) fn unpresented(&self) -> &Notify {
        &self.unpresented
    }

    /// Runs work that must complete, and supervises tasks.
    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether connections have to close now.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Closes every connection. Sessions that have not moved stay, so that other gateways can claim them.
    pub(crate) fn close_connections(&self) {
        self.closing.store(true, Ordering::Release);
        self.sessions.all().iter().for_each(|session| session.waker().notify());
    }
}

/// Effects.
impl App {
    /// Changes groups and tells backends what follows, in one step, so that backends hear changes in order.
    pub(crate) fn with_groups<R>(
        &self,
        change: impl FnOnce(&mut Groups<Arc<Session>>) -> (R, Vec<Change>),
    ) -> R {
        let mut groups = self.groups.try_lock().unwrap_or_else(|| {
            HOT.group_lock_waits.increment(1);
            self.groups.lock()
        });
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

    /// Tells backends what has changed. `state` is the session's, locked: no message of the session overtakes an effect.
    /// A backend whose link is not open is told when it opens.
    pub(crate) fn apply(&self, session: &Session, state: &mut State, effects: Effects) {
        for (instance, effect) in effects {
            let Some(link) = self.links.get(&instance) else {
                if let BackendEffect::Deliver(messages) = effect {
                    state.refuse_all(&messages, ErrorCode::Unavailable, UNREACHABLE);
                }
                continue;
            };
            match effect {
                BackendEffect::Changed(change) => link.session(session.event(state, change)),
                BackendEffect::Bound(epoch) => link.bound(session.bound(state, epoch)),
                BackendEffect::Lift => link.lift(session.fence(state)),
                BackendEffect::Fence => {
                    if link.fence(session.fence(state)) {
                        state.await_fence(link.backend());
                    }
                }
                BackendEffect::Deliver(messages) if messages.is_empty() => {}
                BackendEffect::Deliver(messages) => {
                    if let Err(messages) = link.deliver(session.id(), state.epoch(), messages) {
                        state.refuse_all(&messages, ErrorCode::Unavailable, UNREACHABLE);
                    }
                }
            }
        }
    }

    /// Changes a session's state and tells backends what follows.
    pub(crate) fn change(&self, session: &Session, change: impl FnOnce(&mut State) -> Effects) {
        let mut state = session.lock();
        let effects = change(&mut state);
        self.apply(session, &mut state, effects);
    }

    /// Wakes sessions to which something was appended, and ends those that overflowed.
    pub(crate) fn wake(&self, sessions: Vec<Arc<Session>>) {
        for session in sessions {
            if session.lock().ended().is_some() {
                self.finish(&session);
            }
            session.waker().wake();
        }
    }
}

/// The life of a session.
impl App {
    /// A session begins here, or comes from another gateway with its groups.
    pub(crate) fn register_session(&self, session: &Arc<Session>, groups: &[GroupKey]) {
        self.sessions.insert(session);
        self.unchecked.add(session.account(), session.generation());
        if !groups.is_empty() {
            // Before the fences are lifted: a backend that lifts its fence publishes to the gateways that watch.
            self.with_groups(|table| ((), table.subscribe(session, session.world(), groups, None)));
        }
        self.change(session, |state| {
            [state.lift_all(), state.announce_all()].into_iter().flatten().collect()
        });
        self.bind_auto(session);
        HOT.sessions.set(self.sessions.len() as f64);
    }

    /// Binds the session to one instance of each kind of which any instance will do.
    pub(crate) fn bind_auto(&self, session: &Arc<Session>) {
        for link in self.links.choose_auto_bind(session.world(), session.id()) {
            let Some(info) = link.info() else { continue };
            self.change(session, |state| {
                let is_bound =
                    state.instance(info.kind).is_some_and(|instance| self.links.get(instance).is_some());
                if is_bound { Effects::new() } else { state.bind_auto(info.kind, link.backend()) }
            });
        }
    }

    /// The client resumes on a new connection and has received `received` reliable messages. Later ones are queued again,
    /// groups begin with their keyframes, and backends get the event `Resumed`.
    ///
    /// # Errors
    /// When the client cannot have that many messages.
    pub(crate) fn reattach(
        self: &Arc<Self>,
        session: &Arc<Session>,
        address: IpAddr,
        received: u64,
        change: SessionChange,
    ) -> Result<AttachedSession, SessionError> {
        let connection = self.next_connection();
        {
            let mut state = session.lock();
            let effects = state.attach(connection, address, received, change)?;
            // An earlier connection that still stands is woken and finds that it was replaced.
            session.waker().rebind(connection);
            self.apply(session, &mut state, effects);
        }
        let attached = AttachedSession::new(self.clone(), session.clone(), connection);
        self.with_groups(|groups| {
            let subscribed = groups.subscribed_groups(session.id());
            ((), groups.resend(session, subscribed))
        });
        Ok(attached)
    }

    fn connection_lost(&self, session: &Arc<Session>, connection: u64) {
        let ended = {
            let mut state = session.lock();
            let Some(effects) = state.connection_lost(connection, Instant::now()) else { return };
            self.apply(session, &mut state, effects);
            state.ended().is_some()
        };
        if ended {
            return self.finish(session);
        }
        event!("link_lost", account = session.account().0, session = %session.id(), world = session.world().0);
    }

    /// Ends sessions whose clients have not come back in time, and sessions that overflowed without a connection. Returns
    /// how many sessions have no client now.
    pub(crate) fn sweep(&self, sessions: &[Arc<Session>], now: Instant) -> usize {
        let mut disconnected = 0;
        for session in sessions {
            let (ended, since) = {
                let state = session.lock();
                (state.ended().is_some(), state.disconnected_since())
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

    /// Ends a session, for good or because another gateway holds it. The first reason counts.
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
            let mut state = session.lock();
            let (ending, effects) = state.finish();
            self.apply(session, &mut state, effects);
            ending
        };
        self.with_groups(|groups| ((), groups.leave(session.id(), None)));
        if ending != Ending::Moved {
            self.play_time.ended(session);
        }
        session.waker().notify();
        counter!(ENDED, "reason" => ending.label()).increment(1);
        HOT.sessions.set(self.sessions.len() as f64);
        event!(
            "leave",
            account = session.account().0,
            session = %session.id(),
            world = session.world().0,
            reason = ending.label(),
        );
    }

    /// Voids the account's tickets and ends its sessions below that generation. Returns how many sessions ended.
    pub(crate) fn revoke(&self, account: AccountId, below: Generation, ending: &Ending) -> u32 {
        self.tickets().revoke_account(account, below, Instant::now());
        let mut old = self.sessions.of_account(account);
        old.retain(|session| session.generation() < below);
        old.iter().for_each(|session| self.end(session, ending.clone()));
        u32::try_from(old.len()).unwrap_or(u32::MAX)
    }

    /// Warns and ends sessions in closed worlds.
    pub(crate) fn enforce_closures(&self, sessions: &[Arc<Session>], now: Instant) {
        let (mut warned, mut disconnected) = (Vec::new(), 0);
        for (session, effect) in self.closures.due(sessions, now) {
            match effect {
                ClosureEffect::Warn(text) => {
                    let line = Message::event(opcode::ANNOUNCEMENT, &Announcement { text }).to_bytes();
                    session.lock().reliable(line);
                    if session.waker().set_pending() {
                        warned.push(session.clone());
                    }
                }
                ClosureEffect::End(ending) => {
                    disconnected += 1;
                    self.end(session, ending);
                }
            }
        }
        self.wake(warned);
        counter!(MAINTENANCE_DISCONNECTS).increment(disconnected);
    }
}

/// Backends that come and go.
impl App {
    /// A new link to the instance has opened. Its sessions are announced again.
    pub(crate) fn link_restarted(&self, session: &Arc<Session>, kind: BackendKind, instance: &Arc<str>) {
        let bound = {
            let mut state = session.lock();
            let effects = state.link_restarted(kind, instance);
            self.apply(session, &mut state, effects);
            state.is_bound(kind)
        };
        if bound { session.waker().notify() } else { self.bind_auto(session) }
    }

    /// The instance is gone: requests that it had are answered, and sessions for which any instance will do get another.
    pub(crate) fn backend_lost(&self, kind: BackendKind, instance: &str, auto_bind: bool) {
        for session in self.sessions.all() {
            if !session.lock().backend_lost(kind, instance, auto_bind) {
                continue;
            }
            if auto_bind {
                self.with_groups(|groups| ((), groups.leave(session.id(), Some(kind))));
                self.bind_auto(&session);
            }
            session.waker().notify();
        }
    }

    /// Restores a binding that moved with a session from another gateway, or that its world knows.
    pub(crate) fn restore_binding(&self, session: &Session, binding: HeldBinding) {
        let HeldBinding { kind, instance, epoch, held } = binding;
        let auto = self.links.get(&instance).and_then(|link| link.info()).map(|info| info.auto_bind);
        let hold = match auto {
            Some(auto) => Some(!auto),
            // The link to a zone may still open. Of other kinds any instance will do.
            None => (kind == BackendKind::ZONE).then_some(true),
        };
        let mut state = session.lock();
        if let Some(hold) = hold {
            state.restore_binding(kind, &instance, epoch, hold);
        }
        state.hold_all(kind, held);
    }

    /// Binds the session to its world's leader. Returns true if the leader has to hear of the session first.
    pub(crate) fn bind_leader(&self, session: &Session, leader: &str) -> bool {
        let binding = session.lock().bind_leader(leader);
        if binding == LeaderBinding::New {
            session.waker().notify();
        }
        binding != LeaderBinding::Open
    }

    /// The leader of the session's world knows the session now.
    pub(crate) fn world_opened(&self, session: &Session, leader: &str) {
        self.change(session, |state| state.world_opened(leader));
        session.waker().notify();
    }
}

//! What a gateway asks worlds: to open a session, to find one that another gateway held, to claim it. After a change
//! of leadership the sessions here are presented to the new leader before their clients' messages flow again.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use shardkeep_auth::Key;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_link::SessionChange;
use shardkeep_rpc::{
    gateway::{MoveSessionRequest, gateway_client::GatewayClient},
    world::{Binding, ClaimSessionRequest, FindSessionRequest, Holder, Opening, world_client::WorldClient},
};
use shardkeep_types::{AccountId, BackendKind, DaemonKind, Epoch, Generation, SessionId, WorldId};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};
use tracing::{debug, info};

use super::opener::SessionOpener;
use crate::{
    core::Core,
    moves::Moved,
    session::{Ending, Session},
};
use shardkeep_wire::payload::ErrorCode;

pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Sessions presented to a new leader at a time.
const PRESENT_CONCURRENCY: usize = 64;
/// Pause before sessions that a leader did not take are presented again.
const PRESENT_RETRY: Duration = Duration::from_millis(200);

pub(crate) struct Worlds {
    node: Node,
    worlds: Directory,
    gateways: Directory,
    opener: SessionOpener,
    leader_cache: Mutex<LeaderCache>,
}

/// Who leads which world, as of one view of the directory.
#[derive(Default)]
struct LeaderCache {
    view: Arc<Vec<Instance>>,
    leaders: HashMap<WorldId, Arc<Instance>>,
}

/// A session that a world knows and this gateway does not.
pub(crate) struct Found {
    /// Where it was found, to claim it there.
    pub(crate) leader: Instance,
    pub(crate) epoch: Epoch,
    pub(crate) account: AccountId,
    pub(crate) account_name: String,
    pub(crate) generation: Generation,
    pub(crate) keys: Vec<Key>,
    pub(crate) bindings: Vec<Binding>,
}

/// A world has given a session to this gateway.
pub(crate) struct ClaimGrant {
    pub(crate) epoch: Epoch,
    /// Who may have its state, in the order in which to ask.
    holders: Vec<Holder>,
}

impl ClaimGrant {
    /// Whether the state may be what a gateway has of the session with this epoch.
    pub(crate) fn may_hold_state(&self, gateway: &str, epoch: Epoch) -> bool {
        self.holders.iter().any(|holder| holder.gateway == gateway && holder.session_epoch == epoch.0)
    }
}

impl Worlds {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            node: node.clone(),
            worlds: node.directory(DaemonKind::World),
            gateways: node.directory(DaemonKind::Gateway),
            opener: SessionOpener::new(node),
            leader_cache: Mutex::default(),
        }
    }

    /// Who leads a world, as far as the registry knows.
    pub(crate) fn leader(&self, world: WorldId) -> Option<Arc<Instance>> {
        let view = self.worlds.view();
        let mut leader_cache = self.leader_cache.lock();
        if !Arc::ptr_eq(&leader_cache.view, &view) {
            leader_cache.leaders.clear();
            leader_cache.view = view.clone();
        }
        if let Some(leader) = leader_cache.leaders.get(&world) {
            return Some(leader.clone());
        }
        let of_world = view.iter().filter(|instance| instance.world == world && is_leader(instance));
        let leader = Arc::new(of_world.max_by_key(|instance| term(instance))?.clone());
        leader_cache.leaders.insert(world, leader.clone());
        Some(leader)
    }

    fn leaders(&self) -> Vec<Instance> {
        self.worlds.view().iter().filter(|instance| is_leader(instance)).cloned().collect()
    }

    /// Another gateway that takes players, for those who must go.
    pub(crate) fn other_gateways(&self) -> Vec<Instance> {
        let mut others = self.gateways.up();
        others.retain(|gateway| gateway.id.name != self.node.id().name && !gateway.client_address.is_empty());
        others.sort_by(|a, b| a.load.total_cmp(&b.load));
        others
    }

    fn client(&self, leader: &Instance) -> WorldClient<Channel> {
        WorldClient::new(self.node.channel(DaemonKind::World, &leader.grpc_address))
    }

    pub(crate) async fn open_session(&self, leader: &Instance, opening: Opening) -> Result<Epoch, Status> {
        self.opener.open_session(leader, opening).await
    }

    /// The world knows the session. Another that leads it by now is told of it next.
    pub(crate) fn session_opened(&self, core: &Core, session: &Arc<Session>, leader: &Instance) {
        core.enter_world(session, &leader.id.name);
        if self.leader(session.world).is_none_or(|now| now.id.name != leader.id.name) {
            core.worlds.notify_one();
        }
    }

    /// Looks for the session in every world. `None`: no world knows it.
    pub(crate) async fn find(&self, session: SessionId) -> Result<Option<Found>, Status> {
        let leaders = self.leaders();
        if leaders.is_empty() {
            return Err(Status::unavailable("no world is led"));
        }
        let asked = leaders.into_iter().map(|leader| self.find_at(leader, session));
        let mut failure = None;
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(found) => return Ok(Some(found)),
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => failure = Some(status),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn find_at(&self, leader: Instance, session: SessionId) -> Result<Found, Status> {
        let request = FindSessionRequest { session: session.as_bytes().to_vec() };
        let mut client = self.client(&leader);
        let found = with_deadline(DEADLINE, client.find_session(deadline(request))).await?.into_inner();
        let keys =
            found.resume_keys.into_iter().filter_map(|key| <[u8; 32]>::try_from(key).ok().map(Key::new));
        Ok(Found {
            leader,
            epoch: Epoch(found.session_epoch),
            account: AccountId(found.account),
            account_name: found.account_name,
            generation: Generation(found.generation),
            keys: keys.collect(),
            bindings: found.bindings,
        })
    }

    /// The session is this gateway's from now on.
    pub(crate) async fn claim(
        &self,
        session: SessionId,
        found: &Found,
        used: &Key,
        next: &Key,
    ) -> Result<ClaimGrant, Status> {
        let request = ClaimSessionRequest {
            session: session.as_bytes().to_vec(),
            from_epoch: found.epoch.0,
            gateway: self.node.id().name.clone(),
            used_key: used.expose().to_vec(),
            next_key: next.expose().to_vec(),
        };
        let mut client = self.client(&found.leader);
        let reply = with_deadline(DEADLINE, client.claim_session(deadline(request))).await?.into_inner();
        Ok(ClaimGrant { epoch: Epoch(reply.session_epoch), holders: reply.holders })
    }

    /// Asks the other gateways that may have the session's state for it, one after the other; `None` if none gives it in
    /// time.
    pub(crate) async fn fetch_session(
        &self,
        session: SessionId,
        granted: &ClaimGrant,
        limit: Duration,
    ) -> Option<Moved> {
        let until = Instant::now() + limit;
        for holder in granted.holders.iter().filter(|holder| holder.gateway != self.node.id().name) {
            let remaining = until.saturating_duration_since(Instant::now());
            match self.fetch_session_from(holder, session, remaining).await {
                Ok(moved) => return Some(moved),
                Err(status) => debug!(gateway = holder.gateway, %status, "does not have the session"),
            }
        }
        None
    }

    async fn fetch_session_from(
        &self,
        holder: &Holder,
        session: SessionId,
        limit: Duration,
    ) -> Result<Moved, Status> {
        let gateway = self.gateways.get(&holder.gateway).filter(|gateway| !gateway.state.is_down());
        let gateway = gateway.ok_or_else(|| Status::unavailable("the gateway is away"))?;
        let mut client = GatewayClient::new(self.node.channel(DaemonKind::Gateway, &gateway.grpc_address));
        let session = session.as_bytes().to_vec();
        let mut request = Request::new(MoveSessionRequest { session, session_epoch: holder.session_epoch });
        request.set_timeout(limit);
        let reply = with_deadline(limit, client.move_session(request)).await?;
        Ok(Moved::try_from(reply.into_inner())?)
    }
}

fn is_leader(instance: &Instance) -> bool {
    matches!(instance.state, State::Up | State::Draining) && instance.leads()
}

fn term(instance: &Instance) -> u64 {
    instance.attributes.get("term").and_then(|term| term.parse().ok()).unwrap_or(0)
}

pub(super) fn deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// The deadline of the call as the caller keeps it, whatever the peer does.
pub(super) async fn with_deadline<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// What a world is told of a session: for the first time with epoch 0, or again.
pub(crate) fn opening(session: &Session) -> Opening {
    let inner = session.lock();
    Opening {
        session: session.id.as_bytes().to_vec(),
        session_epoch: inner.epoch.0,
        account: session.account.0,
        account_name: session.account_name.clone(),
        generation: session.generation.0,
        resume_key: inner.keys.world.expose().to_vec(),
        character: inner.character,
        queue_place: inner.queue_place,
    }
}

/// Presents sessions to whoever leads their worlds, whenever that changes, until `stop`.
pub(crate) async fn present_sessions(core: Arc<Core>, worlds: Arc<Worlds>, stop: CancellationToken) {
    let mut directory = worlds.worlds.clone();
    loop {
        let all_presented = present_all(&core, &worlds).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.changed() => {}
            () = core.worlds.notified() => {}
            () = tokio::time::sleep(PRESENT_RETRY), if !all_presented => {}
        }
    }
}

async fn present_all(core: &Arc<Core>, worlds: &Worlds) -> bool {
    let waiting: Vec<_> = core
        .sessions
        .all()
        .into_iter()
        .filter_map(|session| {
            let leader = worlds.leader(session.world)?;
            rebind_to_leader(&session, &leader.id.name).then_some((session, leader))
        })
        .collect();
    if waiting.is_empty() {
        return true;
    }
    info!(sessions = waiting.len(), "presenting sessions to a new leader");
    stream::iter(waiting)
        .map(|(session, leader)| present_one(core, worlds, session, leader))
        .buffer_unordered(PRESENT_CONCURRENCY)
        .fold(true, |all, taken| std::future::ready(all && taken))
        .await
}

/// Binds the session to the leader; true when the leader has to hear of it first.
fn rebind_to_leader(session: &Session, leader: &str) -> bool {
    let mut inner = session.lock();
    if !inner.bindings.is_bound_to(BackendKind::WORLD, leader) {
        inner.bindings.set(BackendKind::WORLD, leader, Epoch::default(), true);
        inner.fail_in_flight(BackendKind::WORLD);
        drop(inner);
        session.waker.notify();
        return true;
    }
    inner.bindings.get(BackendKind::WORLD).is_some_and(crate::session::Binding::is_pending)
}

/// False: the leader did not answer, to be tried again.
async fn present_one(core: &Core, worlds: &Worlds, session: Arc<Session>, leader: Arc<Instance>) -> bool {
    match worlds.open_session(&leader, opening(&session)).await {
        Ok(_) => {
            worlds.session_opened(core, &session, &leader);
            true
        }
        // Another gateway has it.
        Err(status) if status.code() == Code::FailedPrecondition => {
            core.end(&session, Ending::Moved);
            true
        }
        Err(status) if matches!(status.code(), Code::Aborted | Code::PermissionDenied | Code::NotFound) => {
            core.end(&session, Ending::new(ErrorCode::Displaced, status.message()));
            true
        }
        Err(status) => {
            debug!(world = session.world.0, %status, "not presented");
            false
        }
    }
}

impl Core {
    /// The world knows the session: it may hear of it, and of what its client says.
    fn enter_world(&self, session: &Arc<Session>, leader: &str) {
        let mut inner = session.lock();
        if let Some(ending) = &inner.ended {
            // Its world may have heard that before it heard of the session.
            if let (Some(link), true) = (self.links.get(leader), *ending != Ending::Moved) {
                link.session(session.event(&inner, SessionChange::Left));
            }
            return;
        }
        let held = inner.bindings.set(BackendKind::WORLD, leader, Epoch::default(), false);
        if let (Some(link), Some(binding)) = (self.links.get(leader), inner.bindings.get(BackendKind::WORLD))
        {
            session.announce(&inner, binding, &link);
        }
        self.deliver_to(session.id, &mut inner, leader, held);
        drop(inner);
        session.waker.notify();
    }
}

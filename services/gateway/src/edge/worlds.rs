//! Calls to worlds: to open a session, to find one that another gateway held, and to claim it; and calls to other
//! gateways for the state of a claimed session.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_auth::Key;
use shardkeep_cluster::{Directory, Instance, Node, State};
use shardkeep_rpc::{
    gateway::{MoveSessionRequest, gateway_client::GatewayClient},
    world::{Binding, ClaimSessionRequest, FindSessionRequest, Holder, Opening, world_client::WorldClient},
};
use shardkeep_types::{AccountId, BackendKind, DaemonKind, Epoch, Generation, SessionId, WorldId};
use tonic::{Code, Request, Status, transport::Channel};
use tracing::debug;

use super::{deadline, deadline::DEADLINE, moves, opener::SessionOpener};
use crate::{
    app::App,
    domain::session::{HeldBinding, Session, Snapshot},
};

pub(crate) struct Worlds {
    node: Node,
    worlds: Directory,
    gateways: Directory,
    opener: SessionOpener,
    leader_cache: Mutex<LeaderCache>,
}

/// The leader of each world, as of one view of the directory.
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
    pub(crate) bindings: Vec<HeldBinding>,
}

/// A world has given a session to this gateway.
pub(crate) struct ClaimGrant {
    pub(crate) epoch: Epoch,
    /// Gateways that may have its state, in the order in which to ask them.
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

    /// The leader of a world, as far as the registry knows.
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

    /// A directory of the worlds, to wait for changes of leadership.
    pub(crate) fn directory(&self) -> Directory {
        self.worlds.clone()
    }

    fn leaders(&self) -> Vec<Instance> {
        self.worlds.view().iter().filter(|instance| is_leader(instance)).cloned().collect()
    }

    /// Other gateways that take players, the lightest first.
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

    /// The leader knows the session. If another instance leads the world by now, the session is presented to it next.
    pub(crate) fn session_opened(&self, app: &App, session: &Session, leader: &Instance) {
        app.world_opened(session, &leader.id.name);
        if self.leader(session.world()).is_none_or(|now| now.id.name != leader.id.name) {
            app.unpresented().notify_one();
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
        let found =
            deadline::within(DEADLINE, client.find_session(deadline::request(request))).await?.into_inner();
        let keys =
            found.resume_keys.into_iter().filter_map(|key| <[u8; 32]>::try_from(key).ok().map(Key::new));
        Ok(Found {
            leader,
            epoch: Epoch(found.session_epoch),
            account: AccountId(found.account),
            account_name: found.account_name,
            generation: Generation(found.generation),
            keys: keys.collect(),
            bindings: found.bindings.into_iter().filter_map(binding).collect(),
        })
    }

    /// Claims the session for this gateway.
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
        let reply =
            deadline::within(DEADLINE, client.claim_session(deadline::request(request))).await?.into_inner();
        Ok(ClaimGrant { epoch: Epoch(reply.session_epoch), holders: reply.holders })
    }

    /// Asks the gateways that may have the session's state, one after the other; `None`: none answered in time.
    pub(crate) async fn fetch_session(
        &self,
        session: SessionId,
        granted: &ClaimGrant,
        limit: Duration,
    ) -> Option<Snapshot> {
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
    ) -> Result<Snapshot, Status> {
        let gateway = self.gateways.get(&holder.gateway).filter(|gateway| !gateway.state.is_down());
        let gateway = gateway.ok_or_else(|| Status::unavailable("the gateway is away"))?;
        let mut client = GatewayClient::new(self.node.channel(DaemonKind::Gateway, &gateway.grpc_address));
        let session = session.as_bytes().to_vec();
        let mut request = Request::new(MoveSessionRequest { session, session_epoch: holder.session_epoch });
        request.set_timeout(limit);
        let reply = deadline::within(limit, client.move_session(request)).await?;
        Ok(moves::snapshot(reply.into_inner())?)
    }
}

fn is_leader(instance: &Instance) -> bool {
    matches!(instance.state, State::Up | State::Draining) && instance.leads()
}

fn term(instance: &Instance) -> u64 {
    instance.attributes.get("term").and_then(|term| term.parse().ok()).unwrap_or(0)
}

/// A binding that the world knows. Kinds that this version does not know are left out.
fn binding(binding: Binding) -> Option<HeldBinding> {
    let kind = u8::try_from(binding.kind).ok().map(BackendKind)?;
    let (instance, epoch) = (binding.instance.into(), Epoch(binding.bind_epoch));
    Some(HeldBinding { kind, instance, epoch, held: Vec::new() })
}

/// The description of a session for a world. A session that no world knows yet has epoch 0.
pub(crate) fn opening(session: &Session) -> Opening {
    let state = session.lock();
    let (key, world) = state.world_record();
    Opening {
        session: session.id().as_bytes().to_vec(),
        session_epoch: state.epoch().0,
        account: session.account().0,
        account_name: session.account_name().to_owned(),
        generation: session.generation().0,
        resume_key: key.expose().to_vec(),
        character: world.character(),
        queue_place: world.queue_place(),
    }
}

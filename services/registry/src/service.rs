//! The gRPC service: parses requests, checks callers, applies calls to the table, and turns changes into events.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use metrics::counter;
use shardkeep_cluster::{Instance, Peer};
use shardkeep_rpc::{
    Malformed,
    registry::{
        HeartbeatReply, HeartbeatRequest, LeaveReply, LeaveRequest, ListReply, ListRequest, RegisterReply,
        RegisterRequest, RemoveReply, RemoveRequest, WatchEvent, WatchRequest, registry_server::Registry,
        watch_event::Event,
    },
};
use shardkeep_types::{DaemonKind, InstanceId};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::{
    error::RegistryError,
    hub::Hub,
    metrics::{EVICTED, HEARTBEATS, REFUSED, REGISTRATIONS},
    table::{Change, Heartbeat, Holder},
};

const KEY_BYTES: usize = 16;

pub(crate) struct RegistryService {
    hub: Arc<Hub>,
}

impl RegistryService {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Counts the refusal.
    fn refuse(error: RegistryError) -> Status {
        counter!(REFUSED, "reason" => error.label()).increment(1);
        error.into()
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let peer = Peer::of(&request)?;
        let RegisterRequest { instance, lease_ms, key } = request.into_inner();
        let instance = Instance::try_from(instance.ok_or_else(|| Malformed::missing("instance"))?)?;
        require_own_identity(&peer, &instance.id)?;
        if instance.world != peer.world {
            return Err(Self::refuse(RegistryError::IdentityMismatch));
        }
        if key.len() != KEY_BYTES {
            return Err(Self::refuse(RegistryError::Key));
        }
        let holder = Holder { certificate: peer.certificate().clone(), key };
        let (id, state) = (instance.id.clone(), instance.state);
        let result = self.hub.apply(|table, now| {
            match table.register(instance, holder, Duration::from_millis(lease_ms.into()), now) {
                Ok(changes) => (Ok(evicted(&changes)), changes),
                Err(error) => (Err(error), Vec::new()),
            }
        });
        let evicted = result.map_err(|error| {
            warn!(instance = %id, incarnation = id.incarnation, %error, "refused a registration");
            Self::refuse(error)
        })?;
        if let Some(evicted) = evicted {
            counter!(EVICTED).increment(1);
            info!(instance = %evicted, "dropped to make room: it was offline longest");
        }
        counter!(REGISTRATIONS).increment(1);
        info!(instance = %id, incarnation = id.incarnation, %state, "registered");
        Ok(Response::new(RegisterReply {}))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let peer = Peer::of(&request)?;
        let HeartbeatRequest { id, state, load, attributes, leadership, key } = request.into_inner();
        let id = instance_id(id)?;
        require_own_identity(&peer, &id)?;
        let load = if load.is_finite() { load.clamp(0.0, 1.0) } else { 1.0 };
        let heartbeat = Heartbeat {
            state: state.try_into()?,
            load,
            leadership: leadership.try_into()?,
            attributes: attributes.into_iter().collect(),
            key,
        };
        counter!(HEARTBEATS).increment(1);
        let known = self.hub.apply(|table, now| match table.heartbeat(&id, heartbeat, now) {
            Ok(Some(changes)) => (Ok(true), changes),
            Ok(None) => (Ok(false), Vec::new()),
            Err(error) => (Err(error), Vec::new()),
        });
        Ok(Response::new(HeartbeatReply { known: known.map_err(Self::refuse)? }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let peer = Peer::of(&request)?;
        let LeaveRequest { id, failed, key } = request.into_inner();
        let id = instance_id(id)?;
        require_own_identity(&peer, &id)?;
        self.hub.apply(|table, now| ((), table.leave(&id, &key, failed, now).into_iter().collect()));
        info!(instance = %id, incarnation = id.incarnation, failed, "left");
        Ok(Response::new(LeaveReply {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = parse_kinds(&request.into_inner().kinds)?;
        let watch = self.hub.watch(kinds).ok_or_else(|| Status::unavailable("this registry is draining"))?;
        let snapshot: Vec<Event> = watch
            .snapshot
            .iter()
            .map(|instance| Event::Changed(instance.into()))
            .chain([Event::Synced(true)])
            .collect();
        let changes = ReceiverStream::new(watch.changes).map(|change| match change {
            Change::Changed(instance) => Event::Changed((&instance).into()),
            Change::Removed(id) => Event::Removed((&id).into()),
        });
        let events = stream::iter(snapshot).chain(changes).map(|event| Ok(WatchEvent { event: Some(event) }));
        Ok(Response::new(events.boxed()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let kinds = parse_kinds(&request.into_inner().kinds)?;
        let instances = self.hub.list(&kinds).iter().map(Into::into).collect();
        Ok(Response::new(ListReply { instances }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        let peer = Peer::of(&request)?;
        let RemoveRequest { kind, name } = request.into_inner();
        let kind = parse_kind(&kind)?;
        let result = self.hub.apply(|table, _| match table.remove(kind, &name) {
            Ok(change) => (Ok(()), vec![change]),
            Err(error) => (Err(error), Vec::new()),
        });
        result.map_err(Self::refuse)?;
        info!(%kind, name, %peer, "removed");
        Ok(Response::new(RemoveReply {}))
    }
}

fn evicted(changes: &[Change]) -> Option<InstanceId> {
    changes.iter().find_map(|change| match change {
        Change::Removed(id) => Some(id.clone()),
        Change::Changed(_) => None,
    })
}

/// A peer that could register another instance would receive its traffic.
fn require_own_identity(peer: &Peer, id: &InstanceId) -> Result<(), Status> {
    if peer.kind == id.kind && peer.name == id.name {
        return Ok(());
    }
    warn!(%peer, instance = %id, "a peer tried to register another instance");
    Err(RegistryService::refuse(RegistryError::IdentityMismatch))
}

fn instance_id(id: Option<shardkeep_rpc::common::InstanceId>) -> Result<InstanceId, Malformed> {
    id.ok_or_else(|| Malformed::missing("id"))?.try_into()
}

fn parse_kinds(kinds: &[String]) -> Result<Vec<DaemonKind>, Malformed> {
    kinds.iter().map(|kind| parse_kind(kind)).collect()
}

fn parse_kind(kind: &str) -> Result<DaemonKind, Malformed> {
    kind.parse().map_err(|error| Malformed::new("kind", error))
}

//! The daemons that login talks to, as far as it can tell: a registry that believes everything, and a gateway that
//! writes down what it is asked.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{Stream, StreamExt, stream};
use shardkeep_rpc::{
    billing::{self, billing_server::Billing},
    gateway::{self, gateway_server::Gateway},
    registry::{self, registry_server::Registry, watch_event::Event},
};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

type Name = (String, String);

#[derive(Clone)]
pub(crate) struct StandInRegistry {
    instances: Arc<Mutex<BTreeMap<Name, registry::Instance>>>,
    changes: broadcast::Sender<registry::Instance>,
}

impl Default for StandInRegistry {
    fn default() -> Self {
        Self { instances: Arc::default(), changes: broadcast::channel(256).0 }
    }
}

fn event(event: Event) -> Result<registry::WatchEvent, Status> {
    Ok(registry::WatchEvent { event: Some(event) })
}

#[tonic::async_trait]
impl Registry for StandInRegistry {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<registry::WatchEvent, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<registry::RegisterRequest>,
    ) -> Result<Response<registry::RegisterReply>, Status> {
        let instance = request.into_inner().instance.expect("an instance");
        let id = instance.id.clone().expect("an id");
        self.instances.lock().unwrap().insert((id.kind, id.name), instance.clone());
        // Nobody may be watching yet.
        let _ = self.changes.send(instance);
        Ok(Response::new(registry::RegisterReply {}))
    }

    async fn heartbeat(
        &self,
        request: Request<registry::HeartbeatRequest>,
    ) -> Result<Response<registry::HeartbeatReply>, Status> {
        let registry::HeartbeatRequest { id, state, load, attributes } = request.into_inner();
        let id = id.expect("an id");
        let mut instances = self.instances.lock().unwrap();
        let Some(instance) = instances.get_mut(&(id.kind, id.name)) else {
            return Ok(Response::new(registry::HeartbeatReply { known: false }));
        };
        let now = registry::Instance { state, load, attributes, ..instance.clone() };
        if *instance != now {
            *instance = now.clone();
            let _ = self.changes.send(now);
        }
        Ok(Response::new(registry::HeartbeatReply { known: true }))
    }

    async fn leave(
        &self,
        _: Request<registry::LeaveRequest>,
    ) -> Result<Response<registry::LeaveReply>, Status> {
        Ok(Response::new(registry::LeaveReply {}))
    }

    async fn watch(
        &self,
        request: Request<registry::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = request.into_inner().kinds;
        let wanted = move |instance: &registry::Instance| {
            kinds.is_empty() || instance.id.as_ref().is_some_and(|id| kinds.contains(&id.kind))
        };
        let changes = BroadcastStream::new(self.changes.subscribe());
        let now: Vec<_> = self.instances.lock().unwrap().values().filter(|i| wanted(i)).cloned().collect();
        let first = now.into_iter().map(Event::Changed).chain([Event::Synced(true)]).map(event);
        let later = changes.filter_map(move |change| {
            let change = change.ok().filter(|instance| wanted(instance)).map(Event::Changed).map(event);
            async { change }
        });
        Ok(Response::new(Box::pin(stream::iter(first).chain(later))))
    }

    async fn list(&self, _: Request<registry::ListRequest>) -> Result<Response<registry::ListReply>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn remove(
        &self,
        _: Request<registry::RemoveRequest>,
    ) -> Result<Response<registry::RemoveReply>, Status> {
        Err(Status::unimplemented("remove"))
    }
}

/// What a gateway was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Admit(gateway::AdmitRequest),
    RevokeTicket(Vec<u8>),
    RevokeAccount(gateway::RevokeAccountRequest),
}

#[derive(Clone)]
pub(crate) struct StandInGateway {
    asked: Arc<watch::Sender<Vec<Asked>>>,
    refuses: Arc<AtomicBool>,
}

impl Default for StandInGateway {
    fn default() -> Self {
        Self { asked: Arc::new(watch::Sender::new(Vec::new())), refuses: Arc::default() }
    }
}

impl StandInGateway {
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.borrow().clone()
    }

    pub(crate) fn admitted(&self) -> Vec<gateway::AdmitRequest> {
        let admits = self.asked().into_iter().filter_map(|asked| match asked {
            Asked::Admit(request) => Some(request),
            _ => None,
        });
        admits.collect()
    }

    /// Waits for the first request of which `pick` makes something.
    pub(crate) async fn was_asked<T>(&self, pick: impl Fn(&Asked) -> Option<T>) -> T {
        let mut asked = self.asked.subscribe();
        let seen = asked.wait_for(|all| all.iter().any(|one| pick(one).is_some())).await.unwrap();
        seen.iter().find_map(&pick).unwrap()
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    fn note(&self, asked: Asked) {
        self.asked.send_modify(|all| all.push(asked));
    }
}

#[tonic::async_trait]
impl Gateway for StandInGateway {
    async fn admit(
        &self,
        request: Request<gateway::AdmitRequest>,
    ) -> Result<Response<gateway::AdmitReply>, Status> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Status::unavailable("draining"));
        }
        self.note(Asked::Admit(request.into_inner()));
        Ok(Response::new(gateway::AdmitReply {}))
    }

    async fn revoke_ticket(
        &self,
        request: Request<gateway::RevokeTicketRequest>,
    ) -> Result<Response<gateway::RevokeTicketReply>, Status> {
        self.note(Asked::RevokeTicket(request.into_inner().ticket_id));
        Ok(Response::new(gateway::RevokeTicketReply {}))
    }

    async fn revoke_account(
        &self,
        request: Request<gateway::RevokeAccountRequest>,
    ) -> Result<Response<gateway::RevokeAccountReply>, Status> {
        self.note(Asked::RevokeAccount(request.into_inner()));
        Ok(Response::new(gateway::RevokeAccountReply { ended: 1 }))
    }

    async fn move_session(
        &self,
        _: Request<gateway::MoveSessionRequest>,
    ) -> Result<Response<gateway::MoveSessionReply>, Status> {
        Err(Status::unimplemented("move_session"))
    }

    async fn list_costs(
        &self,
        _: Request<gateway::ListCostsRequest>,
    ) -> Result<Response<gateway::ListCostsReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn list_sessions(
        &self,
        _: Request<gateway::ListSessionsRequest>,
    ) -> Result<Response<gateway::ListSessionsReply>, Status> {
        Err(Status::unimplemented("list_sessions"))
    }

    async fn kick(&self, _: Request<gateway::KickRequest>) -> Result<Response<gateway::KickReply>, Status> {
        Err(Status::unimplemented("kick"))
    }

    async fn announce(
        &self,
        _: Request<gateway::AnnounceRequest>,
    ) -> Result<Response<gateway::AnnounceReply>, Status> {
        Err(Status::unimplemented("announce"))
    }
}

/// Everybody has an hour left.
pub(crate) struct StandInBilling;

pub(crate) const PLAY_TIME_LEFT_MS: u64 = 3_600_000;

#[tonic::async_trait]
impl Billing for StandInBilling {
    async fn report(
        &self,
        _: Request<billing::ReportRequest>,
    ) -> Result<Response<billing::ReportReply>, Status> {
        Err(Status::unimplemented("report"))
    }

    async fn show(&self, _: Request<billing::ShowRequest>) -> Result<Response<billing::ShowReply>, Status> {
        Ok(Response::new(billing::ShowReply {
            plan: "prepaid".into(),
            left_ms: Some(PLAY_TIME_LEFT_MS),
            played_ms: 0,
        }))
    }

    async fn credit(
        &self,
        _: Request<billing::CreditRequest>,
    ) -> Result<Response<billing::CreditReply>, Status> {
        Err(Status::unimplemented("credit"))
    }
}

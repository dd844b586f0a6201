//! Stand-ins for the daemons that a gateway calls: a world that keeps sessions, and billing that records reports.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use shardkeep_rpc::{
    billing::{
        CreditReply, CreditRequest, FollowPrepaidRequest, PrepaidAccounts, ReportReply, ReportRequest,
        SessionReport, ShowReply, ShowRequest, TimeLeftReply, TimeLeftRequest, billing_server::Billing,
    },
    world::{self, world_server::World, *},
};
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, watch},
    time::timeout,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::TEST_TIMEOUT;

#[derive(Clone, Default)]
pub(crate) struct StandInWorld {
    sessions: Arc<Mutex<HashMap<Vec<u8>, Known>>>,
    /// While it is locked for writing, no session is opened.
    opening: Arc<RwLock<()>>,
    /// The world's name, and the openings that each world was asked for.
    name: String,
    asked: Arc<watch::Sender<HashSet<(String, u64)>>>,
    /// The next claim is refused because another came first.
    overtaken: Arc<AtomicBool>,
    /// Gateways whose claims are accepted but not answered.
    unanswered: Arc<watch::Sender<HashSet<String>>>,
    /// How often sessions were presented, and how often claimed.
    pub(crate) opened: Arc<watch::Sender<u32>>,
    pub(crate) claimed: Arc<watch::Sender<u32>>,
}

struct Known {
    found: FindSessionReply,
    holder: Holder,
    before: Vec<Holder>,
}

impl StandInWorld {
    pub(crate) fn forget(&self, session: &[u8]) {
        self.sessions.lock().unwrap().remove(session);
    }

    /// Sets the gateway that the world names as the session's holder.
    pub(crate) fn set_holder(&self, session: &[u8], gateway: &str) {
        self.sessions.lock().unwrap().get_mut(session).unwrap().holder.gateway = gateway.into();
    }

    /// Whether the gateway's claims, which are accepted, are answered.
    pub(crate) fn answer_claims(&self, gateway: &str, answer_claims: bool) {
        self.unanswered.send_modify(|unanswered| {
            if answer_claims {
                unanswered.remove(gateway)
            } else {
                unanswered.insert(gateway.into())
            };
        });
    }

    /// Pauses openings until the guard is dropped.
    pub(crate) async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.opening.clone().write_owned().await
    }

    /// The same stand-in under another world's name.
    pub(crate) fn named(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// Waits until this world has been asked to open a session of the account.
    pub(crate) async fn wait_for_opening(&self, world: &str, account: u64) {
        let (mut asked, wanted) = (self.asked.subscribe(), (world.to_owned(), account));
        timeout(TEST_TIMEOUT, asked.wait_for(|asked| asked.contains(&wanted)))
            .await
            .expect("an opening")
            .unwrap();
    }

    pub(crate) fn fail_next_claim(&self) {
        self.overtaken.store(true, Ordering::Relaxed);
    }

    /// The zone binding that `FindSession` returns.
    pub(crate) fn set_zone_binding(&self, session: &[u8], zone: &str, bind_epoch: u64) {
        let binding = world::Binding { kind: 2, instance: zone.into(), bind_epoch };
        self.sessions.lock().unwrap().get_mut(session).unwrap().found.bindings.push(binding);
    }
}

impl StandInWorld {
    fn claim(&self, request: ClaimSessionRequest) -> Result<ClaimSessionReply, Status> {
        let mut sessions = self.sessions.lock().unwrap();
        let Known { found, holder, before } = sessions.get_mut(&request.session).unwrap();
        let overtaken = self.overtaken.swap(false, Ordering::Relaxed);
        if overtaken
            || found.session_epoch != request.from_epoch
            || !found.resume_keys.contains(&request.used_key)
        {
            return Err(Status::failed_precondition("another claim came between"));
        }
        if found.resume_keys[0] == request.used_key {
            before.clear();
        }
        found.session_epoch += 1;
        found.resume_keys = vec![request.next_key, request.used_key];
        let next = Holder { gateway: request.gateway, session_epoch: found.session_epoch };
        before.push(std::mem::replace(holder, next));
        Ok(ClaimSessionReply { session_epoch: found.session_epoch, holders: before.clone() })
    }
}

#[tonic::async_trait]
impl World for StandInWorld {
    async fn open_sessions(
        &self,
        request: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        let OpenSessionsRequest { gateway, openings } = request.into_inner();
        let accounts = openings.iter().map(|opening| (self.name.clone(), opening.account));
        self.asked.send_modify(|asked| asked.extend(accounts));
        let _opening = self.opening.read().await;
        let open = |opening: Opening| {
            let session_epoch = opening.session_epoch.max(1);
            let found = FindSessionReply {
                session_epoch,
                account: opening.account,
                account_name: opening.account_name,
                generation: opening.generation,
                resume_keys: vec![opening.resume_key],
                // The binding of a world in its first term.
                bindings: vec![world::Binding { kind: 1, instance: "world-1".into(), bind_epoch: 1 }],
            };
            let known =
                Known { found, holder: Holder { gateway: gateway.clone(), session_epoch }, before: vec![] };
            self.sessions.lock().unwrap().insert(opening.session, known);
            self.opened.send_modify(|count| *count += 1);
            Opened { session_epoch, ..Opened::default() }
        };
        let opened = openings.into_iter().map(open).collect();
        Ok(Response::new(OpenSessionsReply { term: 1, opened }))
    }

    async fn find_session(
        &self,
        request: Request<FindSessionRequest>,
    ) -> Result<Response<FindSessionReply>, Status> {
        let sessions = self.sessions.lock().unwrap();
        let found = sessions.get(&request.into_inner().session).map(|known| known.found.clone());
        found.map(Response::new).ok_or_else(|| Status::not_found("no such session"))
    }

    async fn claim_session(
        &self,
        request: Request<ClaimSessionRequest>,
    ) -> Result<Response<ClaimSessionReply>, Status> {
        let request = request.into_inner();
        let gateway = request.gateway.clone();
        let reply = self.claim(request)?;
        self.claimed.send_modify(|count| *count += 1);
        let mut unanswered = self.unanswered.subscribe();
        let _ = unanswered.wait_for(|unanswered| !unanswered.contains(&gateway)).await;
        Ok(Response::new(reply))
    }

    type WatchPartitionStream = Empty<Result<Partition, Status>>;
    async fn watch_partition(
        &self,
        _: Request<WatchPartitionRequest>,
    ) -> Result<Response<Self::WatchPartitionStream>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn report_presence(
        &self,
        _: Request<Streaming<PresenceReport>>,
    ) -> Result<Response<ReportPresenceReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    type WatchPresenceStream = Empty<Result<PresenceReport, Status>>;
    async fn watch_presence(
        &self,
        _: Request<WatchPresenceRequest>,
    ) -> Result<Response<Self::WatchPresenceStream>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn kick(&self, _: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn teleport(&self, _: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }
}

#[derive(Clone, Default)]
pub(crate) struct StandInBilling {
    pub(crate) reports: Arc<watch::Sender<Vec<SessionReport>>>,
}

#[tonic::async_trait]
impl Billing for StandInBilling {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        self.reports.send_modify(|reports| reports.extend(request.into_inner().reports));
        Ok(Response::new(ReportReply {}))
    }

    async fn show(&self, _: Request<ShowRequest>) -> Result<Response<ShowReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn time_left(&self, _: Request<TimeLeftRequest>) -> Result<Response<TimeLeftReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    type FollowPrepaidStream = tonic::codegen::BoxStream<PrepaidAccounts>;

    async fn follow_prepaid(
        &self,
        _: Request<FollowPrepaidRequest>,
    ) -> Result<Response<Self::FollowPrepaidStream>, Status> {
        Err(Status::unimplemented("follow_prepaid"))
    }

    async fn credit(&self, _: Request<CreditRequest>) -> Result<Response<CreditReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }
}

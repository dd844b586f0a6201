//! A world that keeps sessions as a gateway presents them, publishes the partition that a test gives it, and keeps the
//! presences that zones report.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use shardkeep_rpc::world::{world_server::World, *};
use tokio::{
    sync::{OwnedRwLockWriteGuard, RwLock, watch},
    time::timeout,
};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use super::unimplemented_calls;
use crate::wait::TIMEOUT;

#[derive(Clone, Default)]
pub struct FakeWorld {
    sessions: Arc<Mutex<HashMap<Vec<u8>, Known>>>,
    /// While it is locked for writing, no session is opened.
    opening: Arc<RwLock<()>>,
    /// The world's name, and the openings that each world was asked for.
    name: String,
    asked: watch::Sender<HashSet<(String, u64)>>,
    /// The next claim is refused because another came first.
    overtaken: Arc<AtomicBool>,
    /// Gateways whose claims are accepted but not answered.
    unanswered: watch::Sender<HashSet<String>>,
    /// How often sessions were presented, and how often claimed.
    pub opened: watch::Sender<u32>,
    pub claimed: watch::Sender<u32>,
    partition: watch::Sender<Partition>,
    /// All reported presences, by character.
    present: watch::Sender<BTreeMap<u64, Presence>>,
}

struct Known {
    found: FindSessionReply,
    holder: Holder,
    before: Vec<Holder>,
}

impl FakeWorld {
    pub fn forget(&self, session: &[u8]) {
        self.sessions.lock().remove(session);
    }

    /// Sets the gateway that the world names as the session's holder.
    pub fn set_holder(&self, session: &[u8], gateway: &str) {
        self.sessions.lock().get_mut(session).unwrap().holder.gateway = gateway.into();
    }

    /// Whether the gateway's claims, which are accepted, are answered.
    pub fn answer_claims(&self, gateway: &str, answer_claims: bool) {
        self.unanswered.send_modify(|unanswered| {
            if answer_claims {
                unanswered.remove(gateway)
            } else {
                unanswered.insert(gateway.into())
            };
        });
    }

    /// Pauses openings until the guard is dropped.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.opening.clone().write_owned().await
    }

    /// The same world under another world's name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// Waits until this world has been asked to open a session of the account.
    pub async fn wait_for_opening(&self, world: &str, account: u64) {
        let (mut asked, wanted) = (self.asked.subscribe(), (world.to_owned(), account));
        timeout(TIMEOUT, asked.wait_for(|asked| asked.contains(&wanted))).await.expect("an opening").unwrap();
    }

    pub fn fail_next_claim(&self) {
        self.overtaken.store(true, Ordering::Relaxed);
    }

    /// The zone binding that `FindSession` returns.
    pub fn set_zone_binding(&self, session: &[u8], zone: &str, bind_epoch: u64) {
        let binding = Binding { kind: 2, instance: zone.into(), bind_epoch };
        self.sessions.lock().get_mut(session).unwrap().found.bindings.push(binding);
    }

    pub fn publish(&self, partition: Partition) {
        self.partition.send_replace(partition);
    }

    /// Waits until the reported presences satisfy `is`.
    pub async fn wait_for_presence(&self, is: impl FnMut(&BTreeMap<u64, Presence>) -> bool) {
        let mut present = self.present.subscribe();
        timeout(TIMEOUT, present.wait_for(is)).await.expect("it is reported").unwrap();
    }

    /// Takes a report, as from a zone.
    pub fn report(&self, report: PresenceReport) {
        let zone = report.zone.unwrap_or_default().name;
        self.present.send_modify(|present| {
            if report.complete {
                present.retain(|_, presence| presence.zone != zone);
            }
            for presence in report.present {
                present.insert(presence.character, presence);
            }
            for character in report.gone {
                if present.get(&character).is_some_and(|presence| presence.zone == zone) {
                    present.remove(&character);
                }
            }
        });
    }

    fn claim(&self, request: ClaimSessionRequest) -> Result<ClaimSessionReply, Status> {
        let mut sessions = self.sessions.lock();
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
impl World for FakeWorld {
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
                bindings: vec![Binding { kind: 1, instance: "world-1".into(), bind_epoch: 1 }],
            };
            let known =
                Known { found, holder: Holder { gateway: gateway.clone(), session_epoch }, before: vec![] };
            self.sessions.lock().insert(opening.session, known);
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
        let sessions = self.sessions.lock();
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

    type WatchPartitionStream = BoxStream<Partition>;

    async fn watch_partition(
        &self,
        _: Request<WatchPartitionRequest>,
    ) -> Result<Response<Self::WatchPartitionStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.partition.subscribe()).map(Ok))))
    }

    async fn report_presence(
        &self,
        request: Request<Streaming<PresenceReport>>,
    ) -> Result<Response<ReportPresenceReply>, Status> {
        let mut reports = request.into_inner();
        while let Some(report) = reports.message().await? {
            self.report(report);
        }
        Ok(Response::new(ReportPresenceReply {}))
    }

    type WatchPresenceStream = BoxStream<PresenceReport>;

    async fn watch_presence(
        &self,
        _: Request<WatchPresenceRequest>,
    ) -> Result<Response<Self::WatchPresenceStream>, Status> {
        let reports = WatchStream::new(self.present.subscribe()).map(|present| {
            let present = present.into_values().collect();
            Ok(PresenceReport { complete: true, present, ..PresenceReport::default() })
        });
        Ok(Response::new(Box::pin(reports)))
    }

    unimplemented_calls! {
        kick(KickRequest) -> KickReply;
        teleport(TeleportRequest) -> TeleportReply;
        announce(AnnounceRequest) -> AnnounceReply;
        change_layout(ChangeLayoutRequest) -> ChangeLayoutReply;
        status(StatusRequest) -> StatusReply;
    }
}

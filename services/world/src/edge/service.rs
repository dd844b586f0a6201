//! The world's gRPC service, and the handle through which tasks reach the world's state.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use shardkeep_cluster::{Node, Peer};
use shardkeep_rpc::{
    Malformed,
    batched_call::{check_request_count, refusal},
    session_id,
    world::{
        AnnounceReply, AnnounceRequest, Binding, ChangeLayoutReply, ChangeLayoutRequest, ClaimSessionReply,
        ClaimSessionRequest, FindSessionReply, FindSessionRequest, KickReply, KickRequest, OpenSessionsReply,
        OpenSessionsRequest, Opened, Partition, PresenceReport, ReportPresenceReply, StatusReply,
        StatusRequest, TeleportReply, TeleportRequest, WatchPartitionRequest, WatchPresenceRequest,
        kick_request::Selector, world_server,
    },
    zone::{self, zone_client::ZoneClient},
};
use shardkeep_types::{AccountId, BackendKind, CharacterId, DaemonKind, Epoch, InstanceId, SpaceId, Term};
use shardkeep_wire::payload::ErrorCode;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    app::App,
    domain::{presence::Avatar, sessions::SessionError, zone::ZoneView},
    edge::{call::call, convert, layout, watchers::Watchers},
    metrics::CALLS,
};

/// A closure that runs in its turn.
pub(crate) type Job = Box<dyn FnOnce(&mut App, &mut Watchers, Instant) + Send>;

/// Length limit of an operator's announcement, in bytes.
const MAX_ANNOUNCEMENT_BYTES: usize = 1024;

/// How long a call waits until its change of the layout is stored.
const STORE_TIMEOUT: Duration = Duration::from_secs(4);

/// A handle to the world's state; clones reach the same one.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Job>);

impl Handle {
    /// Bound: 1024 jobs. Overflow: the sender waits, within its own deadline.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(1024);
        (Self(jobs), receiver)
    }

    /// Runs `job` in its turn, or never if the world has stopped.
    pub(crate) async fn tell(&self, job: impl FnOnce(&mut App, Instant) + Send + 'static) {
        let _ = self.0.send(Box::new(|app, _, now| job(app, now))).await;
    }

    /// Runs `job` in its turn and returns its result.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut App, Instant) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.ask_with_watchers(|app, _, now| job(app, now)).await
    }

    async fn ask_with_watchers<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut App, &mut Watchers, Instant) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(|app, watchers, now| {
            // Fails when the caller has given up.
            let _ = reply.send(job(app, watchers, now));
        });
        self.0.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }
}

fn stopped() -> Status {
    Status::unavailable("the world is stopping")
}

pub(crate) struct WorldService {
    node: Node,
    handle: Handle,
    partition: watch::Receiver<Option<Partition>>,
    streams: Arc<AtomicU64>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl WorldService {
    pub(crate) fn new(node: Node, handle: Handle, partition: watch::Receiver<Option<Partition>>) -> Self {
        Self { node, handle, partition, streams: Arc::default() }
    }

    /// Runs a job if this instance leads now.
    async fn run_as_leader<T: Send + 'static>(
        &self,
        name: &'static str,
        job: impl FnOnce(&mut App, Instant, Term) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let result = self.handle.ask(|app, now| run_if_leader(app, now, job)).await.flatten();
        let code = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        metrics::counter!(CALLS, "call" => name, "code" => format!("{code:?}")).increment(1);
        result
    }

    /// Waits until a revision is stored and announced.
    async fn wait_until_stored(&self, term: Term, revision: u64) -> Result<(), Status> {
        let unknown = |cause| {
            Status::unavailable(format!(
                "{cause} before the change was stored; look at the layout before you repeat it"
            ))
        };
        let mut tables = self.partition.clone();
        let is_decided = |table: &Option<Partition>| {
            table.as_ref().is_none_or(|table| table.term != term.0 || table.epoch >= revision)
        };
        let table = timeout(STORE_TIMEOUT, tables.wait_for(is_decided)).await;
        let table = table.map_err(|_| unknown("the time limit ended"))?.map_err(|_| stopped())?;
        let is_stored = table.as_ref().is_some_and(|table| table.term == term.0);
        if is_stored { Ok(()) } else { Err(unknown("the leadership ended")) }
    }

    fn zone(&self, address: &str) -> ZoneClient<tonic::transport::Channel> {
        ZoneClient::new(self.node.channel(DaemonKind::Zone, address))
    }
}

fn run_if_leader<T>(
    app: &mut App,
    now: Instant,
    job: impl FnOnce(&mut App, Instant, Term) -> Result<T, Status>,
) -> Result<T, Status> {
    match app.leadership().term(now) {
        Some(term) => job(app, now, term),
        None if app.leadership().is_standby() => Err(Status::failed_precondition(format!(
            "a standby; {:?} leads this world",
            app.leadership().holder()
        ))),
        None => Err(Status::unavailable("the world waits for the database to renew its lease")),
    }
}

#[tonic::async_trait]
impl world_server::World for WorldService {
    async fn open_sessions(
        &self,
        request: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        check_gateway_identity(&request, &request.get_ref().gateway)?;
        let OpenSessionsRequest { gateway, openings } = request.into_inner();
        check_request_count("openings", &openings)?;
        let gateway = Arc::from(gateway);
        let presented: Vec<_> =
            openings.into_iter().map(|opening| convert::presented(&gateway, opening)).collect();
        let open = move |app: &mut App, now, term: Term| {
            let mut open = |(id, session, activity)| app.open_session(now, id, session, activity);
            let opened = presented.into_iter().map(|it| opened(it.map(&mut open))).collect();
            Ok(OpenSessionsReply { term: term.0, opened })
        };
        self.run_as_leader("open_sessions", open).await.map(Response::new)
    }

    async fn find_session(
        &self,
        request: Request<FindSessionRequest>,
    ) -> Result<Response<FindSessionReply>, Status> {
        let id = session_id(&request.get_ref().session)?;
        let me = self.node.id().name.clone();
        let find = move |app: &mut App, now, term: Term| {
            let session = app.sessions().find(now, id)?;
            let world = Binding { kind: BackendKind::WORLD.0.into(), instance: me, bind_epoch: term.0 };
            let zone = app.avatar_of(id).map(|avatar| Binding {
                kind: BackendKind::ZONE.0.into(),
                instance: avatar.zone().name.clone(),
                bind_epoch: avatar.epoch().0,
            });
            Ok(FindSessionReply {
                session_epoch: session.epoch().0,
                account: session.account().0,
                account_name: session.account_name().to_owned(),
                generation: session.generation().0,
                resume_keys: session.resume_keys().map(|key| key.expose().clone()).collect(),
                bindings: std::iter::once(world).chain(zone).collect(),
            })
        };
        self.run_as_leader("find_session", find).await.map(Response::new)
    }

    async fn claim_session(
        &self,
        request: Request<ClaimSessionRequest>,
    ) -> Result<Response<ClaimSessionReply>, Status> {
        check_gateway_identity(&request, &request.get_ref().gateway)?;
        let (id, claim) = convert::claim(request.into_inner())?;
        let claim = move |app: &mut App, now, _| {
            let epoch = app.claim(now, id, claim)?;
            let holders = app.sessions().get(id).map(convert::holders).unwrap_or_default();
            Ok(ClaimSessionReply { session_epoch: epoch.0, holders })
        };
        self.run_as_leader("claim_session", claim).await.map(Response::new)
    }

    type WatchPartitionStream = ResponseStream<Partition>;

    async fn watch_partition(
        &self,
        request: Request<WatchPartitionRequest>,
    ) -> Result<Response<Self::WatchPartitionStream>, Status> {
        let zone = convert::zone(request.into_inner().zone)?;
        self.run_as_leader("watch_partition", |_, _, _| Ok(())).await?;
        tracing::info!(zone = zone.name, incarnation = zone.incarnation, "watches the partition");
        // The stream ends with the term.
        let tables =
            WatchStream::new(self.partition.clone()).skip_while(|table| std::future::ready(table.is_none()));
        let tables = tables.take_while(|table| std::future::ready(table.is_some()));
        Ok(Response::new(Box::pin(tables.filter_map(|table| std::future::ready(table.map(Ok))))))
    }

    async fn report_presence(
        &self,
        request: Request<Streaming<PresenceReport>>,
    ) -> Result<Response<ReportPresenceReply>, Status> {
        let peer = Peer::of(&request)?;
        self.run_as_leader("report_presence", |_, _, _| Ok(())).await?;
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        // A task, because this future is dropped when the zone disconnects, and the end of the stream must be reported.
        let reading = read_reports(self.handle.clone(), peer.name, stream, request.into_inner());
        let reader = self.node.daemon().spawn_work("presence reports", reading);
        reader.await.map_err(|_| stopped())??;
        Ok(Response::new(ReportPresenceReply {}))
    }

    type WatchPresenceStream = ReceiverStream<Result<PresenceReport, Status>>;

    async fn watch_presence(
        &self,
        _request: Request<WatchPresenceRequest>,
    ) -> Result<Response<Self::WatchPresenceStream>, Status> {
        let watch = |app: &mut App, watchers: &mut Watchers, now| {
            run_if_leader(app, now, |app, _, _| {
                let present: Vec<_> = app.presence().iter().map(convert::presence).collect();
                Ok(watchers.add(present))
            })
        };
        let reports = self.handle.ask_with_watchers(watch).await??;
        Ok(Response::new(ReceiverStream::new(reports)))
    }

    async fn kick(&self, request: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        let KickRequest { selector, reason } = request.into_inner();
        let selector = selector.ok_or_else(|| Status::invalid_argument("field `selector`: missing"))?;
        let kick = move |app: &mut App, now, _| {
            let session = match selector {
                Selector::Character(name) => app.presence().named(&name).map(Avatar::session),
                Selector::Account(account) => app.sessions().of_account(AccountId(account)),
            };
            let session = session.filter(|session| app.sessions().get(*session).is_some());
            if let Some(session) = session {
                app.close_session(now, session, ErrorCode::Kicked, &reason);
            }
            Ok(KickReply { ended: session.is_some().into() })
        };
        self.run_as_leader("kick", kick).await.map(Response::new)
    }

    async fn teleport(&self, request: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        let TeleportRequest { character, to } = request.into_inner();
        let find = move |app: &mut App, _, _| {
            let avatar = app.presence().named(&character);
            let avatar =
                avatar.ok_or_else(|| Status::not_found(format!("{character:?} is not in the world")))?;
            let address = app.zones().get(avatar.zone()).map(ZoneView::grpc_address);
            let address = address.ok_or_else(|| Status::unavailable("the avatar's zone is away"))?;
            Ok((avatar.character(), address.to_owned()))
        };
        let (CharacterId(character), address) = self.run_as_leader("teleport", find).await?;
        call(self.zone(&address).teleport(zone::TeleportRequest { character, to })).await?;
        Ok(Response::new(TeleportReply {}))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let text = request.into_inner().text;
        if text.is_empty() || text.len() > MAX_ANNOUNCEMENT_BYTES {
            return Err(Status::invalid_argument(format!(
                "field `text`: must be 1 to {MAX_ANNOUNCEMENT_BYTES} bytes"
            )));
        }
        let announce = move |app: &mut App, _, _| {
            app.announce(text);
            Ok(AnnounceReply { reached: u32::try_from(app.sessions().len()).unwrap_or(u32::MAX) })
        };
        self.run_as_leader("announce", announce).await.map(Response::new)
    }

    async fn change_layout(
        &self,
        request: Request<ChangeLayoutRequest>,
    ) -> Result<Response<ChangeLayoutReply>, Status> {
        let request = request.into_inner();
        let change = move |app: &mut App, _, term| {
            let command = layout::command(request)?;
            Ok((term, app.change_layout(command)?))
        };
        let (term, done) = self.run_as_leader("change_layout", change).await?;
        self.wait_until_stored(term, done.revision).await?;
        Ok(Response::new(ChangeLayoutReply { revision: done.revision, made: done.made }))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let world = self.node.world().0;
        let status = move |app: &mut App, _, term: Term| {
            let zones = app.zones();
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            Ok(StatusReply {
                world,
                name: app.config().name.clone(),
                term: term.0,
                online: count(app.players().online()),
                queue: count(app.players().waiting()),
                capacity: app.config().capacity,
                partition: zones
                    .partition()
                    .map(|partition| layout::status(term, partition, zones, &app.population(partition))),
            })
        };
        self.run_as_leader("status", status).await.map(Response::new)
    }
}

/// Reads a zone's reports to their end. Tells the world when the stream begins and ends.
async fn read_reports(
    handle: Handle,
    peer: String,
    stream: u64,
    mut reports: Streaming<PresenceReport>,
) -> Result<(), Status> {
    let mut zone = None;
    let result = take_reports(&handle, &peer, stream, &mut reports, &mut zone).await;
    if let Some(zone) = zone {
        handle.tell(move |app, now| app.zone_disconnected(now, &zone, stream)).await;
    }
    result
}

/// `reporter` is the zone of the last report.
async fn take_reports(
    handle: &Handle,
    peer: &str,
    stream: u64,
    reports: &mut Streaming<PresenceReport>,
    reporter: &mut Option<InstanceId>,
) -> Result<(), Status> {
    while let Some(report) = reports.message().await? {
        let zone = convert::zone(report.zone)?;
        if zone.name != peer {
            return Err(Status::permission_denied("a zone reports for itself only"));
        }
        let present = report.present.into_iter().map(|present| convert::avatar(&zone, present));
        let present = present.collect::<Result<Vec<_>, _>>()?;
        let gone: Vec<CharacterId> = report.gone.into_iter().map(CharacterId).collect();
        let first = reporter.replace(zone.clone()).is_none();
        let take = move |app: &mut App, now| {
            if app.leadership().is_standby() {
                return false;
            }
            if first {
                app.zone_connected(&zone, stream);
            }
            app.presence_reported(now, (&zone, SpaceId(report.space)), report.complete, present, &gone);
            true
        };
        if !handle.ask(take).await? {
            return Err(Status::failed_precondition("another instance leads this world now"));
        }
    }
    Ok(())
}

/// The answer to one of several openings.
fn opened(result: Result<Result<Epoch, SessionError>, Malformed>) -> Opened {
    match result.map_err(Status::from).and_then(|result| result.map_err(Status::from)) {
        Ok(epoch) => Opened { session_epoch: epoch.0, ..Opened::default() },
        Err(status) => {
            let (code, detail) = refusal(&status);
            Opened { session_epoch: 0, code, detail }
        }
    }
}

/// Refuses a gateway that names another one.
fn check_gateway_identity<T>(request: &Request<T>, gateway: &str) -> Result<(), Status> {
    let peer = Peer::of(request)?;
    if peer.kind == DaemonKind::Gateway && peer.name == gateway {
        Ok(())
    } else {
        Err(Status::permission_denied("a gateway speaks for itself only"))
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        let text = error.to_string();
        match error {
            SessionError::Unknown => Self::not_found(text),
            SessionError::NotYetPresented => Self::unavailable(text),
            SessionError::Superseded => Self::failed_precondition(text),
            SessionError::Displaced | SessionError::Ended => Self::aborted(text),
            SessionError::WrongKey | SessionError::WrongAccount => Self::permission_denied(text),
        }
    }
}

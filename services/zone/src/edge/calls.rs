//! Calls of other daemons, outside the loop of the zone. Each call is a task that ends with a command to the loop.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shardkeep_cluster::{Backoff, MESSAGE_LIMIT, Node};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::{
    dbcache::{
        GroundItem, LoadGroundReply, LoadGroundRequest, ReleaseRequest, SaveSoftRequest, TransferRequest,
    },
    zone::{MirrorRequest, PeerFrame, TakeSnapshotRequest, zone_client::ZoneClient},
};
use shardkeep_sim::{HardChange, SpawnState};
use shardkeep_types::{CellRect, CharacterId, DaemonKind, Epoch};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    domain::{
        command::{Command, SpawnsAnswer},
        handover::SourceEvent,
        mirror::Snapshot,
        payload::{Destination, Fences, Job, OfferedAvatar, Settlement, SoftState},
    },
    edge::{
        convert,
        database::{Database, DatabaseError},
        message::Message,
        transaction,
    },
    metrics,
};

const OFFER_DEADLINE: Duration = Duration::from_secs(1);
/// Shorter than the time for which the new zone waits for spawns, so that there is time for repeats.
const SNAPSHOT_DEADLINE: Duration = Duration::from_millis(500);
const SNAPSHOT_TRIES: u32 = 8;
const SETTLE_DEADLINE: Duration = Duration::from_secs(1);
/// After these attempts the target asks the database.
const SETTLE_TRIES: u32 = 5;

/// How often a failure to load the ground is logged.
const GROUND_ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// The parts of [`Calls`] that all spaces share.
#[derive(Clone)]
pub(crate) struct SharedCalls {
    node: Node,
    database: Database,
    daemon: Daemon,
    /// Calls use sockets, so they run here and not where spaces tick.
    network: Handle,
    /// How many loads of ground have failed and not succeeded since.
    failing_loads: Arc<AtomicUsize>,
}

/// Starts the tasks of one space.
#[derive(Clone)]
pub(crate) struct Calls {
    shared: SharedCalls,
    messages: mpsc::Sender<Message>,
    /// One snapshot at a time.
    mirroring: Arc<Semaphore>,
}

impl SharedCalls {
    /// Calls will run on the runtime of the caller.
    pub(crate) fn new(node: Node, daemon: Daemon) -> Self {
        let database = Database::new(node.clone(), daemon.stopped());
        Self { node, database, daemon, network: Handle::current(), failing_loads: Arc::default() }
    }

    /// The calls of a space. Their results arrive as messages.
    pub(crate) fn of_space(&self, messages: mpsc::Sender<Message>) -> Calls {
        Calls { shared: self.clone(), messages, mirroring: Arc::new(Semaphore::new(1)) }
    }

    fn zone(&self, grpc_address: &str) -> ZoneClient<Channel> {
        // A channel keeps the runtime in which it was made.
        let _network = self.network.enter();
        let channel = self.node.channel(DaemonKind::Zone, grpc_address);
        ZoneClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Gives a part of a snapshot to the zone that owns its sectors.
    fn give(
        &self,
        to: &Destination,
        snapshot: &Snapshot,
    ) -> impl Future<Output = Result<(), Code>> + Send + use<> {
        let mut client = self.zone(&to.grpc_address);
        let MirrorRequest { from, space, spawns, avatars } =
            convert::snapshot(self.node.id(), to.space, snapshot);
        let mut request = Request::new(TakeSnapshotRequest { from, space, spawns, avatars });
        request.set_timeout(SNAPSHOT_DEADLINE);
        async move {
            match tokio::time::timeout(SNAPSHOT_DEADLINE, client.take_snapshot(request)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(status)) => {
                    not_taken(&status);
                    Err(status.code())
                }
                Err(_) => Err(Code::DeadlineExceeded),
            }
        }
    }

    /// Gives the parts of a dead zone's snapshot to the zones in its place.
    pub(crate) fn give_orphans(&self, orphans: Vec<(Destination, Snapshot)>) {
        for (to, snapshot) in orphans {
            let calls = self.clone();
            let (spawns, avatars) = (snapshot.spawns.len(), snapshot.avatars.len());
            tracing::info!(zone = to.name, space = %to.space, spawns, avatars, "gives the state of a dead zone away");
            self.daemon.spawn_work("snapshot of a dead zone", async move {
                let mut backoff = Backoff::default();
                for _ in 0..SNAPSHOT_TRIES {
                    if calls.give(&to, &snapshot).await.is_ok() {
                        metrics::spawns_given("restored", spawns);
                        return;
                    }
                    backoff.wait().await;
                }
                tracing::warn!(zone = to.name, spawns, "a zone did not take the state of a dead zone");
            });
        }
    }
}

impl Calls {
    /// Whether the last call of the database was answered.
    pub(crate) fn database_answers(&self) -> bool {
        self.shared.database.is_reachable()
    }

    fn spawn(&self, work: impl Future<Output = Option<Command>> + Send + 'static) {
        let messages = self.messages.clone();
        let _network = self.shared.network.enter();
        self.shared.daemon.spawn_work("background call", async move {
            if let Some(command) = work.await {
                // A closed queue means that the loop has ended.
                let _ = messages.send(Message::Command(command)).await;
            }
        });
    }

    /// Commits a hard action. If the fence of the rewarded character fails, it commits the action without the reward.
    pub(crate) fn commit(&self, job: Job, fences: Fences) {
        let (database, world) = (self.shared.database.clone(), self.shared.node.world());
        self.spawn(async move {
            let action = transaction::transaction(world, &job.change, &fences)?;
            let mut result = database.commit(&action).await;
            if matches!(result, Err(DatabaseError::Stale | DatabaseError::Refused))
                && let Some(change) = transaction::without_reward(&job.change)
            {
                result = database.commit(&transaction::transaction(world, &change, &fences)?).await;
            }
            let label = match &result {
                Ok(result) if result.applied => "applied",
                Ok(_) => "repeated",
                Err(error) => error.label(),
            };
            let stale = result == Err(DatabaseError::Stale);
            Some(finished(job, label, stale, transaction::outcome(result)))
        });
    }

    /// Asks for the stored result of an earlier action.
    pub(crate) fn recall(&self, job: Job) {
        let database = self.shared.database.clone();
        self.spawn(async move {
            let HardChange::Recall { player, action } = job.change else { return None };
            let result = database.lookup_action(&transaction::action_id(player, action)).await;
            let stale = result.as_ref().is_err_and(|error| *error == DatabaseError::Stale);
            let label = result.as_ref().map_or_else(|error| error.label(), |_| "repeated");
            Some(finished(job, label, stale, transaction::recalled(result)))
        });
    }

    /// Loads the ground of these cells, page by page. The daemon is not ready from the first failure on until the ground
    /// is loaded.
    pub(crate) fn load_ground(&self, cells: CellRect) {
        let (database, daemon) = (self.shared.database.clone(), self.shared.daemon.clone());
        let request =
            LoadGroundRequest { world: self.shared.node.world().0, cells: Some(cells.into()), after: None };
        let (messages, loads) = (self.messages.clone(), self.shared.failing_loads.clone());
        self.spawn(async move {
            let ground = tokio::select! {
                ground = read_ground(&database, request, &daemon, &loads) => ground,
                () = messages.closed() => return None,
            };
            let item = |ground: GroundItem| {
                let at = ground.position?.try_into().ok()?;
                Some((convert::item(ground.item?), at))
            };
            let items = ground.items.into_iter().filter_map(item).collect();
            Some(Command::Ground { cells, items, generations: ground.generations.into_iter().collect() })
        });
    }

    pub(crate) fn save(&self, states: &[SoftState]) {
        let database = self.shared.database.clone();
        let names: Vec<_> = states.iter().map(|state| (state.character, state.epoch)).collect();
        let request = SaveSoftRequest { states: states.iter().map(convert::soft_state).collect() };
        self.spawn(async move {
            let stale = database.save(request).await.ok();
            let stale = stale.map(|stale| stale.into_iter().map(CharacterId).collect::<Vec<_>>());
            if let Some(stale) = &stale {
                metrics::saved(names.len().saturating_sub(stale.len()));
            }
            Some(Command::Saved { states: names, stale })
        });
    }

    pub(crate) fn release(&self, state: SoftState) {
        let database = self.shared.database.clone();
        let SoftState { character, epoch, .. } = state;
        let soft = Some(convert::soft_state(&state));
        self.spawn(async move {
            let request = ReleaseRequest { character: character.0, epoch: epoch.0, soft };
            let released = database.release(&request).await;
            metrics::released(released.map_or_else(DatabaseError::label, |()| "released"));
            Some(Command::Released { character, epoch })
        });
    }

    pub(crate) fn load(&self, character: CharacterId) {
        let database = self.shared.database.clone();
        self.spawn(async move {
            let row =
                database.load(character).await.ok().and_then(|row| match convert::stored_avatar(&row) {
                    Ok(stored) => Some(Box::new(stored)),
                    Err(error) => {
                        tracing::error!(%character, %error, "dbcache sent a malformed character");
                        None
                    }
                });
            Some(Command::Loaded { character, row })
        });
    }

    pub(crate) fn offer(&self, to: &Destination, offered: &OfferedAvatar) {
        let mut client = self.shared.zone(&to.grpc_address);
        let entering = &offered.admission.entering;
        let (character, epoch) = (entering.character, entering.epoch);
        let offer = convert::offer(self.shared.node.id(), self.shared.node.world(), offered);
        self.spawn(async move {
            let mut request = Request::new(offer);
            request.set_timeout(OFFER_DEADLINE);
            let event = match tokio::time::timeout(OFFER_DEADLINE, client.offer(request)).await {
                Ok(Ok(reply)) if reply.get_ref().accepted => SourceEvent::Accepted,
                Ok(Ok(reply)) => {
                    let reason = &reply.get_ref().reason;
                    tracing::info!(%character, reason, "the neighbour does not take the avatar");
                    SourceEvent::Refused
                }
                Ok(Err(status)) => {
                    let (code, reason) = (status.code(), status.message());
                    tracing::warn!(%character, ?code, reason, "the neighbour did not answer an offer");
                    SourceEvent::Refused
                }
                Err(_) => SourceEvent::Refused,
            };
            Some(Command::Handover { character, epoch, event })
        });
    }

    pub(crate) fn transfer(&self, to: &Destination, state: SoftState) {
        let database = self.shared.database.clone();
        let (me, SoftState { character, epoch, .. }) = (self.shared.node.id(), state);
        let transfer = TransferRequest {
            character: character.0,
            epoch: epoch.0,
            from_zone: me.name.clone(),
            from_incarnation: me.incarnation,
            to_zone: to.name.clone(),
            to_incarnation: to.incarnation,
            soft: Some(convert::soft_state(&state)),
        };
        self.spawn(async move {
            let event = match database.transfer(&transfer).await {
                Ok(epoch) => SourceEvent::Committed(Epoch(epoch)),
                // The daemon stops. The next owner loads the character from the database.
                Err(DatabaseError::Unknown) => return None,
                Err(_) => SourceEvent::Lost,
            };
            Some(Command::Handover { character, epoch, event })
        });
    }

    pub(crate) fn settle(&self, to: &Destination, settlement: Settlement) {
        let mut client = self.shared.zone(&to.grpc_address);
        let settle = convert::settlement(to.space, settlement);
        self.spawn(async move {
            let mut backoff = Backoff::default();
            for _ in 0..SETTLE_TRIES {
                let call = client.settle(settle.clone());
                match tokio::time::timeout(SETTLE_DEADLINE, call).await {
                    Ok(Ok(_)) => return None,
                    Ok(Err(status)) => tracing::debug!(%status, "a settlement did not arrive"),
                    Err(_) => {}
                }
                backoff.wait().await;
            }
            None
        });
    }

    /// Asks a zone to take these spawns.
    pub(crate) fn give_spawns(&self, to: &Destination, spawns: Vec<SpawnState>) {
        let numbers: Vec<u32> = spawns.iter().map(|spawn| spawn.number).collect();
        let snapshot = Snapshot { spawns, avatars: Vec::new() };
        let given = self.shared.give(to, &snapshot);
        self.spawn(async move {
            let (answer, outcome) = match given.await {
                Ok(()) => (SpawnsAnswer::Taken, "taken"),
                Err(Code::FailedPrecondition) => (SpawnsAnswer::Refused, "refused"),
                Err(_) => (SpawnsAnswer::Unknown, "unknown"),
            };
            metrics::spawns_given(outcome, numbers.len());
            Some(Command::SpawnsGiven { numbers, answer })
        });
    }

    /// Sends a snapshot to the buddy, unless the last one is still under way. The next snapshot replaces a lost one.
    pub(crate) fn mirror(&self, to: &Destination, snapshot: &Snapshot) {
        let Ok(permit) = self.mirroring.clone().try_acquire_owned() else {
            metrics::mirrored("skipped");
            return;
        };
        let mut client = self.shared.zone(&to.grpc_address);
        let request = convert::snapshot(self.shared.node.id(), to.space, snapshot);
        self.spawn(async move {
            let sent = tokio::time::timeout(SNAPSHOT_DEADLINE, client.mirror(request)).await;
            if let Ok(Err(status)) = &sent {
                not_taken(status);
            }
            metrics::mirrored(if matches!(sent, Ok(Ok(_))) { "sent" } else { "failed" });
            drop(permit);
            None
        });
    }

    /// Sends frames to a neighbour until the queue is closed. Frames for an unreachable neighbour are dropped and counted:
    /// ghosts and effects are repeated.
    pub(crate) fn stream_to_neighbour(&self, grpc_address: &str, mut frames: mpsc::Receiver<PeerFrame>) {
        let client = self.shared.zone(grpc_address);
        let stopped = self.shared.daemon.stopped();
        let _network = self.shared.network.enter();
        self.shared.daemon.spawn_work("stream to a neighbour", async move {
            let mut backoff = Backoff::default();
            while let Some(first) = frames.recv().await {
                let streaming = stream_frames(client.clone(), first, &mut frames);
                tokio::select! {
                    ended = streaming => match ended {
                        Ok(()) => return,
                        Err(status) => tracing::debug!(%status, "the stream to a neighbour ended"),
                    },
                    () = stopped.cancelled() => return,
                }
                backoff.wait().await;
                while frames.try_recv().is_ok() {
                    metrics::dropped("neighbour");
                }
            }
        });
    }
}

/// Zones come and go, and learn of the partition at different times. Anything else is a fault.
fn not_taken(status: &Status) {
    if matches!(status.code(), Code::Unavailable | Code::FailedPrecondition | Code::DeadlineExceeded) {
        tracing::debug!(%status, "a zone did not take a snapshot");
    } else {
        tracing::error!(%status, "a zone did not take a snapshot");
    }
}

fn finished(job: Job, label: &'static str, stale: bool, outcome: shardkeep_sim::Outcome) -> Command {
    metrics::committed(job.change.reason(), label, job.since.elapsed());
    Command::Committed { number: job.number, change: job.change, outcome, stale }
}

/// All pages of a part of the ground, however many attempts they take.
async fn read_ground(
    database: &Database,
    mut request: LoadGroundRequest,
    daemon: &Daemon,
    failing_loads: &AtomicUsize,
) -> LoadGroundReply {
    let (mut ground, mut backoff) = (LoadGroundReply::default(), Backoff::default());
    let mut logged_at: Option<Instant> = None;
    loop {
        match database.load_ground(request).await {
            Ok(page) => {
                ground.items.extend(page.items);
                ground.generations.extend(page.generations);
                request.after = page.next;
                if page.next.is_none() {
                    break;
                }
            }
            Err(error) => {
                if logged_at.is_none() {
                    failing_loads.fetch_add(1, Ordering::Relaxed);
                    let reason = format!("the ground is not loaded: {error}");
                    daemon.not_ready_because("ground", Some(reason));
                }
                if logged_at.is_none_or(|at| at.elapsed() >= GROUND_ERROR_INTERVAL) {
                    logged_at = Some(Instant::now());
                    let cells = &request.cells;
                    tracing::error!(%error, ?cells, "the ground cannot be loaded: its cells stay empty until a retry succeeds");
                }
                metrics::ground_load_failed();
                backoff.wait().await;
            }
        }
    }
    if logged_at.is_some() {
        tracing::info!(cells = ?request.cells, items = ground.items.len(), "the ground is loaded after a failure");
        if failing_loads.fetch_sub(1, Ordering::Relaxed) == 1 {
            daemon.not_ready_because("ground", None);
        }
    }
    ground
}

/// Runs one stream to a neighbour. Returns `Ok` when the queue is closed.
async fn stream_frames(
    mut client: ZoneClient<Channel>,
    first: PeerFrame,
    frames: &mut mpsc::Receiver<PeerFrame>,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut next = Some(first);
    let open = client.peer(ReceiverStream::new(receiver));
    let mut answers = tokio::time::timeout(OFFER_DEADLINE, open)
        .await
        .map_err(|_| Status::deadline_exceeded("the neighbour did not answer"))??
        .into_inner();
    loop {
        match next.take() {
            Some(frame) => {
                tokio::select! {
                    sent = sender.send(frame) => sent.map_err(|_| Status::unavailable("the stream is closed"))?,
                    ended = answers.message() => {
                        ended?;
                        return Err(Status::unavailable("the neighbour closed the stream"));
                    }
                }
            }
            None => return Ok(()),
        }
        next = frames.recv().await;
    }
}

//! Calls to other daemons, outside the tick. Each call is a task that ends with a command to the tick loop.

use std::{
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
        ActionId, GroundItem, HardAction, LoadGroundReply, LoadGroundRequest, ReleaseRequest,
        SaveSoftRequest, SoftState, TransferRequest,
    },
    zone::{OfferRequest, PeerFrame, SettleRequest, zone_client::ZoneClient},
};
use shardkeep_types::{CellRect, CharacterId, DaemonKind, Epoch};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, transport::Channel};

use crate::{
    command::Command,
    convert,
    database::{Database, DatabaseError},
    handover::SourceEvent,
    hard_actions, metrics,
    players::Destination,
};

const OFFER_DEADLINE: Duration = Duration::from_secs(1);
const SETTLE_DEADLINE: Duration = Duration::from_secs(1);
/// After these attempts the target asks the database.
const SETTLE_TRIES: u32 = 5;

/// How often a failure to load the ground is logged.
const GROUND_ERROR_INTERVAL: Duration = Duration::from_secs(60);

/// Starts tasks. Clones share everything.
#[derive(Clone)]
pub(crate) struct BackgroundCalls {
    pub(crate) node: Node,
    pub(crate) database: Database,
    daemon: Daemon,
    commands: mpsc::Sender<Command>,
    /// How many loads of ground have failed and not succeeded since.
    failing_loads: Arc<AtomicUsize>,
}

impl BackgroundCalls {
    pub(crate) fn new(node: Node, daemon: Daemon, commands: mpsc::Sender<Command>) -> Self {
        let database = Database::new(node.clone(), daemon.stopped());
        Self { node, database, daemon, commands, failing_loads: Arc::default() }
    }

    fn spawn(&self, work: impl Future<Output = Option<Command>> + Send + 'static) {
        let commands = self.commands.clone();
        self.daemon.spawn_work("background call", async move {
            if let Some(command) = work.await {
                // A closed queue means that the tick loop has ended.
                let _ = commands.send(command).await;
            }
        });
    }

    fn zone(&self, grpc_address: &str) -> ZoneClient<Channel> {
        let channel = self.node.channel(DaemonKind::Zone, grpc_address);
        ZoneClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Commits a hard action. If the fence of the rewarded character fails, it commits `without_reward` instead.
    pub(crate) fn commit(
        &self,
        job: hard_actions::Job,
        action: HardAction,
        without_reward: Option<HardAction>,
    ) {
        let database = self.database.clone();
        self.spawn(async move {
            let mut result = database.commit(&action).await;
            if let (Err(DatabaseError::Stale | DatabaseError::Refused), Some(fallback)) =
                (&result, without_reward)
            {
                result = database.commit(&fallback).await;
            }
            let stale = result == Err(DatabaseError::Stale);
            let label = match &result {
                Ok(result) if result.applied => "applied",
                Ok(_) => "repeated",
                Err(error) => error.label(),
            };
            metrics::committed(job.change.reason(), label, job.since.elapsed());
            let outcome = hard_actions::outcome(result);
            Some(Command::Committed { number: job.number, change: job.change, outcome, stale })
        });
    }

    /// Asks for the stored result of an earlier action.
    pub(crate) fn lookup_action(&self, job: hard_actions::Job, action: ActionId) {
        let database = self.database.clone();
        self.spawn(async move {
            let result = database.lookup_action(&action).await;
            let stale = result.as_ref().is_err_and(|error| *error == DatabaseError::Stale);
            let label = result.as_ref().map_or_else(|error| error.label(), |_| "repeated");
            metrics::committed(job.change.reason(), label, job.since.elapsed());
            let outcome = hard_actions::recalled(result);
            Some(Command::Committed { number: job.number, change: job.change, outcome, stale })
        });
    }

    /// Loads the ground of these cells, page by page. The daemon is not ready from the first failure on until the ground
    /// is loaded.
    pub(crate) fn load_ground(&self, cells: CellRect) {
        let (database, daemon) = (self.database.clone(), self.daemon.clone());
        let request =
            LoadGroundRequest { world: self.node.world().0, cells: Some(cells.into()), after: None };
        let (commands, loads) = (self.commands.clone(), self.failing_loads.clone());
        self.spawn(async move {
            let ground = tokio::select! {
                ground = read_ground(&database, request, &daemon, &loads) => ground,
                () = commands.closed() => return None,
            };
            let item = |ground: GroundItem| {
                let at = ground.position?.try_into().ok()?;
                Some((convert::item(ground.item?), at))
            };
            let items = ground.items.into_iter().filter_map(item).collect();
            Some(Command::Ground { cells, items, generations: ground.generations.into_iter().collect() })
        });
    }

    pub(crate) fn save(&self, request: SaveSoftRequest) {
        let database = self.database.clone();
        self.spawn(async move {
            let name = |state: &SoftState| (state.character.into(), Epoch(state.epoch));
            let states: Vec<(CharacterId, Epoch)> = request.states.iter().map(name).collect();
            let stale = database.save(request).await.ok();
            if let Some(stale) = &stale {
                metrics::saved(states.len().saturating_sub(stale.len()));
            }
            Some(Command::Saved { states, stale })
        });
    }

    pub(crate) fn release(&self, request: ReleaseRequest) {
        let database = self.database.clone();
        self.spawn(async move {
            let released = database.release(&request).await;
            let outcome = released.map_or_else(DatabaseError::label, |()| "released");
            metrics::released(outcome);
            Some(Command::Released { character: request.character.into(), epoch: Epoch(request.epoch) })
        });
    }

    pub(crate) fn load(&self, character: CharacterId) {
        let database = self.database.clone();
        self.spawn(async move {
            let row = database.load(character).await.ok().map(Box::new);
            Some(Command::Loaded { character, row })
        });
    }

    pub(crate) fn offer(&self, to: &Destination, offer: OfferRequest) {
        let mut client = self.zone(&to.grpc_address);
        let character = offer.character.as_ref().map_or(0, |character| character.id);
        let epoch = Epoch(offer.epoch);
        self.spawn(async move {
            let mut request = Request::new(offer);
            request.set_timeout(OFFER_DEADLINE);
            let event = match tokio::time::timeout(OFFER_DEADLINE, client.offer(request)).await {
                Ok(Ok(reply)) if reply.get_ref().accepted => SourceEvent::Accepted,
                Ok(Ok(reply)) => {
                    tracing::info!(
                        character,
                        reason = reply.get_ref().reason,
                        "the neighbour does not take the avatar"
                    );
                    SourceEvent::Refused
                }
                Ok(Err(status)) => {
                    let (code, reason) = (status.code(), status.message());
                    tracing::warn!(character, ?code, reason, "the neighbour did not answer an offer");
                    SourceEvent::Refused
                }
                Err(_) => SourceEvent::Refused,
            };
            Some(Command::Handover { character: character.into(), epoch, event })
        });
    }

    pub(crate) fn transfer(&self, transfer: TransferRequest) {
        let database = self.database.clone();
        self.spawn(async move {
            let event = match database.transfer(&transfer).await {
                Ok(epoch) => SourceEvent::Committed(Epoch(epoch)),
                // The daemon stops. The next owner loads the character from the database.
                Err(DatabaseError::Unknown) => return None,
                Err(_) => SourceEvent::Lost,
            };
            let (character, epoch) = (transfer.character.into(), Epoch(transfer.epoch));
            Some(Command::Handover { character, epoch, event })
        });
    }

    pub(crate) fn settle(&self, to: &Destination, settle: SettleRequest) {
        let mut client = self.zone(&to.grpc_address);
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

    /// Sends frames to a neighbour until the queue is closed. Frames for an unreachable neighbour are dropped and counted:
    /// ghosts and effects are repeated.
    pub(crate) fn stream_to_neighbour(&self, grpc_address: &str, mut frames: mpsc::Receiver<PeerFrame>) {
        let client = self.zone(grpc_address);
        let stopped = self.daemon.stopped();
        self.daemon.spawn_work("stream to a neighbour", async move {
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

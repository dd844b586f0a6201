//! Tells gateways whose sessions are over. Every replica watches the store for generations that rose, whoever raised
//! them, and every gateway follows one replica; one that was out of reach says what it holds when it is back, and is
//! told what of that has ended meanwhile. By the same way gateways learn which worlds are closed.

mod window;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::Stream;
use parking_lot::Mutex;
use shardkeep_cluster::Peer;
use shardkeep_daemon::contained;
use shardkeep_rpc::accounts::{
    HeldSessions, Revocation as ProtoRevocation, RevocationList,
    revocations_server::{Revocations as Service, RevocationsServer},
};
use shardkeep_store::{
    Database,
    accounts::{
        AccountGeneration, RevocationCause,
        logins::Process,
        revocations::{self, Revocation, RevocationPage},
    },
};
use shardkeep_types::{AccountId, Generation};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::{
    context::LoginContext,
    generation_watchers::GenerationWatchers,
    maintenance::{Closed, Closures},
    metrics,
    outage::Outage,
};

use window::{OVERLAP_MS, PollResult, UncertainLogins, Window};

/// How often the store is looked at for what other replicas have raised.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Revocations read at a time.
const PAGE: u32 = 10_000;
/// What follows one piece of news within so long is told with it: every login is one, and in a storm a message for each
/// to each gateway would cost more than the logins' other calls.
const BATCH_WINDOW: Duration = Duration::from_millis(50);
/// A follower is told so often that there is nothing to tell.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Lists that wait for the slowest follower. Overflow: it is cut and counted, connects again and says what it holds.
const BACKLOG: usize = 256;
/// Lists on the way to one follower. Overflow: its task waits, and the backlog grows.
const FOLLOWER_QUEUE: usize = 16;
/// Sessions looked up in one statement.
const CHUNK: usize = 5_000;

type List = Arc<Vec<Revocation>>;

pub(crate) struct Revocations {
    followers: broadcast::Sender<List>,
    /// Connections to this replica hear of it too.
    pub(crate) generation_watchers: Arc<GenerationWatchers>,
    /// What was told lately, so that looking back repeats nothing.
    told: Mutex<RecentRevocations>,
    /// Looks leave out the logins of this one, which are told when they happen.
    process: Process,
    /// Where it is not known whether they were.
    uncertain_logins: Mutex<UncertainLogins>,
}

/// Logins under way: unless this is resolved, looks at the store find out who was let in.
pub(crate) struct LoginGuard<'a> {
    revocations: &'a Revocations,
    since: Instant,
}

impl LoginGuard<'_> {
    /// Who was let in is known, and told.
    pub(crate) fn resolved(self) {
        std::mem::forget(self);
    }
}

impl Drop for LoginGuard<'_> {
    fn drop(&mut self) {
        self.revocations.uncertain_logins.lock().add(self.since, Instant::now());
    }
}

#[derive(Default)]
struct RecentRevocations {
    below: HashMap<AccountId, (Generation, Instant)>,
    last_sweep: Option<Instant>,
}

impl RecentRevocations {
    /// Notes what is new in `found`, and leaves only that in it.
    fn note(&mut self, found: &mut Vec<Revocation>, now: Instant) {
        let kept = Duration::from_millis(2 * OVERLAP_MS);
        // All are looked at for one login in many.
        if self.last_sweep.is_none_or(|at| now.saturating_duration_since(at) >= kept) {
            self.below.retain(|_, (_, at)| now.saturating_duration_since(*at) < kept);
            self.last_sweep = Some(now);
        }
        found.retain(|new| match self.below.get_mut(&new.account) {
            // Kept for as long as it is found: the last ones before a quiet time are found by every look.
            Some((below, at)) if *below >= new.below => {
                *at = now;
                false
            }
            _ => {
                self.below.insert(new.account, (new.below, now));
                true
            }
        });
    }
}

impl Revocations {
    pub(crate) fn new(process: Process) -> Self {
        Self {
            followers: broadcast::Sender::new(BACKLOG),
            generation_watchers: Arc::default(),
            told: Mutex::default(),
            process,
            uncertain_logins: Mutex::default(),
        }
    }

    /// To be made before the logins are.
    pub(crate) fn login_guard(&self) -> LoginGuard<'_> {
        LoginGuard { revocations: self, since: Instant::now() }
    }

    /// Whose logins a look need not find; the window is made to begin early enough.
    fn excluded_process(&self, window: &mut Window, now: Instant) -> Process {
        let (has_uncertain, rescan_from) = self.uncertain_logins.lock().take(now);
        if let Some(rescan_from) = rescan_from {
            window.rewind(rescan_from);
        }
        if has_uncertain || window.is_full_scan() { Process::NONE } else { self.process }
    }

    /// This replica has raised generations: its followers need not wait for the next look. They are told with what else
    /// happens soon, and no gateway is called for it. Meanwhile worlds refuse the old generations.
    pub(crate) fn notify_followers(
        &self,
        raised: impl IntoIterator<Item = AccountGeneration>,
        cause: &RevocationCause,
    ) {
        let revocation = |AccountGeneration { id, generation }| Revocation {
            account: id,
            below: generation,
            cause: cause.clone(),
            at_ms: 0,
        };
        self.publish(raised.into_iter().map(revocation).collect(), Instant::now());
    }

    fn publish(&self, mut found: Vec<Revocation>, now: Instant) {
        self.told.lock().note(&mut found, now);
        if !found.is_empty() {
            metrics::revocations(found.len());
            self.generation_watchers.raise(&found);
            // Nobody may follow at the moment: who comes says what it holds.
            let _ = self.followers.send(Arc::new(found));
        }
    }
}

/// Looks at the store until told to stop. While the store is away nothing is lost: it goes on where it was.
pub(crate) async fn watch(
    database: Database,
    revocations: Arc<Revocations>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut window = None;
    let mut outage = Outage::default();
    while stop.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
        match poll(&database, &revocations, &mut window).await {
            Ok(()) => outage.recovered(),
            Err(error) => {
                outage.note(&error, "revocations can not be read; they follow when the store is back");
            }
        }
    }
    Ok(())
}

async fn poll(
    database: &Database,
    revocations: &Revocations,
    window: &mut Option<Window>,
) -> Result<(), shardkeep_store::Error> {
    let asked = Instant::now();
    let Some(window) = window else {
        let now_ms = revocations::now(database).await?;
        *window = Some(Window::new(asked, Instant::now(), now_ms));
        return Ok(());
    };
    let excluded_process = revocations.excluded_process(window, asked);
    let RevocationPage { now_ms, found } =
        revocations::since(database, window.begin_ms(), excluded_process, PAGE).await?;
    let answered = Instant::now();
    let full_at_ms = found.last().filter(|_| found.len() == PAGE as usize).map(|newest| newest.at_ms);
    if let Some(back) = window.record_poll(&PollResult { asked, answered, now_ms, full_at_ms }) {
        warn!(seconds = back.as_secs_f64(), "the clock of the account store's database went back");
    }
    revocations.publish(found, answered);
    Ok(())
}

pub(crate) struct RevocationsService {
    context: Arc<LoginContext>,
    closed: watch::Receiver<Closed>,
    draining: CancellationToken,
}

impl RevocationsService {
    pub(crate) fn server(
        context: Arc<LoginContext>,
        closed: watch::Receiver<Closed>,
        draining: CancellationToken,
    ) -> RevocationsServer<Self> {
        RevocationsServer::new(Self { context, closed, draining })
            .max_decoding_message_size(shardkeep_cluster::MESSAGE_LIMIT)
    }
}

#[tonic::async_trait]
impl Service for RevocationsService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<RevocationList, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<HeldSessions>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let gateway = Peer::of(&request)?.name;
        let (out, lists) = mpsc::channel(FOLLOWER_QUEUE);
        let follower = Follower {
            database: self.context.database.clone(),
            // Before what it holds is looked up, so that nothing falls between.
            updates: self.context.revocations.followers.subscribe(),
            closed: self.closed.clone(),
            holding: request.into_inner(),
            out,
        };
        let draining = self.draining.clone();
        let serving = async move {
            metrics::followers(1.0);
            let ended = draining.run_until_cancelled(follower.serve()).await;
            metrics::followers(-1.0);
            debug!(
                gateway,
                ended = ended.unwrap_or("this replica is leaving"),
                "no longer follows revocations"
            );
        };
        // A follower reads shared state only.
        tokio::spawn(contained("follower of revocations", serving));
        Ok(Response::new(Box::pin(ReceiverStream::new(lists))))
    }
}

struct Follower {
    database: Database,
    updates: broadcast::Receiver<List>,
    closed: watch::Receiver<Closed>,
    holding: Streaming<HeldSessions>,
    out: mpsc::Sender<Result<RevocationList, Status>>,
}

impl Follower {
    /// Until one side has had enough; says why.
    async fn serve(mut self) -> &'static str {
        // A newcomer is told the closed worlds, whenever they are known.
        self.closed.mark_changed();
        loop {
            let found = tokio::select! {
                Ok(()) = self.closed.changed() => match &*self.closed.borrow_and_update() {
                    Some(closed) => Ok(closures(closed)),
                    None => continue,
                },
                held = self.holding.message() => match held {
                    Ok(Some(held)) => outdated(&self.database, &held).await.map(list),
                    Ok(None) | Err(_) => return "the gateway left",
                },
                updates = self.updates.recv() => match updates {
                    Ok(found) => self.batch_updates(found.to_vec()).await.map(list),
                    Err(broadcast::error::RecvError::Lagged(_)) => Err(too_slow()),
                    Err(broadcast::error::RecvError::Closed) => return "login ends",
                },
                () = tokio::time::sleep(HEARTBEAT) => Ok(RevocationList::default()),
            };
            let last = found.is_err();
            if self.out.send(found).await.is_err() {
                return "the gateway is gone";
            }
            if last {
                return "it has to begin anew";
            }
        }
    }
}

impl Follower {
    /// With what follows soon.
    async fn batch_updates(&mut self, mut found: Vec<Revocation>) -> Result<Vec<Revocation>, Status> {
        tokio::time::sleep(BATCH_WINDOW).await;
        loop {
            match self.updates.try_recv() {
                Ok(list) => found.extend_from_slice(&list),
                Err(broadcast::error::TryRecvError::Lagged(_)) => return Err(too_slow()),
                // That login ends is seen with the next look.
                Err(_) => return Ok(found),
            }
        }
    }
}

fn too_slow() -> Status {
    metrics::follower_cut();
    Status::data_loss("too slow; say again what you hold")
}

/// What of it has passed.
async fn outdated(database: &Database, holding: &HeldSessions) -> Result<Vec<Revocation>, Status> {
    let held: Vec<_> =
        holding.held.iter().map(|held| (AccountId(held.account), Generation(held.generation))).collect();
    let mut outdated = Vec::new();
    for chunk in held.chunks(CHUNK) {
        let found = revocations::outdated(database, chunk).await;
        outdated.extend(found.map_err(|error| {
            debug!(%error, "what a gateway holds can not be looked up");
            Status::unavailable("the account store is away")
        })?);
    }
    Ok(outdated)
}

fn list(found: Vec<Revocation>) -> RevocationList {
    let told = |it: Revocation| ProtoRevocation {
        account: it.account.0,
        below_generation: it.below.0,
        code: it.cause.code,
        detail: it.cause.detail,
    };
    RevocationList { revocations: found.into_iter().map(told).collect(), closures: None }
}

fn closures(closed: &Closures) -> RevocationList {
    RevocationList { revocations: Vec::new(), closures: Some(closed.told(Instant::now())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_unknown_outcome_are_polled_for() {
        let ours = Process::new([1; 8]);
        let (revocations, now) = (Revocations::new(ours), Instant::now());
        let mut window = Window::new(now, now, 1_000_000);
        revocations.login_guard().resolved();
        assert_eq!(revocations.excluded_process(&mut window, now), ours);
        drop(revocations.login_guard());
        assert_eq!(revocations.excluded_process(&mut window, now), Process::NONE);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(revocations.excluded_process(&mut window, later), Process::NONE, "once more");
        window.record_poll(&PollResult {
            asked: later,
            answered: later,
            now_ms: 4_600_000,
            full_at_ms: None,
        });
        assert_eq!(revocations.excluded_process(&mut window, later), ours, "and not for ever");
    }

    #[test]
    fn revocation_is_published_once_per_generation() {
        let (revocations, now) = (Revocations::new(Process::new([1; 8])), Instant::now());
        let mut follower = revocations.followers.subscribe();
        let of = |account, below| Revocation {
            account: AccountId(account),
            below: Generation(below),
            cause: RevocationCause { code: 9, detail: String::new() },
            at_ms: 0,
        };
        revocations.publish(vec![of(1, 2), of(2, 5)], now);
        revocations.publish(vec![of(1, 2), of(2, 6), of(1, 1)], now);
        revocations.publish(vec![of(2, 6)], now);
        assert_eq!(*follower.try_recv().unwrap(), [of(1, 2), of(2, 5)]);
        assert_eq!(*follower.try_recv().unwrap(), [of(2, 6)]);
        assert!(follower.try_recv().is_err());
        for second in 1..20 {
            revocations.publish(vec![of(2, 6)], now + Duration::from_secs(second));
        }
        assert!(follower.try_recv().is_err(), "what every look finds is told once");
        revocations.publish(vec![of(1, 2)], now + Duration::from_secs(60));
        assert_eq!(revocations.told.lock().below.len(), 1, "what is old is forgotten");
    }
}

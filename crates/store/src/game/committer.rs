//! Group commit: many callers, few transactions. While a batch is being committed the next one gathers; nobody
//! waits on a timer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{Game, GameError, HardAction, HardResult};
use crate::Error;

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub struct CommitterConfig {
    /// Actions in one transaction, at most.
    pub batch: usize,
    /// Transactions at a time. SQLite has one writer: more lanes only make smaller batches there.
    pub lanes: usize,
    /// Actions that may wait. One more is refused at once as [`Busy`](Error::Busy).
    pub queue: usize,
    /// How long one attempt may take before the database counts as away.
    pub attempt: Duration,
}

impl Default for CommitterConfig {
    fn default() -> Self {
        Self { batch: 256, lanes: 1, queue: 8192, attempt: Duration::from_secs(5) }
    }
}

/// Takes hard actions from many tasks. Clones share the queue.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<PendingAction>,
}

struct PendingAction {
    action: HardAction,
    deadline: Instant,
    reply: oneshot::Sender<Result<HardResult, GameError>>,
}

/// Called after each attempt with the number of actions in it and how long it took.
pub type Observer = Arc<dyn Fn(usize, Duration) + Send + Sync>;

impl Committer {
    /// The queue, and the lanes that serve it: each is to be run by a task of its own.
    pub fn new(game: &Game, config: CommitterConfig, observe: &Observer) -> (Self, Vec<Lane>) {
        let (queue, pending) = mpsc::channel(config.queue.max(1));
        let pending = Arc::new(Mutex::new(pending));
        let lane = || Lane { game: game.clone(), config, observe: observe.clone(), pending: pending.clone() };
        (Self { queue }, (0..config.lanes.max(1)).map(|_| lane()).collect())
    }

    /// Commits an action. While the database is away it is tried again until `deadline`; then the answer is
    /// [`Error::Unavailable`], and whether it took effect is told by asking again with the same action.
    pub async fn commit(&self, action: HardAction, deadline: Instant) -> Result<HardResult, GameError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(PendingAction { action, deadline, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::timed_out(),
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::timed_out().into()))
    }

    /// Actions that wait for a lane.
    pub fn pending(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Commits one batch after the other.
pub struct Lane {
    game: Game,
    config: CommitterConfig,
    observe: Observer,
    pending: Arc<Mutex<mpsc::Receiver<PendingAction>>>,
}

impl Lane {
    /// Ends when all clones of the committer are gone and the queue is empty.
    pub async fn run(self) {
        loop {
            let mut batch = Vec::new();
            // Held while waiting: the other lanes are committing, or wait for their turn to wait.
            if self.pending.lock().await.recv_many(&mut batch, self.config.batch).await == 0 {
                return;
            }
            self.serve(batch).await;
        }
    }

    /// Until each has its answer.
    async fn serve(&self, mut batch: Vec<PendingAction>) {
        let mut backoff = INITIAL_BACKOFF;
        loop {
            // Who has gone away does not ask any more; asking again with the same id is always safe.
            batch.retain(|pending| !pending.reply.is_closed());
            if batch.is_empty() {
                return;
            }
            match self.attempt(&batch).await {
                Ok(outcomes) => {
                    for (pending, outcome) in batch.into_iter().zip(outcomes) {
                        let _ = pending.reply.send(outcome.map_err(GameError::from));
                    }
                    return;
                }
                Err(error) if error.retryable() => {
                    tracing::warn!(%error, actions = batch.len(), "hard actions wait for the database");
                    batch = fail_expired(batch);
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
                Err(error) => return self.one_by_one(batch, error).await,
            }
        }
    }

    /// One of the batch upsets the database; the others shall not suffer.
    async fn one_by_one(&self, batch: Vec<PendingAction>, error: Error) {
        tracing::error!(%error, actions = batch.len(), "a batch of hard actions fails");
        for pending in batch {
            let outcome = self.attempt(std::slice::from_ref(&pending)).await;
            let outcome = outcome.map(|mut outcomes| outcomes.pop());
            let _ = pending.reply.send(match outcome {
                Ok(Some(outcome)) => outcome.map_err(GameError::from),
                Ok(None) => Err(Error::Corrupt("the batch lost an outcome".to_owned()).into()),
                Err(error) => Err(error.into()),
            });
        }
    }

    async fn attempt(&self, batch: &[PendingAction]) -> Result<super::commit::Outcomes, Error> {
        let actions: Vec<HardAction> = batch.iter().map(|pending| pending.action.clone()).collect();
        let begin = Instant::now();
        let outcome = timeout(self.config.attempt, self.game.commit(&actions)).await;
        (self.observe)(batch.len(), begin.elapsed());
        outcome.unwrap_or_else(|_| Err(Error::timed_out()))
    }
}

/// Answers those whose deadline has passed.
fn fail_expired(batch: Vec<PendingAction>) -> Vec<PendingAction> {
    let now = Instant::now();
    let (expired, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|pending| pending.deadline <= now);
    for pending in expired {
        let _ = pending.reply.send(Err(Error::timed_out().into()));
    }
    rest
}

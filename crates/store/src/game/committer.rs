//! Group commit: many callers share one transaction. Actions that arrive during a commit form the next batch. No
//! action waits for a timer.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    commit::Outcomes,
    refusal::GameError,
    tables::Game,
    types::{HardAction, HardResult},
};
use crate::Error;

const INITIAL_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub struct CommitterConfig {
    /// The most actions in one transaction.
    pub batch: usize,
    /// Concurrent transactions. SQLite has one writer, so more writers only make its batches smaller.
    pub writers: usize,
    /// The bound of the queue. Overflow: the next action is refused at once with [`Busy`](Error::Busy).
    pub queue: usize,
    /// An attempt that takes longer counts as a failure of the database.
    pub attempt: Duration,
}

impl Default for CommitterConfig {
    fn default() -> Self {
        Self { batch: 256, writers: 1, queue: 8192, attempt: Duration::from_secs(5) }
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
    /// The queue and the writers that serve it. The caller runs each writer in a separate task.
    pub fn new(game: &Game, config: CommitterConfig, observe: &Observer) -> (Self, Vec<Writer>) {
        let (queue, pending) = mpsc::channel(config.queue.max(1));
        let pending = Arc::new(Mutex::new(pending));
        let writer =
            || Writer { game: game.clone(), config, observe: observe.clone(), pending: pending.clone() };
        (Self { queue }, (0..config.writers.max(1)).map(|_| writer()).collect())
    }

    /// Commits an action. While the database does not answer, the writer repeats the attempt until `deadline`. Then the
    /// result is [`Error::Unavailable`] and the outcome is unknown: a repeat of the same action tells it.
    pub async fn commit(&self, action: HardAction, deadline: Instant) -> Result<HardResult, GameError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(PendingAction { action, deadline, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::timed_out(),
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::timed_out().into()))
    }

    /// Actions that wait for a writer.
    pub fn pending(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Commits one batch after another.
pub struct Writer {
    game: Game,
    config: CommitterConfig,
    observe: Observer,
    pending: Arc<Mutex<mpsc::Receiver<PendingAction>>>,
}

impl Writer {
    /// Ends when all clones of the committer are dropped and the queue is empty.
    pub async fn run(self) {
        loop {
            let mut batch = Vec::new();
            // One writer holds the lock while it waits for actions. The other writers commit or wait for the lock.
            if self.pending.lock().await.recv_many(&mut batch, self.config.batch).await == 0 {
                return;
            }
            self.serve(batch).await;
        }
    }

    /// Returns when every action has its answer.
    async fn serve(&self, mut batch: Vec<PendingAction>) {
        let mut backoff = INITIAL_BACKOFF;
        loop {
            // Drop the actions of callers that stopped waiting. They may repeat an action at any time.
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
                    tracing::warn!(%error, actions = batch.len(), "the database failed: hard actions wait for a retry");
                    batch = fail_expired(batch);
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
                Err(error) => return self.one_by_one(batch, error).await,
            }
        }
    }

    /// The batch failed. Commits each action alone, so that one bad action cannot fail the others.
    async fn one_by_one(&self, batch: Vec<PendingAction>, error: Error) {
        tracing::error!(%error, actions = batch.len(), "a batch of hard actions failed: each is committed alone");
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

    async fn attempt(&self, batch: &[PendingAction]) -> Result<Outcomes, Error> {
        let actions: Vec<HardAction> = batch.iter().map(|pending| pending.action.clone()).collect();
        let begin = Instant::now();
        let outcome = timeout(self.config.attempt, self.game.commit(&actions)).await;
        (self.observe)(batch.len(), begin.elapsed());
        outcome.unwrap_or_else(|_| Err(Error::timed_out()))
    }
}

/// Answers the actions whose deadline has passed.
fn fail_expired(batch: Vec<PendingAction>) -> Vec<PendingAction> {
    let now = Instant::now();
    let (expired, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(|pending| pending.deadline <= now);
    for pending in expired {
        let _ = pending.reply.send(Err(Error::timed_out().into()));
    }
    rest
}

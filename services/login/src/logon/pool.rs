//! The threads on which exponentiations run, behind a bounded and fair queue. A storm of logins therefore neither starves
//! open connections nor grows the queue without bound.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_auth::{WorkCounter, srp::Group};
use tokio::sync::oneshot;

use crate::{
    config::Config,
    door::queue::{Bounds, Dispatch, JobRequest, OfferResult, Queue, Refusal, StartedJob},
    error::LoginError,
    metrics,
};

#[derive(Clone)]
pub(crate) struct Pool {
    queue: Arc<Mutex<Queue<oneshot::Sender<Verdict>>>>,
    max_wait: Duration,
}

/// One of a login's two jobs, or the job of a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// One power of `g`, from a table.
    Challenge,
    /// Two exponentiations with any base.
    Proof,
    /// Three powers of a new verifier, by repeated squaring.
    PrepareVerifier,
}

impl Job {
    /// Units of work. A 2048-bit exponentiation with a short exponent has four units; the cost grows with the square of
    /// the modulus.
    pub(crate) fn cost(self, group: Group) -> u32 {
        let exponentiation = match group {
            Group::Bits2048 => 4,
            Group::Bits3072 => 9,
            Group::Bits4096 => 16,
        };
        match self {
            Self::Challenge | Self::PrepareVerifier => exponentiation / 2,
            Self::Proof => exponentiation * 2,
        }
    }
}

type Verdict = Result<Running, Refusal>;

impl Pool {
    pub(crate) fn new(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let bounds = Bounds {
            threads: if config.crypto_threads == 0 { cores } else { config.crypto_threads },
            waiting: config.crypto_queue,
            per_account: config.crypto_jobs_per_account,
        };
        Self { queue: Arc::new(Mutex::new(Queue::new(bounds))), max_wait: config.crypto_max_wait }
    }

    /// Runs the job when its turn comes. Dropping the future before that removes the job from the queue.
    ///
    /// # Errors
    /// [`LoginError::PoolBusy`] when the queue refuses the job at once, or drops it for another one.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job_request: JobRequest,
        job: impl FnOnce(&mut WorkCounter) -> T + Send + 'static,
    ) -> Result<T, LoginError> {
        let asked = Instant::now();
        let running = self
            .dispatch(job_request, asked)
            .await
            .inspect_err(|refusal| metrics::pool_refused(refusal.reason))?;
        let waited = asked.elapsed();
        let done = tokio::task::spawn_blocking(move || {
            // The job holds its turn itself, because it continues when its caller stops waiting.
            let mut running = running;
            let (started, mut work) = (Instant::now(), WorkCounter::default());
            let result = job(&mut work);
            let took = started.elapsed();
            running.took = Some(took);
            metrics::worked(work.exponentiations, waited, took);
            result
        });
        done.await.map_err(|_| LoginError::Internal("a job of the pool panicked"))
    }

    async fn dispatch(&self, mut job_request: JobRequest, now: Instant) -> Verdict {
        job_request.until = job_request.until.min(now + self.max_wait);
        let (owner, verdict) = oneshot::channel();
        let (answer, displaced) = self.queue.lock().offer(job_request, owner, now);
        if let Some((owner, refusal)) = displaced {
            // The owner may have stopped waiting.
            let _ = owner.send(Err(refusal));
        }
        match answer {
            OfferResult::Begin(started) => Ok(Running::new(self, started)),
            OfferResult::Refuse(refusal) => Err(refusal),
            OfferResult::Wait(number) => {
                let _queued_job = QueuedJob { pool: self, number };
                // The queue sends a verdict before it drops an owner.
                verdict.await.unwrap_or(Err(Refusal { reason: "closed", wait: self.max_wait }))
            }
        }
    }

    /// 0.0 (idle) to 1.0 (the next job would be refused).
    pub(crate) fn load(&self) -> f64 {
        self.queue.lock().load(self.max_wait)
    }

    /// Jobs that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }
}

/// A waiting job; dropping it removes the job from the queue.
struct QueuedJob<'a> {
    pool: &'a Pool,
    number: u64,
}

impl Drop for QueuedJob<'_> {
    fn drop(&mut self) {
        if self.pool.queue.lock().withdraw(self.number) {
            metrics::pool_refused("gone");
        }
    }
}

/// A turn on a thread. Dropping it starts the next job.
struct Running {
    pool: Pool,
    started: Option<StartedJob>,
    took: Option<Duration>,
}

impl Running {
    fn new(pool: &Pool, started: StartedJob) -> Self {
        Self { pool: pool.clone(), started: Some(started), took: None }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(started) = self.started.take() else { return };
        let turns = self.pool.queue.lock().finish(started, self.took, Instant::now());
        // The lock is free here, because the turn of an owner that stopped waiting ends at once and takes it again.
        for dispatch in turns {
            let _ = match dispatch {
                Dispatch::Begin(owner, started) => owner.send(Ok(Running::new(&self.pool, started))),
                Dispatch::Refuse(owner, refusal) => owner.send(Err(refusal)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use shardkeep_auth::AccountName;

    use super::*;
    use shardkeep_daemon::Prefix;

    fn pool() -> Pool {
        Pool::new(&Config { crypto_threads: 1, crypto_queue: 1, ..Config::default() })
    }

    fn job_request() -> JobRequest {
        JobRequest {
            prefix: Prefix::of([10, 0, 0, 1].into()),
            account: AccountName::normalise("alice").unwrap(),
            trusted: false,
            cost: Job::Proof.cost(Group::Bits2048),
            until: Instant::now() + Duration::from_secs(60),
        }
    }

    /// A job that runs until the sender sends.
    fn occupy(pool: &Pool) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<bool, LoginError>>) {
        let (release, released) = mpsc::channel::<()>();
        let pool = pool.clone();
        (
            release,
            tokio::spawn(async move { pool.run(job_request(), move |_| released.recv().is_ok()).await }),
        )
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn pool_with_full_queue_refuses_at_once() {
        let pool = pool();
        let (release, running) = occupy(&pool);
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(job_request(), |work| work.exponentiations).await }
        });
        until(|| pool.waiting() == 1).await;
        assert_eq!(pool.load(), 1.0);
        assert!(matches!(pool.run(job_request(), |_| ()).await, Err(LoginError::PoolBusy { .. })));
        release.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(waiting.await.unwrap().unwrap(), 0);
        assert_eq!(pool.load(), 0.0);
    }

    #[tokio::test]
    async fn cancelled_job_leaves_the_queue() {
        let pool = pool();
        let (release, running) = occupy(&pool);
        let (ran, did_run) = mpsc::channel();
        let gone = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(job_request(), move |_| ran.send(()).is_ok()).await }
        });
        until(|| pool.waiting() == 1).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        assert_eq!(pool.waiting(), 0);
        release.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(pool.run(job_request(), |_| 7).await.unwrap(), 7);
        assert!(did_run.recv().is_err(), "the job of a dropped future does not run");
    }
}

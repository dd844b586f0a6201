//! The one place where exponentiations run: a few threads, and before them a bounded queue that is fair and knows how
//! long a client waits, so that a storm of logins neither starves the connections already open nor grows without end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shardkeep_auth::{Work, srp::Group};
use tokio::sync::oneshot;

use crate::{
    Config, LoginError, metrics,
    queue::{Answer, Ask, Begun, Bounds, Queue, Refusal, Turn},
};

#[derive(Clone)]
pub(crate) struct Pool {
    queue: Arc<Mutex<Queue<oneshot::Sender<Verdict>>>>,
    patience: Duration,
}

/// One of a login's two jobs, or what a new password costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// One power of `g`, from its table.
    Challenge,
    /// Two powers of any base.
    Proof,
    /// Three powers of a new verifier, by squaring.
    Keep,
}

impl Job {
    /// Units of work: an eighth of an exponentiation of 2048 bits with a short exponent, which grows with the square
    /// of the modulus.
    pub(crate) fn cost(self, group: Group) -> u32 {
        let exponentiation = match group {
            Group::Bits2048 => 4,
            Group::Bits3072 => 9,
            Group::Bits4096 => 16,
        };
        match self {
            Self::Challenge | Self::Keep => exponentiation / 2,
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
        Self { queue: Arc::new(Mutex::new(Queue::new(bounds))), patience: config.crypto_patience }
    }

    /// Runs the job when its turn comes. Who stops waiting gives up the place in the queue.
    ///
    /// # Errors
    /// [`LoginError::Crowded`] when the queue refuses it, at once or because others have more right to its place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        ask: Ask,
        job: impl FnOnce(&mut Work) -> T + Send + 'static,
    ) -> Result<T, LoginError> {
        let asked = Instant::now();
        let running =
            self.turn(ask, asked).await.inspect_err(|refusal| metrics::pool_refused(refusal.why))?;
        let waited = asked.elapsed();
        let done = tokio::task::spawn_blocking(move || {
            // The whole turn is held by the job itself, which goes on when nobody waits for it any more.
            let mut running = running;
            let (begun, mut work) = (Instant::now(), Work::default());
            let result = job(&mut work);
            let took = begun.elapsed();
            running.took = Some(took);
            metrics::worked(work.exponentiations, waited, took);
            result
        });
        done.await.map_err(|_| LoginError::Internal("a job of the pool panicked"))
    }

    async fn turn(&self, mut ask: Ask, now: Instant) -> Verdict {
        ask.until = ask.until.min(now + self.patience);
        let (owner, verdict) = oneshot::channel();
        let (answer, displaced) = self.queue.lock().offer(ask, owner, now);
        if let Some((owner, refusal)) = displaced {
            // Whose owner has just gone needs no answer.
            let _ = owner.send(Err(refusal));
        }
        match answer {
            Answer::Begin(begun) => Ok(Running::new(self, begun)),
            Answer::Refuse(refusal) => Err(refusal),
            Answer::Wait(number) => {
                let _place = Place { pool: self, number };
                // The queue drops an owner only after it has told it.
                verdict.await.unwrap_or(Err(Refusal { why: "closed", wait: self.patience }))
            }
        }
    }

    /// 0.0 idle to 1.0: the next job would be refused.
    pub(crate) fn load(&self) -> f64 {
        self.queue.lock().load(self.patience)
    }

    /// Jobs that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    pool: &'a Pool,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.pool.queue.lock().withdraw(self.number) {
            metrics::pool_refused("gone");
        }
    }
}

/// A turn at a thread; ends when dropped, and then tells the next.
struct Running {
    pool: Pool,
    begun: Option<Begun>,
    took: Option<Duration>,
}

impl Running {
    fn new(pool: &Pool, begun: Begun) -> Self {
        Self { pool: pool.clone(), begun: Some(begun), took: None }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let turns = self.pool.queue.lock().finish(begun, self.took, Instant::now());
        // Outside the lock: a turn whose owner has gone ends here, and takes the lock again.
        for turn in turns {
            let _ = match turn {
                Turn::Begin(owner, begun) => owner.send(Ok(Running::new(&self.pool, begun))),
                Turn::Refuse(owner, refusal) => owner.send(Err(refusal)),
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

    fn ask() -> Ask {
        Ask {
            prefix: Prefix::of([10, 0, 0, 1].into()),
            account: AccountName::normalise("alice").unwrap(),
            trusted: false,
            cost: Job::Proof.cost(Group::Bits2048),
            until: Instant::now() + Duration::from_secs(60),
        }
    }

    /// A job that runs until told.
    fn occupy(pool: &Pool) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<bool, LoginError>>) {
        let (release, released) = mpsc::channel::<()>();
        let pool = pool.clone();
        (release, tokio::spawn(async move { pool.run(ask(), move |_| released.recv().is_ok()).await }))
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = pool();
        let (release, running) = occupy(&pool);
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(ask(), |work| work.exponentiations).await }
        });
        until(|| pool.waiting() == 1).await;
        assert_eq!(pool.load(), 1.0);
        assert!(matches!(pool.run(ask(), |_| ()).await, Err(LoginError::Crowded { .. })));
        release.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(waiting.await.unwrap().unwrap(), 0);
        assert_eq!(pool.load(), 0.0);
    }

    #[tokio::test]
    async fn who_goes_gives_up_the_place() {
        let pool = pool();
        let (release, running) = occupy(&pool);
        let (ran, did_run) = mpsc::channel();
        let gone = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(ask(), move |_| ran.send(()).is_ok()).await }
        });
        until(|| pool.waiting() == 1).await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        assert_eq!(pool.waiting(), 0);
        release.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(pool.run(ask(), |_| 7).await.unwrap(), 7);
        assert!(did_run.recv().is_err(), "nobody waited for it");
    }
}

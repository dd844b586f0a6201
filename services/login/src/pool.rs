//! The one place where exponentiations run: a few threads and a bounded queue before them, so that a storm of logins
//! neither starves the connections already open nor grows without end.

use std::{sync::Arc, time::Instant};

use shardkeep_auth::Work;
use tokio::sync::Semaphore;

use crate::{LoginError, metrics};

#[derive(Clone)]
pub(crate) struct Pool {
    /// Jobs running or waiting. Overflow: the job is refused as [`LoginError::Busy`], which counts as `busy`.
    slots: Arc<Semaphore>,
    /// Jobs running. Fair: first come, first served.
    threads: Arc<Semaphore>,
    size: usize,
}

impl Pool {
    /// 0 threads: one per core.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        let size = (threads + queue).min(Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(size)), threads: Arc::new(Semaphore::new(threads)), size }
    }

    /// Runs the job when its turn comes. Who stops waiting gives up the place in the queue.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Work) -> T + Send + 'static,
    ) -> Result<T, LoginError> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| LoginError::Busy("exponentiations"))?;
        let asked = Instant::now();
        let turn = self.threads.clone().acquire_owned().await;
        let turn = turn.map_err(|_| LoginError::Internal("the pool is closed"))?;
        let waited = asked.elapsed();
        let done = tokio::task::spawn_blocking(move || {
            // Held by the job itself: it goes on when nobody waits for it any more.
            let _held = (slot, turn);
            let (begun, mut work) = (Instant::now(), Work::default());
            let result = job(&mut work);
            metrics::worked(work.exponentiations, waited, begun.elapsed());
            result
        });
        done.await.map_err(|_| LoginError::Internal("a job of the pool panicked"))
    }

    /// 0.0 idle to 1.0: the next job would be refused.
    pub(crate) fn load(&self) -> f64 {
        1.0 - self.slots.available_permits() as f64 / self.size as f64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = Pool::new(1, 1);
        let (release, released) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move |_| released.recv().is_ok()).await }
        });
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|work| work.exponentiations).await }
        });
        while pool.slots.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.load(), 1.0);
        assert!(matches!(pool.run(|_| ()).await, Err(LoginError::Busy(_))));
        release.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(waiting.await.unwrap().unwrap(), 0);
        assert_eq!(pool.load(), 0.0);
    }
}

//! Combines requests to the same target into batch calls. Requests that arrive while a call runs, or soon after a
//! call began, go into the next call: under load, one call per request would cost more than the work itself. A
//! request that arrives when nothing is waiting is sent at once.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::Mutex;
use shardkeep_daemon::contained;
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use crate::metrics::{BATCHED_CALLS, BATCHED_FAILURES, BATCHED_REQUESTS};

/// When more targets than this are remembered, idle ones are removed.
const TARGET_SWEEP_THRESHOLD: usize = 64;

/// Limits of a batch and of the wait for it.
#[derive(Debug, Clone, Copy)]
pub struct BatchPolicy {
    /// Most requests in one call.
    pub max_requests: usize,
    /// Least time between the starts of two calls to one target.
    pub interval: Duration,
    /// Most requests that wait for the next calls to one target. Requests whose callers have stopped waiting do not
    /// count. Overflow: a new request is refused at once and counted.
    pub waiting: usize,
    /// Longest duration of a call, and longest wait of a request until its call begins.
    pub deadline: Duration,
}

/// Failures of the batcher itself, as opposed to errors that the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchCallError {
    #[error("no answer in time")]
    TimedOut,
    #[error("too many questions wait already")]
    QueueFull,
    #[error("the question was left out of the answer")]
    MissingReply,
    #[error("the call broke off")]
    CallAborted,
}

impl BatchCallError {
    fn label(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::QueueFull => "queue_full",
            Self::MissingReply => "missing_reply",
            Self::CallAborted => "call_aborted",
        }
    }
}

impl From<BatchCallError> for Status {
    fn from(error: BatchCallError) -> Self {
        match error {
            BatchCallError::TimedOut => Self::deadline_exceeded(error.to_string()),
            BatchCallError::QueueFull => Self::resource_exhausted(error.to_string()),
            BatchCallError::MissingReply => Self::internal(error.to_string()),
            BatchCallError::CallAborted => Self::unavailable(error.to_string()),
        }
    }
}

/// Result of a batch call: one reply per request, in the same order, or one error for all requests.
pub type BatchFuture<Reply, E> = Pin<Box<dyn Future<Output = Result<Vec<Reply>, E>> + Send>>;

/// Combines requests by `Target`, the peer that answers them. Clones share their queues.
pub struct RequestBatcher<Target, Request, Reply, E>(Arc<Inner<Target, Request, Reply, E>>);

impl<Target, Request, Reply, E> Clone for RequestBatcher<Target, Request, Reply, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<Target, Request, Reply, E> {
    /// Label in metrics.
    name: &'static str,
    policy: BatchPolicy,
    call: Box<dyn Fn(Target, Vec<Request>) -> BatchFuture<Reply, E> + Send + Sync>,
    targets: Mutex<HashMap<Target, TargetQueue<Request, Reply, E>>>,
}

struct TargetQueue<Request, Reply, E> {
    /// Bound and overflow: [`BatchPolicy::waiting`]. Abandoned requests, whose callers stopped waiting, are swept
    /// often enough to stay below about half of the queue.
    queue: Vec<PendingRequest<Request, Reply, E>>,
    /// At this length, abandoned requests are removed.
    sweep_at: usize,
    /// True while a task makes calls for this queue; it ends when the queue is empty.
    active: bool,
    /// Start of the last call.
    call_started_at: Option<Instant>,
}

struct PendingRequest<Request, Reply, E> {
    request: Request,
    reply: oneshot::Sender<Result<Reply, E>>,
}

impl<Target, Request, Reply, E> RequestBatcher<Target, Request, Reply, E>
where
    Target: Clone + Eq + Hash + Send + 'static,
    Request: Send + 'static,
    Reply: Send + 'static,
    E: Clone + From<BatchCallError> + Send + 'static,
{
    /// Makes batch calls by `call`. A call is dropped when its deadline has passed. It goes on when all callers have
    /// stopped waiting.
    pub fn new(
        name: &'static str,
        policy: BatchPolicy,
        call: impl Fn(Target, Vec<Request>) -> BatchFuture<Reply, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { name, policy, call: Box::new(call), targets: Mutex::default() }))
    }

    /// Returns the reply to this request. Once its call has begun, dropping this future does not take the request
    /// back.
    ///
    /// # Errors
    /// The error of the call, or a [`BatchCallError`].
    pub async fn submit(&self, target: &Target, request: Request) -> Result<Reply, E> {
        let (reply, reply_receiver) = oneshot::channel();
        self.enqueue(target, PendingRequest { request, reply })
            .map_err(|error| self.0.count_failure(error))?;
        // Twice the deadline: once for the call that runs now, once for the call with this request.
        match timeout(2 * self.0.policy.deadline, reply_receiver).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(self.0.count_failure(BatchCallError::CallAborted)),
            Err(_) => Err(self.0.count_failure(BatchCallError::TimedOut)),
        }
    }

    fn enqueue(
        &self,
        target: &Target,
        waiting: PendingRequest<Request, Reply, E>,
    ) -> Result<(), BatchCallError> {
        let mut targets = self.0.targets.lock();
        let there = match targets.get_mut(target) {
            Some(there) => there,
            None => {
                self.0.evict_idle_targets(&mut targets);
                let there = TargetQueue {
                    queue: Vec::new(),
                    sweep_at: self.0.policy.max_requests,
                    active: false,
                    call_started_at: None,
                };
                targets.entry(target.clone()).or_insert(there)
            }
        };
        // During a long call, many requests may be added and abandoned.
        if there.queue.len() >= there.sweep_at.min(self.0.policy.waiting) {
            there.queue.retain(|waiting| !waiting.reply.is_closed());
            there.sweep_at = (2 * there.queue.len()).max(self.0.policy.max_requests);
        }
        if there.queue.len() >= self.0.policy.waiting {
            return Err(BatchCallError::QueueFull);
        }
        there.queue.push(waiting);
        if !there.active {
            there.active = true;
            let active = ActiveTarget { inner: self.0.clone(), target: target.clone(), finished: false };
            // Its drop handler answers the waiting requests, also after a panic.
            tokio::spawn(contained("request batch", active.run()));
        }
        Ok(())
    }
}

impl<Target: Eq + Hash, Request, Reply, E: From<BatchCallError>> Inner<Target, Request, Reply, E> {
    fn count_failure(&self, error: BatchCallError) -> E {
        counter!(BATCHED_FAILURES, "batch" => self.name, "reason" => error.label()).increment(1);
        error.into()
    }

    fn evict_idle_targets(&self, targets: &mut HashMap<Target, TargetQueue<Request, Reply, E>>) {
        if targets.len() >= TARGET_SWEEP_THRESHOLD {
            let idle = |it: &TargetQueue<Request, Reply, E>| {
                it.call_started_at.is_none_or(|at| at.elapsed() >= self.policy.interval)
            };
            targets.retain(|_, it| it.active || !idle(it));
        }
    }
}

/// Marks a target as active until it is dropped.
struct ActiveTarget<Target: Eq + Hash, Request, Reply, E> {
    inner: Arc<Inner<Target, Request, Reply, E>>,
    target: Target,
    /// Set when the queue was found empty. After that, another task may be active for the same target.
    finished: bool,
}

impl<Target: Clone + Eq + Hash, Request, Reply, E: Clone + From<BatchCallError>>
    ActiveTarget<Target, Request, Reply, E>
{
    /// Makes calls until the queue is empty.
    async fn run(mut self) {
        while let Some(earliest) = self.next_call_at() {
            if earliest > Instant::now() {
                tokio::time::sleep_until(earliest.into()).await;
            }
            let batch = self.take_batch();
            if batch.is_empty() {
                continue;
            }
            let (requests, replies): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|it| (it.request, it.reply)).unzip();
            counter!(BATCHED_CALLS, "batch" => self.inner.name).increment(1);
            counter!(BATCHED_REQUESTS, "batch" => self.inner.name).increment(requests.len() as u64);
            let call = (self.inner.call)(self.target.clone(), requests);
            let called = timeout(self.inner.policy.deadline, call).await;
            let mut called =
                called.unwrap_or_else(|_| Err(BatchCallError::TimedOut.into())).map(Vec::into_iter);
            for reply in replies {
                let outcome = match &mut called {
                    Ok(given) => {
                        given.next().ok_or_else(|| self.inner.count_failure(BatchCallError::MissingReply))
                    }
                    Err(error) => Err(error.clone()),
                };
                // Fails when the caller has stopped waiting.
                let _ = reply.send(outcome);
            }
        }
    }

    /// Earliest start of the next call. `None` when the queue is empty; the target is inactive then.
    fn next_call_at(&mut self) -> Option<Instant> {
        let mut targets = self.inner.targets.lock();
        let target = targets.get_mut(&self.target)?;
        if target.queue.is_empty() {
            (target.active, self.finished) = (false, true);
            return None;
        }
        Some(
            target
                .call_started_at
                .map_or_else(Instant::now, |call_started_at| call_started_at + self.inner.policy.interval),
        )
    }

    /// Takes the requests of the next call. Abandoned requests are left out.
    fn take_batch(&self) -> Vec<PendingRequest<Request, Reply, E>> {
        let mut targets = self.inner.targets.lock();
        let Some(target) = targets.get_mut(&self.target) else { return Vec::new() };
        target.queue.retain(|waiting| !waiting.reply.is_closed());
        let later = target.queue.split_off(target.queue.len().min(self.inner.policy.max_requests));
        let batch = std::mem::replace(&mut target.queue, later);
        if !batch.is_empty() {
            target.call_started_at = Some(Instant::now());
        }
        batch
    }
}

impl<Target: Eq + Hash, Request, Reply, E> Drop for ActiveTarget<Target, Request, Reply, E> {
    fn drop(&mut self) {
        // A call has panicked. Waiting requests fail now, and the next request starts a new task.
        if !self.finished {
            self.inner.targets.lock().remove(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Longest wait for an event that should follow at once, on a busy machine.
    const TEST_TIMEOUT: Duration = Duration::from_secs(30);
    const POLICY: BatchPolicy = BatchPolicy {
        max_requests: 3,
        interval: Duration::ZERO,
        waiting: 100,
        deadline: Duration::from_secs(60),
    };

    type RecordedCall = (&'static str, Vec<u32>, oneshot::Sender<Result<Vec<u32>, BatchCallError>>);

    /// A batcher of numbers. Each call arrives at the returned receiver, which answers it.
    fn batcher(
        policy: BatchPolicy,
    ) -> (RequestBatcher<&'static str, u32, u32, BatchCallError>, mpsc::UnboundedReceiver<RecordedCall>) {
        let (calls, called) = mpsc::unbounded_channel();
        let batcher = RequestBatcher::new("numbers", policy, move |target, requests| {
            let (reply, reply_receiver) = oneshot::channel();
            calls.send((target, requests, reply)).unwrap();
            Box::pin(async { reply_receiver.await.expect("the test answers") })
        });
        (batcher, called)
    }

    async fn next(called: &mut mpsc::UnboundedReceiver<RecordedCall>) -> RecordedCall {
        timeout(TEST_TIMEOUT, called.recv()).await.expect("a call").unwrap()
    }

    /// Submits a request in a new task.
    fn spawn_request(
        batcher: &RequestBatcher<&'static str, u32, u32, BatchCallError>,
        target: &'static str,
        request: u32,
    ) -> tokio::task::JoinHandle<Result<u32, BatchCallError>> {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.submit(&target, request).await })
    }

    async fn wait_until(condition: impl Fn() -> bool) {
        timeout(TEST_TIMEOUT, async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it happens");
    }

    fn waiting(
        batcher: &RequestBatcher<&'static str, u32, u32, BatchCallError>,
        target: &'static str,
    ) -> usize {
        batcher.0.targets.lock().get(target).map_or(0, |target| target.queue.len())
    }

    /// Submits the requests one after another, so that their order is known.
    async fn enqueue_all(
        batcher: &RequestBatcher<&'static str, u32, u32, BatchCallError>,
        requests: &[u32],
    ) -> Vec<tokio::task::JoinHandle<Result<u32, BatchCallError>>> {
        let mut pending = Vec::new();
        for request in requests {
            let before = waiting(batcher, "here");
            pending.push(spawn_request(batcher, "here", *request));
            wait_until(|| waiting(batcher, "here") > before).await;
        }
        pending
    }

    #[tokio::test]
    async fn requests_during_call_go_in_next_batches_in_order() {
        let (batcher, mut called) = batcher(POLICY);
        let first = spawn_request(&batcher, "here", 1);
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [1], "an idle moment waits for nobody");
        let others = enqueue_all(&batcher, &[2, 3, 4, 5]).await;
        reply.send(Ok(vec![10])).unwrap();
        assert_eq!(first.await.unwrap(), Ok(10));
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [2, 3, 4], "at most so many");
        reply.send(Ok(vec![20, 30, 40])).unwrap();
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [5]);
        reply.send(Ok(vec![50])).unwrap();
        let mut replies = Vec::new();
        for other in others {
            replies.push(other.await.unwrap().unwrap());
        }
        assert_eq!(replies, [20, 30, 40, 50]);
    }

    #[tokio::test]
    async fn targets_are_batched_independently() {
        let (batcher, mut called) = batcher(BatchPolicy { interval: Duration::from_secs(3_600), ..POLICY });
        let (here, there) = (spawn_request(&batcher, "here", 1), spawn_request(&batcher, "there", 2));
        let mut calls = [next(&mut called).await, next(&mut called).await];
        calls.sort_by_key(|(target, ..)| *target);
        let targets: Vec<_> = calls.iter().map(|(target, requests, _)| (*target, requests.clone())).collect();
        assert_eq!(targets, [("here", vec![1]), ("there", vec![2])]);
        for (_, requests, reply) in calls {
            reply.send(Ok(requests)).unwrap();
        }
        assert_eq!((here.await.unwrap(), there.await.unwrap()), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn calls_keep_interval_and_batch_requests_meanwhile() {
        let (batcher, mut called) = batcher(BatchPolicy { interval: Duration::from_millis(300), ..POLICY });
        let call_started_at = Instant::now();
        let first = spawn_request(&batcher, "here", 1);
        next(&mut called).await.2.send(Ok(vec![1])).unwrap();
        first.await.unwrap().unwrap();
        let others = [spawn_request(&batcher, "here", 2), spawn_request(&batcher, "here", 3)];
        let mut asked: Vec<u32> = Vec::new();
        while asked.len() < others.len() {
            let (_, requests, reply) = next(&mut called).await;
            assert!(call_started_at.elapsed() >= Duration::from_millis(300));
            asked.extend(&requests);
            reply.send(Ok(requests)).unwrap();
        }
        asked.sort_unstable();
        assert_eq!(asked, [2, 3]);
        for other in others {
            other.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn call_error_reaches_whole_batch_and_next_call_runs() {
        let (batcher, mut called) = batcher(POLICY);
        let first = spawn_request(&batcher, "here", 1);
        let (.., reply) = next(&mut called).await;
        let others = enqueue_all(&batcher, &[2, 3]).await;
        reply.send(Err(BatchCallError::QueueFull)).unwrap();
        assert_eq!(first.await.unwrap(), Err(BatchCallError::QueueFull));
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [2, 3]);
        reply.send(Ok(vec![20])).unwrap();
        let [second, third] = <[_; 2]>::try_from(others).unwrap();
        assert_eq!(second.await.unwrap(), Ok(20));
        assert_eq!(third.await.unwrap(), Err(BatchCallError::MissingReply));
    }

    #[tokio::test]
    async fn panicking_call_fails_waiters_and_target_recovers() {
        let (batcher, mut called) = batcher(POLICY);
        let first = spawn_request(&batcher, "here", 1);
        let (.., reply) = next(&mut called).await;
        let others = enqueue_all(&batcher, &[2]).await;
        // Without an answer, the call panics.
        drop(reply);
        assert_eq!(first.await.unwrap(), Err(BatchCallError::CallAborted));
        for other in others {
            assert_eq!(other.await.unwrap(), Err(BatchCallError::CallAborted));
        }
        let again = spawn_request(&batcher, "here", 3);
        let (_, requests, reply) = next(&mut called).await;
        reply.send(Ok(requests)).unwrap();
        assert_eq!(again.await.unwrap(), Ok(3));
    }

    #[tokio::test]
    async fn cancelled_request_is_left_out_of_batch() {
        let (batcher, mut called) = batcher(POLICY);
        let first = spawn_request(&batcher, "here", 1);
        let (.., reply) = next(&mut called).await;
        let mut others = enqueue_all(&batcher, &[2, 3]).await;
        let cancelled = others.remove(0);
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        // A caller that stops waiting during the call does not affect other requests.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        reply.send(Ok(vec![1])).unwrap();
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [3]);
        reply.send(Ok(requests)).unwrap();
        assert_eq!(others.remove(0).await.unwrap(), Ok(3));
    }

    #[tokio::test]
    async fn full_queue_refuses_request_at_once() {
        let (batcher, mut called) = batcher(BatchPolicy { waiting: 2, ..POLICY });
        let _first = spawn_request(&batcher, "here", 1);
        let (.., reply) = next(&mut called).await;
        let others = enqueue_all(&batcher, &[2, 3]).await;
        assert_eq!(batcher.submit(&"here", 4).await, Err(BatchCallError::QueueFull));
        reply.send(Ok(vec![1])).unwrap();
        let (_, requests, reply) = next(&mut called).await;
        reply.send(Ok(requests)).unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn cancelled_requests_free_queue_space() {
        let (batcher, mut called) = batcher(BatchPolicy { waiting: 20, ..POLICY });
        let first = spawn_request(&batcher, "here", 1);
        let (.., reply) = next(&mut called).await;
        // Many requests are added and abandoned while the first call runs.
        for request in 0..1_000 {
            let pending = std::pin::pin!(batcher.submit(&"here", request));
            assert!(futures::poll!(pending).is_pending(), "there is room");
            assert!(waiting(&batcher, "here") <= 2 * POLICY.max_requests);
        }
        let remaining = enqueue_all(&batcher, &[7]).await;
        reply.send(Ok(vec![1])).unwrap();
        first.await.unwrap().unwrap();
        let (_, requests, reply) = next(&mut called).await;
        assert_eq!(requests, [7]);
        reply.send(Ok(requests)).unwrap();
        for request_task in remaining {
            assert_eq!(request_task.await.unwrap(), Ok(7));
        }
    }

    #[tokio::test]
    async fn call_past_deadline_times_out() {
        let (batcher, mut called) = batcher(BatchPolicy { deadline: Duration::from_millis(20), ..POLICY });
        let late = spawn_request(&batcher, "here", 1);
        let (.., kept) = next(&mut called).await;
        assert_eq!(late.await.unwrap(), Err(BatchCallError::TimedOut));
        let again = spawn_request(&batcher, "here", 2);
        let (_, requests, reply) = next(&mut called).await;
        // On a very busy machine, this reply is late as well.
        let _ = reply.send(Ok(requests));
        assert!(matches!(again.await.unwrap(), Ok(2) | Err(BatchCallError::TimedOut)));
        drop(kept);
    }

    #[tokio::test]
    async fn idle_targets_are_evicted() {
        let batcher: RequestBatcher<usize, u32, u32, BatchCallError> =
            RequestBatcher::new("numbers", POLICY, |_, requests| Box::pin(async { Ok(requests) }));
        for target in 0..10 * TARGET_SWEEP_THRESHOLD {
            assert_eq!(batcher.submit(&target, 7).await, Ok(7));
        }
        assert!(batcher.0.targets.lock().len() <= TARGET_SWEEP_THRESHOLD + 1);
    }
}

//! The life of one daemon: starting, ready, draining, stopped. All parts of a daemon share one [`Daemon`] handle.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shardkeep_types::DaemonKind;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;
use tracing::{debug, error, info};

use crate::panics;

/// Handle to the running daemon; clones refer to the same daemon.
#[derive(Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    kind: DaemonKind,
    draining: CancellationToken,
    stopped: CancellationToken,
    finished: CancellationToken,
    failed: AtomicBool,
    tasks: TaskTracker,
    infrastructure: TaskTracker,
    ready: watch::Sender<bool>,
    /// Why the daemon is not ready, by the part that says so.
    obstacles: Mutex<BTreeMap<&'static str, String>>,
    /// The long-lived tasks that run, by name.
    long_lived: Mutex<BTreeMap<&'static str, LongLived>>,
    bound: Mutex<BoundAddresses>,
    admin_pages: Mutex<BTreeMap<&'static str, AdminPage>>,
    log_collector: watch::Sender<Option<Channel>>,
}

/// The tasks of one name.
#[derive(Default)]
struct LongLived {
    running: usize,
    /// Makes them panic.
    panic: CancellationToken,
}

/// Renders a page of the admin endpoints as JSON.
type AdminPage = Arc<dyn Fn() -> String + Send + Sync>;

/// The addresses a daemon has bound, as they go into its announce file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundAddresses {
    pub name: String,
    pub kind: String,
    pub pid: u32,
    pub grpc: String,
    pub admin: String,
    /// Address for players; empty for daemons that players do not connect to.
    pub client: String,
}

impl Daemon {
    /// A handle without a running service, for tests and tools. They end it by [`Self::drain`] and [`Self::finished`].
    /// [`crate::main`] and [`crate::launch`] create the handle of a service.
    pub fn new(kind: DaemonKind, name: &str) -> Self {
        let bound = BoundAddresses {
            name: name.into(),
            kind: kind.to_string(),
            pid: std::process::id(),
            ..BoundAddresses::default()
        };
        Self {
            inner: Arc::new(Inner {
                kind,
                draining: CancellationToken::new(),
                stopped: CancellationToken::new(),
                finished: CancellationToken::new(),
                failed: AtomicBool::new(false),
                tasks: TaskTracker::new(),
                infrastructure: TaskTracker::new(),
                ready: watch::Sender::new(false),
                obstacles: Mutex::default(),
                long_lived: Mutex::default(),
                bound: Mutex::new(bound),
                admin_pages: Mutex::default(),
                log_collector: watch::Sender::new(None),
            }),
        }
    }

    pub fn kind(&self) -> DaemonKind {
        self.inner.kind
    }

    /// Cancelled by SIGTERM, Ctrl-C, `Control.Drain` or a failure: stop admitting, finish.
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Cancelled when the grace time is over: tasks drop what is left.
    pub fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    /// Cancelled when the service has returned and its tasks are joined: servers and registrations close now.
    pub fn finished(&self) -> CancellationToken {
        self.inner.finished.clone()
    }

    /// Tasks that the daemon joins before it exits. They must end by themselves after [`Self::draining`].
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Spawns a task that the daemon cannot work without. If it panics or fails, the daemon drains and exits with 1.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (daemon, work) = (self.clone(), self.long_lived(name, future));
        self.inner.tasks.spawn(async move {
            if let Err(why) = outcome(work).await {
                daemon.fail(&format!("task {name} {why}"));
            }
        });
    }

    /// Like [`Self::spawn`], for servers and registrations, which run until [`Self::finished`]. A failure after that is
    /// only logged, because peers close connections too.
    pub fn spawn_infrastructure<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (daemon, work) = (self.clone(), self.long_lived(name, future));
        self.inner.infrastructure.spawn(async move {
            match outcome(work).await {
                Err(why) if daemon.finished().is_cancelled() => debug!(name, why, "infrastructure ended"),
                Err(why) => daemon.fail(&format!("task {name} {why}")),
                Ok(()) => {}
            }
        });
    }

    /// Spawns one piece of work that runs to its end even if its caller stops waiting. A panic ends the daemon, because
    /// the work may have changed half of its state.
    pub fn spawn_work<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inner.tasks.spawn(self.supervised(name, future))
    }

    /// Starts a thread for work that must not wait for the runtime. A panic in it ends the daemon.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn_thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let daemon = self.clone();
        let supervised = move || {
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                daemon.fail(&format!("thread {name} panicked: {}", panics::message(&*panic)));
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(supervised).map(drop)
    }

    /// The same future; a panic in it ends the daemon. For tasks in a [`TaskTracker`] or `JoinSet` of the caller.
    pub fn supervised<F: Future>(
        &self,
        name: &'static str,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let daemon = self.clone();
        panics::catch(future).map(move |result| {
            result.unwrap_or_else(|panic| {
                daemon.fail(&format!("task {name} panicked: {}", panics::message(&*panic)));
                std::panic::resume_unwind(panic)
            })
        })
    }

    /// Names of the long-lived tasks that run.
    pub fn task_names(&self) -> Vec<&'static str> {
        self.inner.long_lived.lock().keys().copied().collect()
    }

    /// Makes the long-lived tasks of this name panic: a fault for tests.
    pub fn inject_panic(&self, name: &str) {
        if let Some(tasks) = self.inner.long_lived.lock().get(name) {
            tasks.panic.cancel();
        }
    }

    /// Lists the task while it runs, and lets [`Self::inject_panic`] find it.
    fn long_lived<F: Future>(
        &self,
        name: &'static str,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let inner = self.inner.clone();
        let panic = {
            let mut tasks = inner.long_lived.lock();
            let tasks = tasks.entry(name).or_default();
            tasks.running += 1;
            tasks.panic.clone()
        };
        async move {
            let output = tokio::select! {
                biased;
                () = panic.cancelled() => panic!("injected"),
                output = future => output,
            };
            let mut tasks = inner.long_lived.lock();
            if let Some(same_name) = tasks.get_mut(name) {
                same_name.running -= 1;
                if same_name.running == 0 {
                    tasks.remove(name);
                }
            }
            output
        }
    }

    /// The start is complete: the announce file is written, and `/readyz` answers 200 unless a part of the daemon
    /// reports an obstacle.
    pub fn ready(&self) {
        if !self.inner.ready.send_replace(true) {
            info!("ready");
        }
    }

    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
            && !self.inner.draining.is_cancelled()
            && self.inner.obstacles.lock().is_empty()
    }

    /// Reports an obstacle: while one part of the daemon (`source`) has a reason, `/readyz` answers 503 with it, before
    /// and after the start is complete. `None` removes the obstacle of this part only.
    pub fn not_ready_because(&self, source: &'static str, reason: Option<String>) {
        let mut obstacles = self.inner.obstacles.lock();
        match reason {
            Some(reason) => obstacles.insert(source, reason),
            None => obstacles.remove(source),
        };
    }

    /// Why the daemon is not ready, in one line. Empty if no part reports an obstacle.
    pub fn not_ready_reason(&self) -> String {
        let obstacles = self.inner.obstacles.lock();
        obstacles.values().map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.inner.ready.subscribe()
    }

    /// Begins the drain; later calls have no effect.
    pub fn drain(&self, reason: &str) {
        if !self.inner.draining.is_cancelled() {
            info!(reason, "draining");
            self.inner.draining.cancel();
        }
    }

    /// Begins the drain because of a fault. The daemon exits with code 1.
    pub fn fail(&self, reason: &str) {
        error!(reason, "failed");
        self.inner.failed.store(true, Ordering::Relaxed);
        self.drain(reason);
    }

    /// Whether the daemon drains because of a fault.
    pub fn has_failed(&self) -> bool {
        self.inner.failed.load(Ordering::Relaxed)
    }

    /// Adds a read-only JSON page to the admin endpoints.
    pub fn add_admin_page(&self, path: &'static str, page: impl Fn() -> String + Send + Sync + 'static) {
        self.inner.admin_pages.lock().insert(path, Arc::new(page));
    }

    pub(crate) fn admin_page(&self, path: &str) -> Option<String> {
        let page = self.inner.admin_pages.lock().get(path).cloned()?;
        Some(page())
    }

    pub(crate) fn infrastructure(&self) -> &TaskTracker {
        &self.inner.infrastructure
    }

    /// Sets the address for players in the announce file. Call it before [`Self::ready`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "addresses are passed as they come: text or socket address"
    )]
    pub fn set_client_address(&self, address: impl ToString) {
        self.inner.bound.lock().client = address.to_string();
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "addresses are passed as they come: text or socket address"
    )]
    pub fn set_grpc_address(&self, address: impl ToString) {
        self.inner.bound.lock().grpc = address.to_string();
    }

    pub(crate) fn set_admin_address(&self, address: String) {
        self.inner.bound.lock().admin = address;
    }

    /// Sends log records to this OTLP collector from now on. Without a collector they wait in a bounded queue.
    pub fn set_log_collector(&self, collector: Option<Channel>) {
        self.inner.log_collector.send_replace(collector);
    }

    pub(crate) fn log_collector(&self) -> watch::Receiver<Option<Channel>> {
        self.inner.log_collector.subscribe()
    }

    /// The addresses bound so far.
    pub fn bound(&self) -> BoundAddresses {
        self.inner.bound.lock().clone()
    }
}

/// Runs a task and describes its end, if it did not end well.
async fn outcome(work: impl Future<Output = anyhow::Result<()>>) -> Result<(), String> {
    match panics::catch(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("failed: {error:#}")),
        Err(panic) => Err(format!("panicked: {}", panics::message(&*panic))),
    }
}

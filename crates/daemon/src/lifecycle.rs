//! The life of one daemon: ready, draining, stopped. A [`Daemon`] is the handle through which its parts share it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shardkeep_types::DaemonKind;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;
use tracing::{debug, error, info};

/// Handle to the running daemon; clones are the same daemon.
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
    bound: Mutex<BoundAddresses>,
    log_collector: watch::Sender<Option<Channel>>,
}

/// The addresses a daemon has bound, as they go into its announce file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundAddresses {
    pub name: String,
    pub kind: String,
    pub pid: u32,
    pub grpc: String,
    pub admin: String,
    /// Where players reach it; empty for daemons that no player talks to.
    pub client: String,
}

impl Daemon {
    /// A handle by itself: under [`crate::main`] and [`crate::launch`] one is made for the service; tests and tools may
    /// make their own and end it by [`Self::drain`] and [`Self::finished`].
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
                bound: Mutex::new(bound),
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

    /// Cancelled when the grace time is over: drop everything.
    pub fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    /// Cancelled when the service has returned and its tasks are joined: what carried them may close now.
    pub fn finished(&self) -> CancellationToken {
        self.inner.finished.clone()
    }

    /// Spawn here what must be joined before the daemon exits. Such tasks end by themselves after `draining`.
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Spawns a task without which the daemon is no use: if it panics or fails, the daemon drains and exits with 1.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.inner.tasks.spawn(future);
        let daemon = self.clone();
        self.inner.tasks.spawn(async move {
            if let Err(why) = outcome(task).await {
                daemon.fail(&format!("task {name} {why}"));
            }
        });
    }

    /// Like [`Self::spawn`], for what must go on until [`Self::finished`]: servers and registrations, not services.
    /// What fails after that is only logged: peers close connections too.
    pub fn spawn_infrastructure<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.inner.infrastructure.spawn(future);
        let daemon = self.clone();
        self.inner.infrastructure.spawn(async move {
            match outcome(task).await {
                Err(why) if daemon.finished().is_cancelled() => debug!(name, why, "infrastructure ended"),
                Err(why) => daemon.fail(&format!("task {name} {why}")),
                Ok(()) => {}
            }
        });
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

    /// Begins the drain; later calls change nothing.
    pub fn drain(&self, reason: &str) {
        if !self.inner.draining.is_cancelled() {
            info!(reason, "draining");
            self.inner.draining.cancel();
        }
    }

    /// Begins the drain because something is broken: the exit code will be 1.
    pub fn fail(&self, reason: &str) {
        error!(reason, "failed");
        self.inner.failed.store(true, Ordering::Relaxed);
        self.drain(reason);
    }

    /// Whether it ends because something is broken.
    pub fn has_failed(&self) -> bool {
        self.inner.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn infrastructure(&self) -> &TaskTracker {
        &self.inner.infrastructure
    }

    /// Where players reach this daemon, for the announce file. Call it before [`Self::ready`].
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

    /// Log records go to this OTLP collector from now on; before, and with `None`, they wait in a bounded queue.
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

/// How a task ended, in words if it did not end well.
async fn outcome(task: JoinHandle<anyhow::Result<()>>) -> Result<(), String> {
    match task.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("failed: {error:#}")),
        Err(error) => Err(format!("panicked: {error}")),
    }
}

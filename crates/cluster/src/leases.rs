//! The registry leases that this instance holds. The first one makes the daemon ready; the loss of the last one is
//! logged and counted, but the daemon stays ready, because a registry outage must not take the cluster down.

use std::sync::Arc;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_daemon::Daemon;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::{REGISTRIES, REGISTRIES_LOST};

/// Names this part of the daemon in [`Daemon::not_ready_because`].
const OBSTACLE: &str = "registry";

/// Clones share the count.
#[derive(Clone)]
pub(crate) struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    daemon: Daemon,
    held: Mutex<usize>,
    /// Set once any registry knows that this instance is up.
    known_up: watch::Sender<bool>,
}

/// One lease; dropped when it is lost.
pub(crate) struct LeaseCount {
    inner: Arc<Inner>,
}

impl Leases {
    pub(crate) fn new(daemon: Daemon) -> Self {
        let inner = Inner { daemon, held: Mutex::new(0), known_up: watch::Sender::new(false) };
        Self { inner: Arc::new(inner) }
    }

    /// Counts a lease that a registry has granted.
    pub(crate) fn acquire(&self) -> LeaseCount {
        let mut held = self.inner.held.lock();
        *held += 1;
        gauge!(REGISTRIES).set(*held as f64);
        if *held == 1 && *self.inner.known_up.borrow() {
            info!("a registry holds this instance's lease again");
        }
        LeaseCount { inner: self.inner.clone() }
    }

    /// A registry knows that this instance is up.
    pub(crate) fn known_up(&self) {
        if !self.inner.known_up.send_replace(true) {
            self.inner.daemon.not_ready_because(OBSTACLE, None);
        }
    }

    /// Shows the failure in `/readyz`, as long as no registry knows that this instance is up.
    pub(crate) fn report_failure(&self, registry: &str, cause: &str) {
        if !*self.inner.known_up.borrow() {
            let reason = format!("no registry lease; registry {registry}: {cause}");
            self.inner.daemon.not_ready_because(OBSTACLE, Some(reason));
        }
    }

    /// Waits until a registry knows that this instance is up.
    pub(crate) async fn wait_until_known_up(&self) {
        // Fails only when the sender is dropped, and `self` holds it.
        let _ = self.inner.known_up.subscribe().wait_for(|known| *known).await;
    }
}

impl Drop for LeaseCount {
    fn drop(&mut self) {
        let mut held = self.inner.held.lock();
        *held -= 1;
        gauge!(REGISTRIES).set(*held as f64);
        if *held == 0 && !self.inner.daemon.draining().is_cancelled() {
            counter!(REGISTRIES_LOST).increment(1);
            warn!("no registry holds this instance's lease: peers that start now cannot find it");
        }
    }
}

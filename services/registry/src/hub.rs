//! The table and its watchers under one lock, so that watchers receive changes in their order. No code waits while it
//! holds the lock.

use std::{sync::Arc, time::Instant};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_cluster::Instance;
use shardkeep_types::DaemonKind;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    metrics::{CUT, EXPIRED, INSTANCES, WATCHERS},
    table::{CHECK_INTERVAL, Change, Table},
};

pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// Notified when a lease may run out earlier than the expiry task expects.
    leases_changed: Notify,
    queue: usize,
}

struct Inner {
    table: Table,
    watchers: Vec<Watcher>,
    closed: bool,
}

struct Watcher {
    /// Empty: every kind.
    kinds: Vec<DaemonKind>,
    /// Bound: `watch_queue`. Overflow: the stream of the watcher ends, and it starts again with a snapshot.
    /// Counter: `shardkeep_registry_cut_watchers_total`.
    queue: mpsc::Sender<Change>,
}

/// A new watch: every instance, then each change.
pub(crate) struct Watch {
    pub(crate) snapshot: Vec<Instance>,
    pub(crate) changes: mpsc::Receiver<Change>,
}

impl Hub {
    pub(crate) fn new(config: &Config) -> Self {
        let inner = Inner { table: Table::new(config.max_instances), watchers: Vec::new(), closed: false };
        // Every series exists from the start.
        inner.report();
        Self { inner: Mutex::new(inner), leases_changed: Notify::new(), queue: config.watch_queue }
    }

    /// Applies a call to the table, and sends the changes to the watchers.
    pub(crate) fn apply<T>(&self, call: impl FnOnce(&mut Table, Instant) -> (T, Vec<Change>)) -> T {
        let mut inner = self.inner.lock();
        let (result, changes) = call(&mut inner.table, now());
        for change in &changes {
            inner.broadcast(change);
        }
        if !changes.is_empty() {
            inner.report();
            self.leases_changed.notify_one();
        }
        result
    }

    /// The instances of these kinds (empty: all).
    pub(crate) fn list(&self, kinds: &[DaemonKind]) -> Vec<Instance> {
        let inner = self.inner.lock();
        inner.table.instances().filter(|instance| matches(kinds, instance.id.kind)).cloned().collect()
    }

    /// Starts a watch. `None` when this registry is closing.
    pub(crate) fn watch(&self, kinds: Vec<DaemonKind>) -> Option<Watch> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return None;
        }
        let snapshot =
            inner.table.instances().filter(|instance| matches(&kinds, instance.id.kind)).cloned().collect();
        let (queue, changes) = mpsc::channel(self.queue);
        inner.watchers.retain(|watcher| !watcher.queue.is_closed());
        inner.watchers.push(Watcher { kinds, queue });
        gauge!(WATCHERS).set(inner.watchers.len() as f64);
        Some(Watch { snapshot, changes })
    }

    /// Ends every watch, and refuses new ones.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.watchers.clear();
        gauge!(WATCHERS).set(0.0);
    }
}

impl Inner {
    fn broadcast(&mut self, change: &Change) {
        let before = self.watchers.len();
        self.watchers.retain(|watcher| {
            if !matches(&watcher.kinds, change.kind()) {
                return !watcher.queue.is_closed();
            }
            let sent = watcher.queue.try_send(change.clone());
            if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                counter!(CUT).increment(1);
            }
            sent.is_ok()
        });
        if self.watchers.len() != before {
            gauge!(WATCHERS).set(self.watchers.len() as f64);
        }
    }

    fn report(&self) {
        use shardkeep_cluster::State;
        for kind in DaemonKind::DAEMONS.into_iter().chain([DaemonKind::Backend]) {
            for state in [State::Starting, State::Up, State::Draining, State::Offline, State::Left] {
                let of_both = |i: &&Instance| i.id.kind == kind && i.state == state;
                let count = self.table.instances().filter(of_both).count();
                gauge!(INSTANCES, "kind" => kind.as_str(), "state" => state.as_str()).set(count as f64);
            }
        }
    }
}

fn matches(kinds: &[DaemonKind], kind: DaemonKind) -> bool {
    kinds.is_empty() || kinds.contains(&kind)
}

/// Tokio's clock, which tests can control.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Marks instances as offline when their leases run out.
pub(crate) async fn expire(hub: Arc<Hub>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        let next = hub.apply(|table, now| {
            let changes = table.expire(now);
            let lost = changes.iter().filter(|change| matches!(change, Change::Changed(_)));
            counter!(EXPIRED).increment(lost.count() as u64);
            (table.next_expiry(), changes)
        });
        let check = now() + CHECK_INTERVAL;
        let due = tokio::time::sleep_until(next.map_or(check, |next| next.min(check)).into());
        tokio::select! {
            () = due => {}
            () = hub.leases_changed.notified() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardkeep_cluster::{PeerCertificate, State};
    use shardkeep_types::{InstanceId, WorldId};

    use super::*;
    use crate::table::Holder;

    fn register(hub: &Hub, name: &str, incarnation: u64) {
        let id = InstanceId { kind: DaemonKind::Zone, name: name.into(), incarnation };
        let instance = Instance { world: WorldId(1), ..Instance::new(id, State::Up) };
        let holder = Holder { certificate: PeerCertificate::default(), key: vec![1] };
        hub.apply(|table, now| ((), table.register(instance, holder, Duration::from_secs(3), now).unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_expiry_marks_instance_offline_on_time() {
        let hub = Arc::new(Hub::new(&Config::default()));
        let stop = CancellationToken::new();
        let task = tokio::spawn(expire(hub.clone(), stop.clone()));
        let mut watch = hub.watch(vec![DaemonKind::Zone]).unwrap();
        assert!(watch.snapshot.is_empty());
        let begin = tokio::time::Instant::now();
        register(&hub, "z", 1);
        let Some(Change::Changed(up)) = watch.changes.recv().await else { panic!() };
        let Some(Change::Changed(offline)) = watch.changes.recv().await else { panic!() };
        assert_eq!((up.state, offline.state), (State::Up, State::Offline));
        assert_eq!(begin.elapsed().as_secs(), 3);
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn slow_watcher_is_cut_and_others_are_not() {
        let hub = Hub::new(&Config { watch_queue: 2, ..Config::default() });
        let mut slow = hub.watch(Vec::new()).unwrap();
        let mut other = hub.watch(vec![DaemonKind::Login]).unwrap();
        for incarnation in 1..=3 {
            register(&hub, "z", incarnation);
        }
        assert!(slow.changes.recv().await.is_some());
        assert!(slow.changes.recv().await.is_some());
        assert!(slow.changes.recv().await.is_none(), "cut");
        assert!(other.changes.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty));
        assert_eq!(hub.watch(Vec::new()).unwrap().snapshot.len(), 1);
    }

    #[tokio::test]
    async fn closed_hub_ends_watches_and_refuses_new_ones() {
        let hub = Hub::new(&Config::default());
        let mut watch = hub.watch(Vec::new()).unwrap();
        hub.close();
        assert!(watch.changes.recv().await.is_none());
        assert!(hub.watch(Vec::new()).is_none());
    }
}

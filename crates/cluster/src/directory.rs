//! Live views of the instances of one kind, fed by a watch of every registry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_rpc::registry::{
    WatchEvent, WatchRequest, registry_client::RegistryClient, watch_event::Event,
};
use shardkeep_types::{DaemonKind, InstanceId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, warn};

use crate::{
    Backoff, Instance, State,
    merge::MergedView,
    metrics::{INSTANCES, WATCH_FAILURES},
};

/// Longest wait for the start of a watch.
const OPEN_DEADLINE: Duration = Duration::from_secs(2);
/// Loads that differ from the smallest by at most this much count as equal, so that simultaneous callers spread.
const LOAD_TOLERANCE: f64 = 0.05;

/// All instances of one kind, merged from the registries and kept up to date. Clones are cheap and share the
/// instances. Each clone remembers separately which changes it has seen.
#[derive(Debug, Clone)]
pub struct Directory {
    view: watch::Receiver<Arc<Vec<Instance>>>,
    rotation: Arc<AtomicUsize>,
    registry_answered: Arc<AtomicBool>,
}

impl Directory {
    /// Every instance, ordered by name; offline ones too.
    pub fn all(&self) -> Vec<Instance> {
        self.view.borrow().to_vec()
    }

    /// The current instances. The same `Arc` as before while nothing has changed.
    pub fn view(&self) -> Arc<Vec<Instance>> {
        self.view.borrow().clone()
    }

    /// Instances that accept new work.
    pub fn up(&self) -> Vec<Instance> {
        self.view.borrow().iter().filter(|instance| instance.state == State::Up).cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Instance> {
        self.view.borrow().iter().find(|instance| instance.id.name == name).cloned()
    }

    /// The least loaded instance that is up. Instances with about equal load take turns.
    pub fn least_loaded(&self) -> Option<Instance> {
        let mut up = self.up();
        let least = up.iter().map(|instance| instance.load).min_by(f64::total_cmp)?;
        up.retain(|instance| instance.load <= least + LOAD_TOLERANCE);
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed) % up.len();
        Some(up.swap_remove(rotation))
    }

    /// Whether any registry has ever answered. Before that, an empty view means "unknown", not "none".
    pub fn registry_answered(&self) -> bool {
        self.registry_answered.load(Ordering::Acquire)
    }

    /// Waits for the next change of an instance. The instances known when this clone was made count as seen.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            // The node has ended: no change will follow.
            std::future::pending::<()>().await;
        }
    }

    /// The current instances; they count as seen from now on.
    pub fn snapshot(&mut self) -> Arc<Vec<Instance>> {
        self.view.borrow_and_update().clone()
    }
}

/// The writing side of a directory.
pub(crate) struct DirectoryWriter {
    kind: DaemonKind,
    merge: Mutex<MergedView>,
    view: watch::Sender<Arc<Vec<Instance>>>,
    registry_answered: Arc<AtomicBool>,
}

impl DirectoryWriter {
    pub(crate) fn new(kind: DaemonKind, registries: usize, grace: Duration) -> (Arc<Self>, Directory) {
        let view = watch::Sender::new(Arc::default());
        let registry_answered = Arc::new(AtomicBool::new(false));
        let directory = Directory {
            view: view.subscribe(),
            rotation: Arc::default(),
            registry_answered: registry_answered.clone(),
        };
        (
            Arc::new(Self {
                kind,
                merge: Mutex::new(MergedView::new(registries, grace)),
                view,
                registry_answered,
            }),
            directory,
        )
    }

    /// The first answer counts as a change, even with no instances in it. It wakes callers of
    /// [`Directory::changed`].
    fn mark_registry_answered(&self) {
        if !self.registry_answered.swap(true, Ordering::AcqRel) {
            self.view.send_modify(|_| {});
        }
    }

    /// Applies a change and publishes the new list. Returns when the next instance expires.
    fn apply(&self, change: impl FnOnce(&mut MergedView)) -> Option<Instant> {
        let mut merge = self.merge.lock();
        change(&mut merge);
        let next = merge.expire(Instant::now());
        let view = merge.view();
        let changed = self.view.send_if_modified(|present| {
            let changed = **present != view;
            if changed {
                *present = Arc::new(view);
            }
            changed
        });
        if changed {
            let up = self.view.borrow().iter().filter(|instance| instance.state == State::Up).count();
            gauge!(INSTANCES, "kind" => self.kind.as_str()).set(up as f64);
        }
        next
    }
}

/// Follows one registry until the daemon has finished.
pub(crate) async fn follow(
    writer: Arc<DirectoryWriter>,
    registry: usize,
    channel: Channel,
    finished: CancellationToken,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    loop {
        let ended = tokio::select! {
            ended = watch_once(&writer, registry, channel.clone(), &mut backoff) => ended,
            () = finished.cancelled() => return Ok(()),
        };
        writer.apply(|merge| merge.disconnected(registry));
        counter!(WATCH_FAILURES).increment(1);
        debug!(kind = %writer.kind, status = %ended, "watch of the registry ended");
        tokio::select! {
            () = backoff.wait() => {}
            () = finished.cancelled() => return Ok(()),
        }
    }
}

/// Reads one watch stream to its end, and says why it ended.
async fn watch_once(
    writer: &DirectoryWriter,
    registry: usize,
    channel: Channel,
    backoff: &mut Backoff,
) -> Status {
    let request = WatchRequest { kinds: vec![writer.kind.to_string()] };
    let mut client = RegistryClient::new(channel);
    let mut events = match tokio::time::timeout(OPEN_DEADLINE, client.watch(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return status,
        Err(_) => return Status::deadline_exceeded("the registry did not answer"),
    };
    let mut snapshot = Some(Snapshot::default());
    let mut expiry = None;
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            () = sleep_until_optional(expiry) => {
                expiry = writer.apply(|_| {});
                continue;
            }
        };
        let change = match event {
            Ok(Some(event)) => parse_change(event),
            Ok(None) => return Status::unavailable("the registry closed the watch"),
            Err(status) => return status,
        };
        match (change, &mut snapshot) {
            (Some(Change::Synced), _) => {
                backoff.reset();
                if let Some(snapshot) = snapshot.take() {
                    expiry = writer.apply(|merge| snapshot.apply(merge, registry));
                    writer.mark_registry_answered();
                }
            }
            (Some(Change::Changed(instance)), Some(snapshot)) => snapshot.instances.push(*instance),
            (Some(Change::Changed(instance)), None) => {
                expiry = writer.apply(|m| m.changed(registry, *instance));
            }
            (Some(Change::Removed(id)), None) => expiry = writer.apply(|merge| merge.removed(registry, &id)),
            (Some(Change::Removed(_)) | None, _) => {}
        }
    }
}

/// Instances received before `synced`. They are applied together: half a snapshot would look as if many had failed.
#[derive(Default)]
struct Snapshot {
    instances: Vec<Instance>,
}

impl Snapshot {
    fn apply(self, merge: &mut MergedView, registry: usize) {
        merge.begin_snapshot(registry);
        for instance in self.instances {
            merge.changed(registry, instance);
        }
        merge.synced(registry, Instant::now());
    }
}

enum Change {
    Changed(Box<Instance>),
    Removed(InstanceId),
    Synced,
}

/// Skips instances of kinds that this version does not know.
fn parse_change(event: WatchEvent) -> Option<Change> {
    let change = match event.event? {
        Event::Changed(instance) => {
            Instance::try_from(instance).map(|instance| Change::Changed(Box::new(instance)))
        }
        Event::Removed(id) => InstanceId::try_from(id).map(Change::Removed),
        Event::Synced(_) => Ok(Change::Synced),
    };
    change.inspect_err(|error| warn!(%error, "the registry names an instance that makes no sense")).ok()
}

async fn sleep_until_optional(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

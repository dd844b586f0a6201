//! The loop of a zone: starts a space when the zone gets its first sector there, and forgets it when it has ended. Spaces
//! tick on separate threads, so that no space waits for a socket or for another space.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shardkeep_cluster::Node;
use shardkeep_daemon::Daemon;
use shardkeep_journal::{Journal, Origin};
use shardkeep_link::{LinkEvent, LinkHub};
use shardkeep_rpc::world;
use shardkeep_sim::{Map, Sim};
use shardkeep_types::{DaemonKind, SpaceId};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    app::{App, Clock},
    config::{Config, JournalConfig},
    domain::{mirror::Mirror, partition::Table, space::Space},
    edge::{
        calls::SharedCalls,
        executor::Executor,
        message::{MESSAGE_QUEUE, ZoneMessage},
        streams,
        switchboard::Switchboard,
    },
    metrics,
};

const LOAD_INTERVAL: Duration = Duration::from_millis(250);

/// The threads on which spaces tick.
struct TickThreads(Option<Runtime>);

impl TickThreads {
    /// 0: one for each core.
    fn start(threads: usize) -> std::io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("tick").enable_time().build()?;
        Ok(Self(Some(runtime)))
    }

    fn spawn_on<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        if let Some(runtime) = &self.0 {
            tasks.spawn_on(task, runtime.handle());
        }
    }
}

impl Drop for TickThreads {
    /// Does not wait for the threads, because this may happen on a thread of the network.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The spaces of this zone, and their common parts.
pub(crate) struct Spaces {
    node: Node,
    daemon: Daemon,
    config: Config,
    hub: LinkHub,
    switchboard: Switchboard,
    calls: SharedCalls,
    clock: Clock,
    seed: u64,
    tables: watch::Sender<Arc<Table>>,
    /// The stream to the leading world.
    presence: watch::Sender<Option<mpsc::Sender<world::PresenceReport>>>,
    mirror: Mirror,
    zone_avatars: Arc<AtomicUsize>,
    ticks: TickThreads,
    running: JoinSet<SpaceId>,
    started: BTreeSet<SpaceId>,
    journal: Option<Journal>,
}

/// The journal of this zone. A zone without a usable folder plays without one.
pub(crate) fn start_journal(config: &JournalConfig, folder: &Path) -> Option<Journal> {
    if !config.enabled {
        return None;
    }
    let started = Journal::start(folder, config.max_bytes);
    if let Err(error) = &started {
        tracing::error!(folder = %folder.display(), %error, "this zone keeps no journal until it restarts");
    }
    started.ok()
}

impl Spaces {
    pub(crate) fn new(
        node: Node,
        daemon: Daemon,
        config: Config,
        hub: LinkHub,
        switchboard: Switchboard,
        journal: Option<Journal>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            seed: if config.seed == 0 { node.id().incarnation } else { config.seed },
            ticks: TickThreads::start(config.threads)?,
            calls: SharedCalls::new(node.clone(), daemon.clone()),
            clock: Clock::start(),
            node,
            daemon,
            config,
            hub,
            switchboard,
            tables: watch::Sender::default(),
            presence: watch::Sender::default(),
            mirror: Mirror::default(),
            zone_avatars: Arc::default(),
            running: JoinSet::new(),
            started: BTreeSet::new(),
            journal,
        })
    }

    /// Runs until the daemon drains and all spaces have ended, or the grace time is over.
    pub(crate) async fn run(
        mut self,
        mut links: mpsc::Receiver<LinkEvent>,
        mut messages: mpsc::Receiver<ZoneMessage>,
    ) {
        let mut loads = interval(LOAD_INTERVAL);
        loads.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (draining, stopped) = (self.daemon.draining(), self.daemon.stopped());
        while !(draining.is_cancelled() && self.running.is_empty()) {
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                Some(ended) = self.running.join_next() => self.ended(ended.ok()),
                Some(message) = messages.recv() => self.message(message),
                Some(event) = links.recv() => self.switchboard.link_event(event),
                _ = loads.tick() => self.report_load(),
            }
        }
        if let Some(journal) = self.journal.take() {
            // It waits for the disk.
            let _ = tokio::task::spawn_blocking(move || journal.close()).await;
        }
    }

    fn message(&mut self, message: ZoneMessage) {
        match message {
            ZoneMessage::Partition(table) if table.is_newer_than(&self.table()) => {
                let orphans = self.mirror.orphans(&table, Map::named);
                self.tables.send_replace(table);
                self.start_spaces();
                self.calls.give_orphans(orphans);
            }
            ZoneMessage::Mirrored { zone, space, snapshot } => self.mirror.keep(zone, space, snapshot),
            ZoneMessage::Partition(table) => {
                tracing::debug!(term = %table.term, epoch = table.epoch, "an old partition is refused");
            }
            ZoneMessage::PresenceStream(stream) => {
                // The first report names this zone, also when it has no space.
                let zone = Some(self.node.id().into());
                let _ = stream.try_send(world::PresenceReport { zone, ..Default::default() });
                self.presence.send_replace(Some(stream));
            }
        }
    }

    fn table(&self) -> Arc<Table> {
        self.tables.borrow().clone()
    }

    /// Starts the spaces in which this zone has sectors.
    fn start_spaces(&mut self) {
        for space in self.table().spaces_of(self.node.id()) {
            if !self.started.contains(&space) && !self.daemon.draining().is_cancelled() {
                self.start(space);
            }
        }
    }

    fn start(&mut self, id: SpaceId) {
        let table = self.table();
        let name = table.spaces.get(&id).map_or("", |space| space.map.as_str());
        let Some(map) = Map::named(name) else {
            tracing::error!(space = %id, map = name, "this zone has no such map: the space stays empty");
            return;
        };
        let (map, now) = (Arc::new(map), Instant::now());
        let (messages, receiver) = mpsc::channel(MESSAGE_QUEUE);
        let seed = self.seed ^ u64::from(id.0).rotate_left(32);
        let sim = Sim::new(id, map.clone(), seed, self.clock.now(now));
        let me = self.node.id();
        let links = self.switchboard.connect(id, messages.clone());
        let calls = self.calls.of_space(messages.clone());
        let sink = self.journal.as_ref().map(Journal::sink);
        let mut space = Space::new(me.clone(), self.node.world(), self.config.clone(), sim, now);
        if sink.is_some() {
            space.record(Origin {
                release: env!("CARGO_PKG_VERSION").to_owned(),
                zone: me.name.clone(),
                incarnation: me.incarnation,
                seed,
            });
        }
        let (hub, switchboard) = (self.hub.clone(), self.switchboard.clone());
        let app = App {
            space,
            executor: Executor::new(me.clone(), id, map, hub, switchboard, calls, sink),
            node: self.node.clone(),
            zones: self.node.directory(DaemonKind::Zone),
            clock: self.clock,
            tables: self.tables.subscribe(),
            presence: self.presence.subscribe(),
            zone_avatars: self.zone_avatars.clone(),
            counted: 0,
            slow_tick_logged: now,
        };
        streams::to_an_ai(&self.node, &self.daemon, &messages);
        let running = app.run(links, receiver, self.daemon.clone());
        let running = self.daemon.supervised("space", async move {
            running.await;
            id
        });
        self.ticks.spawn_on(&mut self.running, running);
        self.started.insert(id);
        metrics::spaces(self.started.len());
        tracing::info!(space = %id, map = name, "a space begins here");
    }

    /// A space has ended. `None`: it has failed, and the daemon ends.
    fn ended(&mut self, space: Option<SpaceId>) {
        let Some(space) = space else { return };
        self.switchboard.disconnect(space);
        self.started.remove(&space);
        metrics::spaces(self.started.len());
        // The zone may have got a sector since.
        self.start_spaces();
    }

    fn report_load(&mut self) {
        let avatars = self.zone_avatars.load(Ordering::Relaxed);
        self.node.set_load((avatars as f64 / self.config.max_avatars as f64).min(1.0));
        self.switchboard.remove_expired();
    }
}

//! The loop of one space: one measured tick every 50 ms, and between ticks whatever arrives. Late ticks are counted and
//! not repeated.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shardkeep_cluster::{Directory, Instance, Node};
use shardkeep_daemon::{Daemon, unix_millis};
use shardkeep_rpc::world::PresenceReport;
use shardkeep_sim::rules::TICK_MS;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    domain::{
        command::Command,
        partition::Table,
        space::{Space, Surroundings},
    },
    edge::{executor::Executor, message::Message, switchboard::SpaceLinks},
    metrics,
};

const TICK: Duration = Duration::from_millis(TICK_MS);
/// The most link events, and the most messages, that are handled before their answers are sent. The rest waits in
/// bounded queues.
const MAX_BURST: usize = 1_024;

/// A space, and the means to carry out its effects.
pub(crate) struct App {
    pub(crate) space: Space,
    pub(crate) executor: Executor,
    pub(crate) node: Node,
    pub(crate) zones: Directory,
    pub(crate) clock: Clock,
    pub(crate) tables: watch::Receiver<Arc<Table>>,
    pub(crate) presence: watch::Receiver<Option<mpsc::Sender<PresenceReport>>>,
    /// The avatars in all spaces of this zone.
    pub(crate) zone_avatars: Arc<AtomicUsize>,
    /// The avatars of this space that `zone_avatars` includes.
    pub(crate) counted: usize,
}

impl App {
    /// Runs until all avatars are elsewhere and this zone owns no part of the space, or the daemon drains, or the grace
    /// time is over.
    pub(crate) async fn run(
        mut self,
        mut links: SpaceLinks,
        mut messages: mpsc::Receiver<Message>,
        daemon: Daemon,
    ) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (draining, stopped) = (daemon.draining(), daemon.stopped());
        self.tables.mark_changed();
        self.presence.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                Ok(()) = self.tables.changed() => {
                    let table = self.tables.borrow_and_update().clone();
                    self.space.command(Instant::now(), Command::Partition(table));
                }
                Ok(()) = self.presence.changed() => {
                    let stream = self.presence.borrow_and_update().clone();
                    if let Some(stream) = stream {
                        let command = self.executor.presence_stream(stream);
                        self.space.command(Instant::now(), command);
                    }
                }
                _ = ticks.tick() => {
                    self.tick(draining.is_cancelled());
                    if draining.is_cancelled() && self.space.is_empty() || self.space.is_finished() {
                        tracing::info!(space = %self.space.id(), "no avatar is left here");
                        break;
                    }
                }
                Some(message) = messages.recv() => self.message(message),
                Some(event) = links.recv() => self.space.link_event(Instant::now(), event),
            }
            // Also after a tick, so that requests are handled when ticks take all the time.
            self.handle_waiting(&mut links, &mut messages);
        }
        self.space.end_recording();
        self.execute();
    }

    fn tick(&mut self, draining: bool) {
        let began = Instant::now();
        let surroundings = Surroundings {
            database_answers: self.executor.database_answers(),
            draining,
            is_only_zone: draining && self.no_other_zone_is_up(),
            avatars_elsewhere: self.zone_avatars.load(Ordering::Relaxed).saturating_sub(self.counted),
        };
        self.space.surroundings(began, surroundings);
        self.space.step(began, self.clock.now(began));
        self.execute();
        self.count(self.space.avatars());
        let took = began.elapsed();
        metrics::tick(took, took > TICK);
    }

    fn count(&mut self, avatars: usize) {
        if avatars >= self.counted {
            self.zone_avatars.fetch_add(avatars - self.counted, Ordering::Relaxed);
        } else {
            self.zone_avatars.fetch_sub(self.counted - avatars, Ordering::Relaxed);
        }
        self.counted = avatars;
    }

    fn message(&mut self, message: Message) {
        let command = self.executor.receive(message);
        self.space.command(Instant::now(), command);
    }

    /// Handles what waits in the queues, then sends the answers.
    fn handle_waiting(&mut self, links: &mut SpaceLinks, messages: &mut mpsc::Receiver<Message>) {
        let now = Instant::now();
        for _ in 0..MAX_BURST {
            let Some(event) = links.try_recv() else { break };
            self.space.link_event(now, event);
        }
        for _ in 0..MAX_BURST {
            let Ok(message) = messages.try_recv() else { break };
            self.message(message);
        }
        self.space.answer();
        self.execute();
    }

    /// Carries out effects, and those that their failures cause.
    fn execute(&mut self) {
        let mut effects = VecDeque::from(self.space.take_effects());
        while let Some(effect) = effects.pop_front() {
            if let Some(command) = self.executor.execute(effect) {
                self.space.command(Instant::now(), command);
                effects.extend(self.space.take_effects());
            }
        }
    }

    /// Whether no other zone of the world is up, as far as the registry knows.
    fn no_other_zone_is_up(&self) -> bool {
        let (world, me) = (self.node.world(), self.node.id());
        let another = |zone: &Instance| zone.world == world && zone.id.name != me.name;
        self.zones.registry_answered() && !self.zones.up().iter().any(another)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.count(0);
    }
}

/// Wall-clock time at the start plus monotonic time since. The ticks of all zones have similar numbers and never go
/// back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall_ms: unix_millis(), start: Instant::now() }
    }

    pub(crate) fn now(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        self.wall_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

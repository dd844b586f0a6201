//! The loop of one space: one measured tick every 50 ms, and between ticks whatever arrives. Late ticks are counted and
//! not repeated.

use std::{
    collections::VecDeque,
    fmt,
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
        stage::Stage,
    },
    edge::{executor::Executor, message::Message, switchboard::SpaceLinks},
    metrics,
};

const TICK: Duration = Duration::from_millis(TICK_MS);
/// The most link events, and the most messages, that are handled before their answers are sent. The rest waits in
/// bounded queues.
const MAX_BURST: usize = 1_024;
/// The time between two log records about slow ticks of one space.
const SLOW_TICK_LOG_INTERVAL: Duration = Duration::from_secs(10);

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
    pub(crate) slow_tick_logged: Instant,
}

/// How long each stage of a tick took.
struct StageTimes {
    last: Instant,
    took: Vec<(Stage, Duration)>,
}

impl StageTimes {
    fn start(began: Instant) -> Self {
        Self { last: began, took: Vec::with_capacity(9) }
    }

    fn ended(&mut self, stage: Stage) {
        let now = Instant::now();
        self.took.push((stage, now.saturating_duration_since(self.last)));
        self.last = now;
    }

    fn report(&self, map: &'static str) {
        for (stage, took) in &self.took {
            metrics::stage(stage.label(), map, *took);
        }
    }
}

impl fmt::Display for StageTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stage, took) in &self.took {
            write!(f, "{} {:.1} ms; ", stage.label(), took.as_secs_f64() * 1_000.0)?;
        }
        Ok(())
    }
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
        let mut stages = StageTimes::start(began);
        self.space.step(began, self.clock.now(began), &mut |stage| stages.ended(stage));
        self.execute();
        stages.ended(Stage::Execute);
        self.count(self.space.avatars());
        let took = began.elapsed();
        metrics::tick(took, took > TICK);
        stages.report(self.space.map_name());
        if took > TICK && began >= self.slow_tick_logged + SLOW_TICK_LOG_INTERVAL {
            self.slow_tick_logged = began;
            let (space, avatars) = (self.space.id(), self.space.avatars());
            tracing::warn!(%space, avatars, ?took, stages = %stages, "a tick took longer than its time");
        }
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

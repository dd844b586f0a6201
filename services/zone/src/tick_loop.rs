//! The loop of a zone: one measured tick every 50 ms, and between ticks whatever arrives. Late ticks are counted and not
//! repeated.

use std::time::{Duration, Instant};

use shardkeep_cluster::{Directory, Instance};
use shardkeep_daemon::{Daemon, unix_millis};
use shardkeep_link::LinkEvent;
use shardkeep_sim::rules::TICK_MS;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{command::Command, metrics, shard::Shard};

const TICK: Duration = Duration::from_millis(TICK_MS);
/// The most link events, and the most commands, that are handled before their answers are sent. The rest waits in
/// bounded queues.
const MAX_BURST: usize = 1_024;

/// Runs until the daemon drains and all avatars are released, or the grace time is over.
pub(crate) async fn run(
    mut shard: Shard,
    clock: Clock,
    mut links: mpsc::Receiver<LinkEvent>,
    mut commands: mpsc::Receiver<Command>,
    zones: &Directory,
    daemon: &Daemon,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    loop {
        tokio::select! {
            biased;
            () = stopped.cancelled() => break,
            _ = ticks.tick() => {}
            Some(command) = commands.recv() => {
                shard.now = Instant::now();
                shard.command(command);
                handle_waiting(&mut shard, &mut links, &mut commands);
                continue;
            }
            Some(event) = links.recv() => {
                shard.now = Instant::now();
                shard.link_event(event);
                handle_waiting(&mut shard, &mut links, &mut commands);
                continue;
            }
        }
        let began = Instant::now();
        if draining.is_cancelled() {
            shard.draining.get_or_insert(began);
            shard.is_only_zone = no_other_zone_is_up(&shard, zones);
        }
        shard.step(began, clock.now(began));
        let took = began.elapsed();
        metrics::tick(took, took > TICK);
        // Requests are also handled when ticks take all the time.
        handle_waiting(&mut shard, &mut links, &mut commands);
        if shard.draining.is_some() && shard.is_empty() {
            tracing::info!("no avatar is left here");
            break;
        }
    }
}

/// Handles what waits in the queues, then sends the answers.
fn handle_waiting(
    shard: &mut Shard,
    links: &mut mpsc::Receiver<LinkEvent>,
    commands: &mut mpsc::Receiver<Command>,
) {
    for _ in 0..MAX_BURST {
        let Ok(event) = links.try_recv() else { break };
        shard.link_event(event);
    }
    for _ in 0..MAX_BURST {
        let Ok(command) = commands.try_recv() else { break };
        shard.command(command);
    }
    shard.answer();
}

/// Whether no other zone of the world is up, as far as the registry knows.
fn no_other_zone_is_up(shard: &Shard, zones: &Directory) -> bool {
    let another = |zone: &Instance| zone.world == shard.world && zone.id.name != shard.me.name;
    zones.registry_answered() && !zones.up().iter().any(another)
}

/// Wall-clock time at the start plus monotonic time since. The ticks of all zones have similar numbers and never go
/// back.
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

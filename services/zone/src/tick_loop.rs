//! The heart: one tick every 50 ms, measured; late ones are counted and not made up for. Between ticks commands are
//! taken in; what they change in the simulation waits for the next one.

use std::time::{Duration, Instant};

use shardkeep_cluster::{Directory, Instance};
use shardkeep_daemon::{Daemon, unix_millis};
use shardkeep_link::LinkEvent;
use shardkeep_sim::rules::TICK_MS;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{
    command::{COMMAND_QUEUE, Command},
    metrics,
    shard::Shard,
};

const TICK: Duration = Duration::from_millis(TICK_MS);

/// Ticks until the daemon drains and everybody is saved and gone, or its grace is over.
pub(crate) async fn run(
    mut shard: Shard,
    mut links: mpsc::Receiver<LinkEvent>,
    mut commands: mpsc::Receiver<Command>,
    zones: &Directory,
    daemon: &Daemon,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let clock = Clock::start();
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    loop {
        tokio::select! {
            biased;
            () = stopped.cancelled() => break,
            _ = ticks.tick() => {}
            // Between ticks, so that a hand-over does not wait for one at each of its steps.
            Some(command) = commands.recv() => {
                shard.now = Instant::now();
                shard.command(command);
                continue;
            }
        }
        let began = Instant::now();
        if draining.is_cancelled() {
            shard.draining.get_or_insert(began);
            shard.is_only_zone = no_other_zone_is_up(&shard, zones);
        }
        shard.step(began, clock.now(began), &mut links);
        // However busy the ticks are, commands get their turn.
        for _ in 0..COMMAND_QUEUE {
            let Ok(command) = commands.try_recv() else { break };
            shard.command(command);
        }
        let took = began.elapsed();
        metrics::tick(took, took > TICK);
        if shard.draining.is_some() && shard.is_empty() {
            tracing::info!("no avatar is left here");
            break;
        }
    }
}

/// Whether no other zone of the world is up, as far as it is known.
fn no_other_zone_is_up(shard: &Shard, zones: &Directory) -> bool {
    let another = |zone: &Instance| zone.world == shard.world && zone.id.name != shard.me.name;
    zones.registry_answered() && !zones.up().iter().any(another)
}

/// Wall time at the start, monotonic time since: ticks of all zones have about the same numbers, and never go back.
struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { wall_ms: unix_millis(), start: Instant::now() }
    }

    fn now(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        self.wall_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

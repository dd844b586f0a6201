//! The tick loop: one measured tick every 50 ms. Late ticks are counted and not repeated. Commands run between
//! ticks; the simulation sees their changes in the next tick.

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

/// Runs until the daemon drains and all avatars are released, or the grace time is over.
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
            // Between ticks, so that the steps of a hand-over do not wait for ticks.
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
        // Commands also run when ticks take all the time.
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

/// Whether no other zone of the world is up, as far as the registry knows.
fn no_other_zone_is_up(shard: &Shard, zones: &Directory) -> bool {
    let another = |zone: &Instance| zone.world == shard.world && zone.id.name != shard.me.name;
    zones.registry_answered() && !zones.up().iter().any(another)
}

/// Wall-clock time at the start plus monotonic time since. The ticks of all zones have similar numbers and never go
/// back.
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

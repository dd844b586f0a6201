//! The load of this replica: the share of its cores that made decisions during the last second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shardkeep_cluster::Node;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The sum of the time spent on decisions. Clones share the sum.
#[derive(Debug, Clone, Default)]
pub struct BusyTime(Arc<AtomicU64>);

impl BusyTime {
    pub fn add(&self, took: Duration) {
        self.0.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The busy share of `cores` during `window`, counted since the last call: 0.0 to 1.0.
    pub fn share(&self, window: Duration, cores: usize) -> f64 {
        let busy = Duration::from_micros(self.0.swap(0, Ordering::Relaxed));
        let available = window.as_secs_f64() * cores.max(1) as f64;
        if available > 0.0 { (busy.as_secs_f64() / available).min(1.0) } else { 0.0 }
    }
}

/// Reports the load every second until `stop` is cancelled.
pub(crate) async fn report(node: &Node, busy: &BusyTime, stop: &CancellationToken) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = Instant::now();
        node.set_load(busy.share(now - before, cores));
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_share_resets_on_read_and_never_exceeds_one() {
        let busy = BusyTime::default();
        busy.add(Duration::from_millis(500));
        assert!((busy.share(Duration::from_secs(1), 2) - 0.25).abs() < 1e-9);
        assert_eq!(busy.share(Duration::from_secs(1), 2), 0.0);
        busy.add(Duration::from_secs(9));
        assert_eq!(busy.share(Duration::from_secs(1), 1), 1.0);
        assert_eq!(busy.share(Duration::ZERO, 1), 0.0);
    }
}

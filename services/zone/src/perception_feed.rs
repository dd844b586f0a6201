//! Sends the perceptions of creatures to an AI in batches. Intents return as a command. Without an AI, creatures
//! stand idle.

use std::time::{Duration, Instant};

use shardkeep_rpc::ai;
use shardkeep_sim::{SQUARE_MM, Sim};
use shardkeep_types::InstanceId;
use tokio::sync::mpsc;

use crate::{convert, metrics};

/// Bound of the queue to the AI, in batches. Overflow: the batch is dropped and counted; the next one replaces it.
pub(crate) const BATCH_QUEUE: usize = 4;

#[derive(Debug)]
pub(crate) struct PerceptionFeed {
    stream: Option<mpsc::Sender<ai::Perceptions>>,
    /// The stream still needs the grid of the map.
    needs_grid: bool,
    interval: Duration,
    last: Instant,
}

impl PerceptionFeed {
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self { stream: None, needs_grid: true, interval, last: now }
    }

    pub(crate) fn open(&mut self, stream: mpsc::Sender<ai::Perceptions>) {
        self.stream = Some(stream);
        self.needs_grid = true;
    }

    pub(crate) fn send_due(&mut self, now: Instant, me: &InstanceId, tick: u64, sim: &mut Sim) {
        let elapsed = now.saturating_duration_since(self.last);
        let Some(stream) = &self.stream else { return };
        if elapsed < self.interval {
            return;
        }
        self.last = now;
        let creatures: Vec<_> = sim.perceptions().iter().map(convert::perception).collect();
        if creatures.is_empty() {
            return;
        }
        let batch = ai::Perceptions {
            zone: me.name.clone(),
            tick,
            elapsed_ms: u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX),
            creatures,
            grid: self.needs_grid.then(|| grid(sim)),
        };
        match stream.try_send(batch) {
            Ok(()) => self.needs_grid = false,
            Err(mpsc::error::TrySendError::Full(_)) => metrics::dropped("ai"),
            Err(mpsc::error::TrySendError::Closed(_)) => self.stream = None,
        }
    }
}

fn grid(sim: &Sim) -> ai::WalkGrid {
    let grid = &sim.map().grid;
    let (width, height) = grid.size();
    ai::WalkGrid { square_mm: SQUARE_MM.unsigned_abs(), width, height, blocked: grid.bits().to_vec() }
}

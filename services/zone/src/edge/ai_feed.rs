//! Sends the perceptions of creatures to an AI in batches. Intents return as a command. Without an AI, creatures stand
//! idle.

use shardkeep_rpc::ai;
use shardkeep_sim::{Map, Perception, SQUARE_MM};
use tokio::sync::mpsc;

use crate::{edge::convert, metrics};

/// Bound of the queue to the AI, in batches. Overflow: the batch is dropped and counted; the next one replaces it.
pub(crate) const BATCH_QUEUE: usize = 4;

/// A stream to an AI.
#[derive(Debug)]
pub(crate) struct AiFeed {
    stream: mpsc::Sender<ai::Perceptions>,
    /// The stream still needs the grid of the map.
    needs_grid: bool,
}

/// The stream to the AI has ended.
#[derive(Debug)]
pub(crate) struct AiGone;

impl AiFeed {
    pub(crate) fn new(stream: mpsc::Sender<ai::Perceptions>) -> Self {
        Self { stream, needs_grid: true }
    }

    pub(crate) fn send(
        &mut self,
        zone: &str,
        map: &Map,
        tick: u64,
        elapsed_ms: u32,
        creatures: &[Perception],
    ) -> Result<(), AiGone> {
        let batch = ai::Perceptions {
            zone: zone.to_owned(),
            tick,
            elapsed_ms,
            creatures: creatures.iter().map(convert::perception).collect(),
            grid: self.needs_grid.then(|| grid(map)),
        };
        match self.stream.try_send(batch) {
            Ok(()) => self.needs_grid = false,
            Err(mpsc::error::TrySendError::Full(_)) => metrics::dropped("ai"),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(AiGone),
        }
        Ok(())
    }
}

fn grid(map: &Map) -> ai::WalkGrid {
    let (width, height) = map.grid.size();
    ai::WalkGrid { square_mm: SQUARE_MM.unsigned_abs(), width, height, blocked: map.grid.bits().to_vec() }
}

//! Soft state that waits to be written: the newest of each character, coalesced, in bounded memory.
//!
//! Bound: [`Config::soft_queue`](crate::Config) characters. Overflow: the state of a further character is dropped and
//! counted; its zone sends the next one within seconds. Entries stay until they are written, so a database that is
//! away for a minute costs nothing but memory.

use std::collections::HashMap;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use shardkeep_store::game::SoftState;
use shardkeep_types::{CharacterId, Epoch};

use crate::metrics::{SOFT_COALESCED, SOFT_DROPPED, SOFT_STALE, SOFT_WAITING};

pub(crate) struct SoftQueue {
    pending: Mutex<Pending>,
    bound: usize,
    /// Epochs that are known to have begun, so that senders of older ones are told at once. Forgetful: the
    /// database decides in the end.
    newest_epoch: Cache<CharacterId, Epoch>,
}

#[derive(Default)]
struct Pending {
    states: HashMap<CharacterId, Entry>,
    /// Raised with every change, so that a flush can tell what it has written from what came meanwhile.
    stamp: u64,
}

struct Entry {
    state: SoftState,
    stamp: u64,
}

/// Entries as a flush has taken them to the database.
pub(crate) struct FlushBatch(Vec<(SoftState, u64)>);

impl FlushBatch {
    pub(crate) fn states(&self) -> Vec<SoftState> {
        self.0.iter().map(|(state, _)| *state).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl SoftQueue {
    pub(crate) fn new(bound: usize) -> Self {
        Self { pending: Mutex::default(), bound, newest_epoch: Cache::new(bound) }
    }

    /// Accepts states; returns the characters whose state is of an epoch known to be over.
    pub(crate) fn accept(&self, states: Vec<SoftState>) -> Vec<CharacterId> {
        let (mut stale, mut coalesced, mut dropped) = (Vec::new(), 0, 0);
        let mut pending = self.pending.lock();
        for state in states {
            let newest_epoch = self.newest_epoch.get(&state.character).unwrap_or_default();
            let newer =
                pending.states.get(&state.character).is_some_and(|entry| entry.state.epoch > state.epoch);
            if newer || newest_epoch > state.epoch {
                stale.push(state.character);
                continue;
            }
            pending.stamp += 1;
            let entry = Entry { state, stamp: pending.stamp };
            if pending.states.len() >= self.bound && !pending.states.contains_key(&state.character) {
                dropped += 1;
            } else if pending.states.insert(state.character, entry).is_some() {
                coalesced += 1;
            }
        }
        metrics::gauge!(SOFT_WAITING).set(pending.states.len() as f64);
        drop(pending);
        metrics::counter!(SOFT_COALESCED).increment(coalesced);
        metrics::counter!(SOFT_DROPPED).increment(dropped);
        metrics::counter!(SOFT_STALE).increment(stale.len() as u64);
        stale
    }

    /// An epoch has begun: states of older ones are over.
    pub(crate) fn begin_epoch(&self, character: CharacterId, epoch: Epoch) {
        if self.newest_epoch.get(&character).is_none_or(|known| known < epoch) {
            self.newest_epoch.insert(character, epoch);
        }
        let mut pending = self.pending.lock();
        if pending.states.get(&character).is_some_and(|entry| entry.state.epoch < epoch) {
            pending.states.remove(&character);
        }
        metrics::gauge!(SOFT_WAITING).set(pending.states.len() as f64);
    }

    /// The state that waits for this character, which a reader of the database would miss.
    pub(crate) fn pending_state(&self, character: CharacterId) -> Option<SoftState> {
        self.pending.lock().states.get(&character).map(|entry| entry.state)
    }

    /// A copy of what waits, in pieces of at most `batch_size`; it stays here until [`SoftQueue::mark_written`].
    pub(crate) fn pending_batches(&self, batch_size: usize) -> Vec<FlushBatch> {
        let pending = self.pending.lock();
        let all: Vec<_> = pending.states.values().map(|entry| (entry.state, entry.stamp)).collect();
        drop(pending);
        all.chunks(batch_size.max(1)).map(|part| FlushBatch(part.to_vec())).collect()
    }

    /// These have been written, except `stale`, whose epoch is over; newer ones of the same characters wait on.
    pub(crate) fn mark_written(&self, batch: &FlushBatch, stale: &[CharacterId]) {
        let mut pending = self.pending.lock();
        for (state, stamp) in &batch.0 {
            if pending.states.get(&state.character).is_some_and(|entry| entry.stamp == *stamp) {
                pending.states.remove(&state.character);
            }
            if stale.contains(&state.character) {
                self.newest_epoch.insert(state.character, state.epoch.next());
            }
        }
        metrics::gauge!(SOFT_WAITING).set(pending.states.len() as f64);
        metrics::counter!(SOFT_STALE).increment(stale.len() as u64);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.lock().states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{MapId, Position};

    use super::*;

    fn state(character: u64, epoch: u64, x_mm: i32) -> SoftState {
        let position = Position::new(MapId(1), x_mm, 0);
        SoftState { character: CharacterId(character), epoch: Epoch(epoch), position, facing: 0, health: 1 }
    }

    fn pending(soft: &SoftQueue) -> Vec<SoftState> {
        let mut all: Vec<_> = soft.pending_batches(100).iter().flat_map(FlushBatch::states).collect();
        all.sort_by_key(|state| state.character);
        all
    }

    #[test]
    fn queue_keeps_newest_state_per_character() {
        let soft = SoftQueue::new(10);
        assert!(soft.accept(vec![state(1, 1, 1), state(1, 1, 2), state(2, 5, 3)]).is_empty());
        assert_eq!(soft.accept(vec![state(2, 4, 9)]), [CharacterId(2)]);
        assert_eq!(pending(&soft), [state(1, 1, 2), state(2, 5, 3)]);
        assert_eq!(soft.pending_state(CharacterId(1)), Some(state(1, 1, 2)));
    }

    #[test]
    fn full_queue_drops_only_new_characters() {
        let soft = SoftQueue::new(1);
        soft.accept(vec![state(1, 1, 1), state(2, 1, 1), state(1, 1, 2)]);
        assert_eq!(pending(&soft), [state(1, 1, 2)]);
    }

    #[test]
    fn state_accepted_during_flush_stays_queued() {
        let soft = SoftQueue::new(10);
        soft.accept(vec![state(1, 1, 1), state(2, 1, 1), state(3, 1, 1)]);
        let batch = soft.pending_batches(100);
        soft.accept(vec![state(2, 1, 2)]);
        soft.mark_written(&batch[0], &[CharacterId(3)]);
        assert_eq!(pending(&soft), [state(2, 1, 2)]);
        assert_eq!(
            soft.accept(vec![state(3, 1, 5)]),
            [CharacterId(3)],
            "its sender is told that its epoch is over"
        );
    }

    #[test]
    fn new_epoch_discards_older_state() {
        let soft = SoftQueue::new(10);
        soft.accept(vec![state(1, 1, 1)]);
        soft.begin_epoch(CharacterId(1), Epoch(2));
        assert!(soft.is_empty());
        assert_eq!(soft.accept(vec![state(1, 1, 1)]), [CharacterId(1)]);
        assert!(soft.accept(vec![state(1, 2, 1)]).is_empty());
    }
}

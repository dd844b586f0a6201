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

pub(crate) struct Soft {
    waiting: Mutex<Waiting>,
    bound: usize,
    /// Epochs that are known to have begun, so that senders of older ones are told at once. Forgetful: the
    /// database decides in the end.
    begun: Cache<CharacterId, Epoch>,
}

#[derive(Default)]
struct Waiting {
    states: HashMap<CharacterId, Entry>,
    /// Raised with every change, so that a flush can tell what it has written from what came meanwhile.
    stamp: u64,
}

struct Entry {
    state: SoftState,
    stamp: u64,
}

/// Entries as a flush has taken them to the database.
pub(crate) struct Taken(Vec<(SoftState, u64)>);

impl Taken {
    pub(crate) fn states(&self) -> Vec<SoftState> {
        self.0.iter().map(|(state, _)| *state).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Soft {
    pub(crate) fn new(bound: usize) -> Self {
        Self { waiting: Mutex::default(), bound, begun: Cache::new(bound) }
    }

    /// Accepts states; returns the characters whose state is of an epoch known to be over.
    pub(crate) fn accept(&self, states: Vec<SoftState>) -> Vec<CharacterId> {
        let (mut stale, mut coalesced, mut dropped) = (Vec::new(), 0, 0);
        let mut waiting = self.waiting.lock();
        for state in states {
            let begun = self.begun.get(&state.character).unwrap_or_default();
            let newer =
                waiting.states.get(&state.character).is_some_and(|entry| entry.state.epoch > state.epoch);
            if newer || begun > state.epoch {
                stale.push(state.character);
                continue;
            }
            waiting.stamp += 1;
            let entry = Entry { state, stamp: waiting.stamp };
            if waiting.states.len() >= self.bound && !waiting.states.contains_key(&state.character) {
                dropped += 1;
            } else if waiting.states.insert(state.character, entry).is_some() {
                coalesced += 1;
            }
        }
        metrics::gauge!(SOFT_WAITING).set(waiting.states.len() as f64);
        drop(waiting);
        metrics::counter!(SOFT_COALESCED).increment(coalesced);
        metrics::counter!(SOFT_DROPPED).increment(dropped);
        metrics::counter!(SOFT_STALE).increment(stale.len() as u64);
        stale
    }

    /// An epoch has begun: states of older ones are over.
    pub(crate) fn begin_epoch(&self, character: CharacterId, epoch: Epoch) {
        if self.begun.get(&character).is_none_or(|known| known < epoch) {
            self.begun.insert(character, epoch);
        }
        let mut waiting = self.waiting.lock();
        if waiting.states.get(&character).is_some_and(|entry| entry.state.epoch < epoch) {
            waiting.states.remove(&character);
        }
        metrics::gauge!(SOFT_WAITING).set(waiting.states.len() as f64);
    }

    /// The state that waits for this character, which a reader of the database would miss.
    pub(crate) fn of(&self, character: CharacterId) -> Option<SoftState> {
        self.waiting.lock().states.get(&character).map(|entry| entry.state)
    }

    /// A copy of what waits, in pieces of at most `piece`; it stays here until [`Soft::written`].
    pub(crate) fn take(&self, piece: usize) -> Vec<Taken> {
        let waiting = self.waiting.lock();
        let all: Vec<_> = waiting.states.values().map(|entry| (entry.state, entry.stamp)).collect();
        drop(waiting);
        all.chunks(piece.max(1)).map(|part| Taken(part.to_vec())).collect()
    }

    /// These have been written, except `stale`, whose epoch is over; newer ones of the same characters wait on.
    pub(crate) fn written(&self, taken: &Taken, stale: &[CharacterId]) {
        let mut waiting = self.waiting.lock();
        for (state, stamp) in &taken.0 {
            if waiting.states.get(&state.character).is_some_and(|entry| entry.stamp == *stamp) {
                waiting.states.remove(&state.character);
            }
            if stale.contains(&state.character) {
                self.begun.insert(state.character, state.epoch.next());
            }
        }
        metrics::gauge!(SOFT_WAITING).set(waiting.states.len() as f64);
        metrics::counter!(SOFT_STALE).increment(stale.len() as u64);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().states.is_empty()
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

    fn waiting(soft: &Soft) -> Vec<SoftState> {
        let mut all: Vec<_> = soft.take(100).iter().flat_map(Taken::states).collect();
        all.sort_by_key(|state| state.character);
        all
    }

    #[test]
    fn the_newest_of_each_character_waits() {
        let soft = Soft::new(10);
        assert!(soft.accept(vec![state(1, 1, 1), state(1, 1, 2), state(2, 5, 3)]).is_empty());
        assert_eq!(soft.accept(vec![state(2, 4, 9)]), [CharacterId(2)]);
        assert_eq!(waiting(&soft), [state(1, 1, 2), state(2, 5, 3)]);
        assert_eq!(soft.of(CharacterId(1)), Some(state(1, 1, 2)));
    }

    #[test]
    fn too_many_drop_newcomers_only() {
        let soft = Soft::new(1);
        soft.accept(vec![state(1, 1, 1), state(2, 1, 1), state(1, 1, 2)]);
        assert_eq!(waiting(&soft), [state(1, 1, 2)]);
    }

    #[test]
    fn what_came_during_a_flush_waits_on() {
        let soft = Soft::new(10);
        soft.accept(vec![state(1, 1, 1), state(2, 1, 1), state(3, 1, 1)]);
        let taken = soft.take(100);
        soft.accept(vec![state(2, 1, 2)]);
        soft.written(&taken[0], &[CharacterId(3)]);
        assert_eq!(waiting(&soft), [state(2, 1, 2)]);
        assert_eq!(
            soft.accept(vec![state(3, 1, 5)]),
            [CharacterId(3)],
            "its sender is told that its epoch is over"
        );
    }

    #[test]
    fn a_new_epoch_ends_the_older() {
        let soft = Soft::new(10);
        soft.accept(vec![state(1, 1, 1)]);
        soft.begin_epoch(CharacterId(1), Epoch(2));
        assert!(soft.is_empty());
        assert_eq!(soft.accept(vec![state(1, 1, 1)]), [CharacterId(1)]);
        assert!(soft.accept(vec![state(1, 2, 1)]).is_empty());
    }
}

//! A queue of soft state that waits for its write: the newest state of each character and caller.
//!
//! Bound: [`Config::soft_queue`](crate::Config) states. Overflow: the state of a further character is dropped and
//! counted; its zone sends the next one within seconds. States stay in the queue until they are written, so an outage of
//! the database loses nothing. States of different callers never replace each other: only the database knows which
//! caller owns the character.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use shardkeep_store::game::{Caller, SoftRefusal, SoftState, SoftWrite};
use shardkeep_types::{CharacterId, Epoch};

use crate::metrics::{SOFT_COALESCED, SOFT_DROPPED, SOFT_FORBIDDEN, SOFT_STALE, SOFT_WAITING, SOFT_WRITTEN};

pub(crate) struct SoftQueue {
    pending: Mutex<Pending>,
    bound: usize,
    /// Epochs that began while this dbcache was asked. It may forget any of them.
    newest_epoch: Cache<CharacterId, Epoch>,
    /// The last epoch in which the database refused states of this caller. It may forget any of them.
    refused: Cache<(CharacterId, Arc<Caller>), Epoch>,
}

#[derive(Default)]
struct Pending {
    /// Almost always one entry for each character.
    states: HashMap<CharacterId, Vec<Entry>>,
    len: usize,
    /// Rises with every change, so that a flush recognises the entries that it has written.
    stamp: u64,
}

#[derive(Clone)]
struct Entry {
    write: SoftWrite,
    stamp: u64,
}

/// Entries that a flush writes.
pub(crate) struct FlushBatch(Vec<Entry>);

impl FlushBatch {
    pub(crate) fn writes(&self) -> Vec<SoftWrite> {
        self.0.iter().map(|entry| entry.write.clone()).collect()
    }
}

impl Pending {
    /// Removes the entries of a character that `remove` chooses.
    fn remove(&mut self, character: CharacterId, remove: impl Fn(&Entry) -> bool) {
        let Some(entries) = self.states.get_mut(&character) else { return };
        let before = entries.len();
        entries.retain(|entry| !remove(entry));
        self.len -= before - entries.len();
        if entries.is_empty() {
            self.states.remove(&character);
        }
    }
}

impl SoftQueue {
    pub(crate) fn new(bound: usize) -> Self {
        Self { pending: Mutex::default(), bound, newest_epoch: Cache::new(bound), refused: Cache::new(bound) }
    }

    /// Accepts states. Returns the characters that the caller is known not to own in the state's epoch.
    pub(crate) fn accept(&self, caller: &Arc<Caller>, states: Vec<SoftState>) -> Vec<CharacterId> {
        let (mut stale, mut coalesced, mut dropped) = (Vec::new(), 0, 0);
        let mut pending = self.pending.lock();
        let Pending { states: waiting, len, stamp } = &mut *pending;
        for state in states {
            let character = state.character;
            let refused = self.refused.get(&(character, caller.clone()));
            if refused.is_some_and(|epoch| epoch >= state.epoch)
                || self.newest_epoch.get(&character).is_some_and(|epoch| epoch > state.epoch)
            {
                stale.push(character);
                continue;
            }
            *stamp += 1;
            let entry = Entry { write: SoftWrite { caller: caller.clone(), state }, stamp: *stamp };
            let entries = waiting.entry(character).or_default();
            match entries.iter_mut().find(|entry| entry.write.caller == *caller) {
                Some(older) => {
                    let age = |state: &SoftState| (state.epoch, state.sequence);
                    if age(&older.write.state) <= age(&state) {
                        *older = entry;
                    }
                    coalesced += 1;
                }
                None if *len >= self.bound => dropped += 1,
                None => {
                    entries.push(entry);
                    *len += 1;
                }
            }
            if entries.is_empty() {
                waiting.remove(&character);
            }
        }
        metrics::gauge!(SOFT_WAITING).set(*len as f64);
        drop(pending);
        metrics::counter!(SOFT_COALESCED).increment(coalesced);
        metrics::counter!(SOFT_DROPPED).increment(dropped);
        metrics::counter!(SOFT_STALE).increment(stale.len() as u64);
        stale
    }

    /// The database has begun this epoch: states of older ones are stale.
    pub(crate) fn begin_epoch(&self, character: CharacterId, epoch: Epoch) {
        if self.newest_epoch.get(&character).is_none_or(|known| known < epoch) {
            self.newest_epoch.insert(character, epoch);
        }
        let mut pending = self.pending.lock();
        pending.remove(character, |entry| entry.write.state.epoch < epoch);
        metrics::gauge!(SOFT_WAITING).set(pending.len as f64);
    }

    /// A copy of what waits for this character. A reader of the database would miss it.
    pub(crate) fn pending_of(&self, character: CharacterId) -> FlushBatch {
        FlushBatch(self.pending.lock().states.get(&character).cloned().unwrap_or_default())
    }

    /// A copy of the queue in batches of at most `batch_size`. The states stay queued until [`SoftQueue::mark_written`].
    pub(crate) fn pending_batches(&self, batch_size: usize) -> Vec<FlushBatch> {
        let pending = self.pending.lock();
        let all: Vec<Entry> = pending.states.values().flatten().cloned().collect();
        drop(pending);
        all.chunks(batch_size.max(1)).map(|part| FlushBatch(part.to_vec())).collect()
    }

    /// Removes written and refused states, and counts them. States that arrived during the flush stay queued.
    pub(crate) fn mark_written(&self, batch: &FlushBatch, outcomes: &[Result<(), SoftRefusal>]) {
        let (mut written, mut stale, mut forbidden) = (0, 0, 0);
        let mut pending = self.pending.lock();
        for (Entry { write, stamp }, outcome) in batch.0.iter().zip(outcomes) {
            let SoftWrite { caller, state } = write;
            pending.remove(state.character, |entry| entry.stamp == *stamp);
            let count = match outcome {
                Ok(()) | Err(SoftRefusal::Superseded) => {
                    written += 1;
                    continue;
                }
                Err(SoftRefusal::StaleEpoch) => &mut stale,
                Err(SoftRefusal::Forbidden) => &mut forbidden,
            };
            *count += 1;
            self.refused.insert((state.character, caller.clone()), state.epoch);
        }
        metrics::gauge!(SOFT_WAITING).set(pending.len as f64);
        drop(pending);
        metrics::counter!(SOFT_WRITTEN).increment(written);
        metrics::counter!(SOFT_STALE).increment(stale);
        metrics::counter!(SOFT_FORBIDDEN).increment(forbidden);
        if forbidden > 0 {
            tracing::warn!(states = forbidden, "a zone sent soft state of characters that another zone owns");
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.lock().states.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{Position, SpaceId, WorldId};

    use super::*;

    fn zone(name: &str) -> Arc<Caller> {
        Arc::new(Caller::Zone { world: WorldId(1), name: name.to_owned() })
    }

    /// A state whose x names its sequence.
    fn state(character: u64, epoch: u64, sequence: u64) -> SoftState {
        let position = Position::flat(SpaceId(1), sequence as i32, 0);
        let (character, epoch) = (CharacterId(character), Epoch(epoch));
        SoftState { character, epoch, sequence, position, facing: 0, health: 1 }
    }

    fn accept(soft: &SoftQueue, states: Vec<SoftState>) -> Vec<CharacterId> {
        soft.accept(&zone("west"), states)
    }

    fn pending(soft: &SoftQueue) -> Vec<SoftState> {
        let batches = soft.pending_batches(100);
        let mut all: Vec<_> = batches.iter().flat_map(FlushBatch::writes).map(|write| write.state).collect();
        all.sort_by_key(|state| (state.character, state.sequence));
        all
    }

    #[test]
    fn queue_keeps_newest_state_per_character() {
        let soft = SoftQueue::new(10);
        assert!(accept(&soft, vec![state(1, 1, 1), state(1, 1, 2), state(2, 5, 3)]).is_empty());
        assert!(accept(&soft, vec![state(2, 4, 9), state(1, 1, 1)]).is_empty());
        assert_eq!(pending(&soft), [state(1, 1, 2), state(2, 5, 3)]);
        assert_eq!(soft.pending_of(CharacterId(1)).writes()[0].state, state(1, 1, 2));
    }

    #[test]
    fn full_queue_drops_only_new_characters() {
        let soft = SoftQueue::new(1);
        accept(&soft, vec![state(1, 1, 1), state(2, 1, 1), state(1, 1, 2)]);
        assert_eq!(pending(&soft), [state(1, 1, 2)]);
    }

    #[test]
    fn state_accepted_during_flush_stays_queued() {
        let soft = SoftQueue::new(10);
        accept(&soft, vec![state(1, 1, 1), state(2, 1, 1), state(3, 1, 1)]);
        let batch = soft.pending_batches(100).remove(0);
        accept(&soft, vec![state(2, 1, 2)]);
        let stale = |write: &SoftWrite| write.state.character == CharacterId(3);
        let outcomes: Vec<_> = batch
            .writes()
            .iter()
            .map(|it| if stale(it) { Err(SoftRefusal::StaleEpoch) } else { Ok(()) })
            .collect();
        soft.mark_written(&batch, &outcomes);
        assert_eq!(pending(&soft), [state(2, 1, 2)]);
        assert_eq!(accept(&soft, vec![state(3, 1, 5)]), [CharacterId(3)], "the refused epoch is stale");
        assert!(accept(&soft, vec![state(3, 2, 1)]).is_empty());
    }

    #[test]
    fn new_epoch_discards_older_state() {
        let soft = SoftQueue::new(10);
        accept(&soft, vec![state(1, 1, 1)]);
        soft.begin_epoch(CharacterId(1), Epoch(2));
        assert!(soft.is_empty());
        assert_eq!(accept(&soft, vec![state(1, 1, 1)]), [CharacterId(1)]);
        assert!(accept(&soft, vec![state(1, 2, 1)]).is_empty());
    }

    #[test]
    fn state_of_another_zone_neither_replaces_nor_shadows_the_owners() {
        let soft = SoftQueue::new(10);
        accept(&soft, vec![state(1, 1, 1)]);
        assert!(soft.accept(&zone("east"), vec![state(1, 7, 99)]).is_empty());
        assert!(accept(&soft, vec![state(1, 1, 2)]).is_empty());
        assert_eq!(pending(&soft), [state(1, 1, 2), state(1, 7, 99)]);
        let batch = soft.pending_of(CharacterId(1));
        let outcomes = [Ok(()), Err(SoftRefusal::StaleEpoch)];
        soft.mark_written(&batch, &outcomes);
        assert!(soft.is_empty());
        assert!(
            accept(&soft, vec![state(1, 1, 3)]).is_empty(),
            "the owner is not told that its epoch is over"
        );
        assert_eq!(soft.accept(&zone("east"), vec![state(1, 7, 100)]), [CharacterId(1)]);
    }
}

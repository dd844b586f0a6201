//! When soft state is saved, and its sequence.

use std::time::{Duration, Instant};

use crate::domain::payload::SoftState;

/// Every eighth save includes unchanged avatars, so that the zone learns when it lost an avatar that stands still.
const FULL_SAVE_EVERY: u64 = 8;

#[derive(Debug)]
pub(crate) struct SaveSchedule {
    next: Instant,
    in_progress: bool,
    saves: u64,
    /// Sequence of the last soft state. One counter serves all avatars, because it only has to rise.
    sequence: u64,
}

impl SaveSchedule {
    pub(crate) fn new(next: Instant) -> Self {
        Self { next, in_progress: false, saves: 0, sequence: 0 }
    }

    /// Begins a save that is due, one at a time. Returns whether it includes unchanged avatars.
    pub(crate) fn begin(&mut self, now: Instant, interval: Duration) -> Option<bool> {
        if now < self.next || self.in_progress {
            return None;
        }
        self.next = now + interval;
        self.saves += 1;
        Some(self.saves.is_multiple_of(FULL_SAVE_EVERY))
    }

    /// The call to the database has begun. No other begins until it has ended.
    pub(crate) fn sent(&mut self) {
        self.in_progress = true;
    }

    pub(crate) fn finish(&mut self) {
        self.in_progress = false;
    }

    /// More avatars wait than one call takes: the next save is due now.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.next = now;
    }

    /// Gives a state that is written a higher sequence than those before.
    pub(crate) fn number(&mut self, state: SoftState) -> SoftState {
        self.sequence += 1;
        SoftState { sequence: self.sequence, ..state }
    }
}

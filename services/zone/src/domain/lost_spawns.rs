//! Spawns whose homes this zone does not own any more, until their new zone has taken them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shardkeep_sim::SpawnState;

use crate::domain::command::SpawnsAnswer;

/// How long a zone tries to give a spawn away. Afterwards the new zone has begun without it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Lost {
    state: SpawnState,
    since: Instant,
    /// `None` while the new zone is asked.
    ask_at: Option<Instant>,
    /// A zone that was asked may have taken it.
    uncertain: bool,
}

#[derive(Debug, Default)]
pub(crate) struct LostSpawns(BTreeMap<u32, Lost>);

impl LostSpawns {
    pub(crate) fn add(&mut self, now: Instant, states: Vec<SpawnState>) {
        let lost = |state| Lost { state, since: now, ask_at: Some(now), uncertain: false };
        self.0.extend(states.into_iter().map(|state| (state.number, lost(state))));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// The spawns for which a zone can be asked now, and whether another zone may have taken them.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(SpawnState, bool)> {
        self.0.retain(|_, lost| now.saturating_duration_since(lost.since) < GIVE_UP_AFTER);
        let due = self.0.values().filter(|lost| lost.ask_at.is_some_and(|at| at <= now));
        due.map(|lost| (lost.state, lost.uncertain)).collect()
    }

    /// A zone is asked to take these.
    pub(crate) fn asked(&mut self, states: &[SpawnState]) {
        for state in states {
            if let Some(lost) = self.0.get_mut(&state.number) {
                lost.ask_at = None;
            }
        }
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<SpawnState> {
        self.0.remove(&number).map(|lost| lost.state)
    }

    pub(crate) fn answered(&mut self, now: Instant, numbers: &[u32], answer: SpawnsAnswer) {
        for number in numbers {
            if answer == SpawnsAnswer::Taken {
                self.0.remove(number);
            } else if let Some(lost) = self.0.get_mut(number) {
                lost.uncertain |= answer == SpawnsAnswer::Unknown;
                lost.ask_at = Some(now + RETRY_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::Epoch;

    use super::*;

    fn state(number: u32) -> SpawnState {
        SpawnState { number, epoch: Epoch(1), generation: 1, respawns_in_ms: None, creature: None }
    }

    #[test]
    fn refused_spawn_is_offered_again_until_time_runs_out() {
        let (mut lost, now) = (LostSpawns::default(), Instant::now());
        lost.add(now, vec![state(1), state(2), state(3)]);
        assert_eq!(lost.due(now), [1, 2, 3].map(|number| (state(number), false)));
        lost.asked(&[state(1), state(2), state(3)]);
        assert_eq!(lost.due(now), []);
        lost.answered(now, &[1], SpawnsAnswer::Taken);
        lost.answered(now, &[2], SpawnsAnswer::Refused);
        lost.answered(now, &[3], SpawnsAnswer::Unknown);
        assert_eq!(lost.due(now), []);
        let later = now + RETRY_PAUSE;
        assert_eq!(lost.due(later), [(state(2), false), (state(3), true)]);
        lost.answered(later, &[3], SpawnsAnswer::Refused);
        assert!(
            lost.due(later + RETRY_PAUSE).contains(&(state(3), true)),
            "an earlier call may have arrived"
        );
        assert_eq!(lost.due(now + GIVE_UP_AFTER), []);
        assert!(lost.is_empty());
    }
}

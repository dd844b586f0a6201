//! Keeps the commits of each character in order.

use std::collections::{HashSet, VecDeque};

use shardkeep_sim::HardChange;
use shardkeep_types::CharacterId;

use crate::domain::payload::Job;

/// Bound of the actions that wait for another action of the same character. Overflow: the action is refused as
/// unavailable and counted.
const MAX_QUEUED: usize = 1_024;

/// The decision of the queue about a new job.
#[derive(Debug)]
pub(crate) enum QueueResult {
    Start(Job),
    /// It waits for other jobs of the same character.
    Queued,
    /// Too many jobs wait.
    Full(Job),
}

/// Runs at most one commit per character at a time, so that results come in the order of the actions.
#[derive(Debug, Default)]
pub(crate) struct CommitQueue {
    busy: HashSet<CharacterId>,
    waiting: VecDeque<Job>,
}

impl CommitQueue {
    pub(crate) fn submit(&mut self, job: Job) -> QueueResult {
        let blocked = |player: CharacterId| {
            self.busy.contains(&player)
                || self.waiting.iter().any(|job| job.change.characters().any(|it| it == player))
        };
        if !job.change.characters().any(blocked) {
            self.busy.extend(job.change.characters());
            return QueueResult::Start(job);
        }
        if self.waiting.len() >= MAX_QUEUED {
            return QueueResult::Full(job);
        }
        self.waiting.push_back(job);
        QueueResult::Queued
    }

    /// A job has ended. Returns the jobs that can start now.
    pub(crate) fn finish(&mut self, change: &HardChange) -> Vec<Job> {
        change.characters().for_each(|player| {
            self.busy.remove(&player);
        });
        let mut started = Vec::new();
        let mut blocked_by_earlier: HashSet<CharacterId> = HashSet::new();
        let mut waiting = VecDeque::new();
        for job in self.waiting.drain(..) {
            let free =
                |player: CharacterId| !self.busy.contains(&player) && !blocked_by_earlier.contains(&player);
            if job.change.characters().all(free) {
                self.busy.extend(job.change.characters());
                started.push(job);
            } else {
                blocked_by_earlier.extend(job.change.characters());
                waiting.push_back(job);
            }
        }
        self.waiting = waiting;
        started
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use shardkeep_sim::{ActionKey, TradeContribution};

    use super::*;

    const ANN: CharacterId = CharacterId(1);
    const BOB: CharacterId = CharacterId(2);

    fn action(id: u64) -> ActionKey {
        ActionKey { id, digest: [1; 16] }
    }

    fn recall(player: CharacterId, number: u64) -> Job {
        Job { number, change: HardChange::Recall { player, action: action(number) }, since: Instant::now() }
    }

    fn trade() -> HardChange {
        let side = |player, id| TradeContribution { player, action: action(id), items: vec![], coins: 0 };
        HardChange::Trade { sides: [side(ANN, 7), side(BOB, 9)] }
    }

    #[test]
    fn commits_run_one_per_character_in_order() {
        let mut commit_queue = CommitQueue::default();
        let both = Job { number: 2, change: trade(), since: Instant::now() };
        assert!(matches!(commit_queue.submit(recall(ANN, 1)), QueueResult::Start(_)));
        assert!(matches!(commit_queue.submit(both.clone()), QueueResult::Queued));
        assert!(
            matches!(commit_queue.submit(recall(BOB, 3)), QueueResult::Queued),
            "must not overtake the trade"
        );
        let started = commit_queue.finish(&recall(ANN, 1).change);
        assert_eq!(started.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
        assert_eq!(commit_queue.finish(&both.change)[0].number, 3);
    }
}

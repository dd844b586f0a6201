//! Commits for the simulation, and their outcomes.

use std::collections::VecDeque;

use shardkeep_sim::{HardChange, Input, Outcome};
use shardkeep_types::{CellId, CellRect, CharacterId};

use super::Space;
use crate::{
    domain::{
        commit_queue::QueueResult,
        effect::Effect,
        payload::{Fences, Job},
    },
    metrics,
};

impl Space {
    /// Commits a change for the simulation.
    pub(super) fn begin_commit(&mut self, number: u64, change: HardChange) {
        match self.commit_queue.submit(Job { number, change, since: self.now }) {
            QueueResult::Start(job) => {
                if let Err(job) = self.commit(job) {
                    self.committed(job.number, &job.change, Outcome::Unavailable, false);
                }
            }
            QueueResult::Queued => {}
            QueueResult::Full(job) => {
                metrics::dropped("commits");
                self.apply(unavailable(&job));
            }
        }
    }

    /// Begins a transaction. Returns the job if an avatar of the change has left: its fence cannot hold.
    fn commit(&mut self, job: Job) -> Result<(), Box<Job>> {
        if let HardChange::Recall { .. } = job.change {
            self.effects.push(Effect::Recall { job });
            return Ok(());
        }
        match self.fences(&job.change) {
            Some(fences) => self.effects.push(Effect::Commit { job, fences }),
            None => return Err(Box::new(job)),
        }
        Ok(())
    }

    /// The epochs of the characters that a change needs. A reward may be a neighbour's, and contains its epoch.
    fn fences(&self, change: &HardChange) -> Option<Fences> {
        let fence = |player: CharacterId| Some((player, self.players.get(player)?.epoch));
        match change {
            HardChange::Loot { .. } => Some(Vec::new()),
            _ => change.characters().map(fence).collect(),
        }
    }

    pub(super) fn committed(&mut self, number: u64, change: &HardChange, outcome: Outcome, stale: bool) {
        if stale {
            // Another zone owns one of the characters now.
            self.effects.extend(change.characters().map(Effect::Load));
        }
        if let (HardChange::Loot { reward: Some(reward), .. }, Outcome::Done { .. }) = (change, &outcome)
            && self.players.get(reward.player).is_none()
        {
            self.border.rewarded(reward.player);
        }
        self.record_commit(change, &outcome);
        self.apply(Input::Committed { number, outcome });
        change.characters().for_each(|player| self.continue_leaving(player));
        let mut ready = VecDeque::from(self.commit_queue.finish(change));
        while let Some(job) = ready.pop_front() {
            if let Err(job) = self.commit(job) {
                self.apply(unavailable(&job));
                ready.extend(self.commit_queue.finish(&job.change));
            }
        }
    }

    /// Loads the ground of a cell again, because it may hold items that its zone does not know. Another zone is told to do
    /// so.
    pub(super) fn reload_ground(&mut self, cell: CellId) {
        let CellId { space, x, y } = cell;
        if self.sim.owns(cell) {
            let (x1, y1) = (x.saturating_add(1), y.saturating_add(1));
            self.effects.push(Effect::LoadGround(CellRect { space, x0: x, y0: y, x1, y1 }));
        } else {
            self.border.ground_stale(cell, &self.table);
        }
    }
}

fn unavailable(job: &Job) -> Input {
    Input::Committed { number: job.number, outcome: Outcome::Unavailable }
}

//! Executes commands in the loop of the zone.

use std::collections::VecDeque;

use shardkeep_sim::{HardChange, Input, Outcome};
use shardkeep_types::{CellId, CellRect, CharacterId, Term};
use tonic::Status;

use crate::{
    command::Command,
    convert,
    hard_actions::{Job, QueueResult, action_id, transaction},
    metrics,
    shard::Shard,
};

impl Shard {
    /// A reply to a caller that stopped waiting is dropped. The caller repeats the call; all calls are idempotent.
    pub(crate) fn command(&mut self, command: Command) {
        match command {
            Command::Admit { admission, term, reply } => {
                let _ = reply.send(self.admit(*admission, Term(term)));
            }
            Command::Evict { character, epoch, reason, reply } => {
                self.evict(character, epoch, &reason, reply);
            }
            Command::Teleport { character, to, reply } => {
                let _ = reply.send(self.teleport(character, to));
            }
            Command::Offer { offered, reply } => {
                let _ = reply.send(self.offered(*offered));
            }
            Command::Settle { settlement, reply } => {
                self.settled(settlement);
                let _ = reply.send(());
            }
            Command::Peer { frame } => self.peer_frame(frame),
            Command::Observe { reply } => {
                let sectors = self.table.of(&self.me).map(|sector| sector.cells).collect();
                let seen = self.sim.seen().filter(|seen| !seen.ghost).collect();
                let _ = reply.send((sectors, seen));
            }
            Command::Partition(table) => self.partition(table),
            Command::PresenceStream(stream) => self.presence.open(stream),
            Command::AiStream(stream) => self.perception_feed.open(stream),
            Command::Intents(intents) => {
                metrics::intents(intents.intents.len());
                self.apply(Input::Intents(intents.intents.iter().map(convert::intent).collect()));
            }
            Command::Ground { cells, items, generations } => {
                self.apply(Input::Ground { cells, items, generations });
            }
            Command::Committed { number, change, outcome, stale } => {
                self.committed(number, &change, outcome, stale);
            }
            Command::Handover { character, epoch, event } => self.handover_event(character, epoch, event),
            Command::Released { character, epoch } => self.released(character, epoch),
            Command::Saved { states, stale } => self.saved(&states, stale.as_deref()),
            Command::Loaded { character, row } => self.loaded(character, row.as_deref()),
        }
    }

    fn teleport(&mut self, character: CharacterId, to: shardkeep_types::Position) -> Result<(), Status> {
        let map = self.sim.map();
        if to.space != self.sim.space() || to.x_mm < 0 || to.y_mm < 0 || !map.contains(to.cell()) {
            return Err(Status::invalid_argument("the position is not in this space"));
        }
        match self.players.get(character) {
            None => Err(Status::not_found("the character is not in this zone")),
            Some(player) if !player.is_playing() => {
                Err(Status::unavailable("the character is leaving this zone: try again"))
            }
            Some(_) => {
                self.apply(Input::Teleport { character, to });
                Ok(())
            }
        }
    }

    /// Commits a change for the simulation.
    pub(crate) fn begin_commit(&mut self, number: u64, change: HardChange) {
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

    /// Begins a transaction. Returns the job if an avatar of the change has left.
    fn commit(&mut self, job: Job) -> Result<(), Box<Job>> {
        let epoch = |player: CharacterId| self.players.get(player).map(|player| player.epoch);
        let without_reward = match &job.change {
            HardChange::Loot { spawn, generation, at, stacks, reward: Some(_) } => Some(HardChange::Loot {
                spawn: *spawn,
                generation: *generation,
                at: *at,
                stacks: stacks.clone(),
                reward: None,
            }),
            _ => None,
        };
        if let HardChange::Recall { player, action } = job.change {
            self.background_calls.lookup_action(job, action_id(player, action));
            return Ok(());
        }
        let fallback = without_reward.and_then(|change| transaction(self.world, &change, epoch));
        match transaction(self.world, &job.change, epoch) {
            Some(action) => {
                self.background_calls.commit(job, action, fallback);
                Ok(())
            }
            None => Err(Box::new(job)),
        }
    }

    fn committed(&mut self, number: u64, change: &HardChange, outcome: Outcome, stale: bool) {
        if stale {
            // Another zone owns one of the characters now.
            change.characters().for_each(|player| self.background_calls.load(player));
        }
        if let (HardChange::Loot { reward: Some(reward), .. }, Outcome::Done { .. }) = (change, &outcome)
            && self.players.get(reward.player).is_none()
        {
            self.neighbours.rewarded(reward.player);
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

    /// Loads the ground of a cell again, because it may hold items that this zone does not know.
    pub(crate) fn reload_ground(&mut self, cell: CellId) {
        let CellId { space, x, y } = cell;
        if self.sim.owns(cell) {
            self.background_calls.load_ground(CellRect {
                space,
                x0: x,
                y0: y,
                x1: x.saturating_add(1),
                y1: y.saturating_add(1),
            });
        }
    }
}

fn unavailable(job: &Job) -> Input {
    Input::Committed { number: job.number, outcome: Outcome::Unavailable }
}

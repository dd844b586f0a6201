//! What becomes of each command in a tick.

use shardkeep_sim::{Input, Outcome, Want};
use shardkeep_types::{CellId, CellRect, CharacterId, Term};
use tonic::Status;

use crate::{
    command::Command,
    convert,
    hard::{Begun, Job, transaction},
    metrics,
    shard::Shard,
};

impl Shard {
    /// Answers to callers that have gone are dropped: they ask again, and every call may be repeated.
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
            Command::AiStream(stream) => self.thinking.open(stream),
            Command::Intents(intents) => {
                metrics::intents(intents.intents.len());
                self.inputs.push(Input::Intents(intents.intents.iter().map(convert::intent).collect()));
            }
            Command::Ground { cells, items, generations } => {
                self.inputs.push(Input::Ground { cells, items, generations });
            }
            Command::Committed { number, want, outcome, stale } => {
                self.committed(number, &want, outcome, stale);
            }
            Command::Handover { character, epoch, event } => self.handover_event(character, epoch, event),
            Command::Released { character, epoch } => self.released(character, epoch),
            Command::Saved { states, stale } => self.saved(&states, stale.as_deref()),
            Command::Loaded { character, row } => self.loaded(character, row.as_deref()),
        }
    }

    fn teleport(&mut self, character: CharacterId, to: shardkeep_types::Position) -> Result<(), Status> {
        let map = self.sim.map();
        if to.map != map.id || to.x_mm < 0 || to.y_mm < 0 || !map.contains(to.cell()) {
            return Err(Status::invalid_argument("that is not on the map"));
        }
        match self.players.get(character) {
            None => Err(Status::not_found("the character is not here")),
            Some(player) if !player.is_playing() => Err(Status::unavailable("the character is just leaving")),
            Some(_) => {
                self.inputs.push(Input::Teleport { character, to });
                Ok(())
            }
        }
    }

    /// The simulation wants something committed.
    pub(crate) fn begin_commit(&mut self, number: u64, want: Want) {
        match self.lanes.begin(Job { number, want, since: self.now }) {
            Begun::Now(job) => self.commit(job),
            Begun::Later => {}
            Begun::Never(job) => {
                metrics::dropped("commits");
                self.inputs.push(Input::Committed { number: job.number, outcome: Outcome::Unavailable });
            }
        }
    }

    fn commit(&mut self, job: Job) {
        let epoch = |who: CharacterId| self.players.get(who).map(|player| player.epoch);
        let unrewarded = match &job.want {
            Want::Loot { spawn, generation, at, stacks, reward: Some(_) } => Some(Want::Loot {
                spawn: *spawn,
                generation: *generation,
                at: *at,
                stacks: stacks.clone(),
                reward: None,
            }),
            _ => None,
        };
        let plain = unrewarded.and_then(|want| transaction(self.world, &want, epoch));
        match transaction(self.world, &job.want, epoch) {
            Some(action) => self.works.commit(job, action, plain),
            // An avatar of it has left meanwhile.
            None => self.committed(job.number, &job.want, Outcome::Unavailable, false),
        }
    }

    fn committed(&mut self, number: u64, want: &Want, outcome: Outcome, stale: bool) {
        if stale {
            // One of them is another zone's by now.
            want.characters().for_each(|who| self.works.load(who));
        }
        if let (Want::Loot { reward: Some(reward), .. }, Outcome::Done { .. }) = (want, &outcome)
            && self.players.get(reward.who).is_none()
        {
            self.neighbours.rewarded(reward.who);
        }
        self.inputs.push(Input::Committed { number, outcome });
        for job in self.lanes.end(want) {
            self.commit(job);
        }
    }

    /// Something happened to the ground that this zone did not see.
    pub(crate) fn reload_ground(&mut self, cell: CellId) {
        let CellId { map, x, y } = cell;
        if self.sim.owns(cell) {
            self.works.load_ground(CellRect {
                map,
                x0: x,
                y0: y,
                x1: x.saturating_add(1),
                y1: y.saturating_add(1),
            });
        }
    }
}

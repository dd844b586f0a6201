//! Neighbouring zones: ghosts of what stands near a border, and effects across it. Each neighbour is told on a
//! stream of its own; no tick waits for any of them.

use std::collections::HashMap;

use shardkeep_rpc::zone::{Ghost, PeerFrame};
use shardkeep_sim::{Effect, EffectResult, Input, Seen, Sim};
use shardkeep_types::{CellId, CharacterId, EntityId, InstanceId};
use tokio::sync::mpsc;

use crate::{
    convert, metrics,
    partition::{Sector, Table},
    shard::Shard,
    works::Works,
};

/// Ghosts are told every so many ticks when something about them changed …
const TELL_TICKS: u64 = 2;
/// … and anyway after so many.
const REPEAT_TICKS: u64 = 10;
/// Bound of a neighbour's queue, in frames. Overflow: the frame is dropped, counted; ghosts and effects repeat.
const FRAMES: usize = 64;

/// What a ghost was like when it was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    velocity: (i32, i32),
    health: u32,
    tick: u64,
}

struct Neighbour {
    incarnation: u64,
    frames: mpsc::Sender<PeerFrame>,
    told: HashMap<EntityId, Told>,
    /// Effects and results that go with the next frame.
    next: PeerFrame,
}

pub(crate) struct Neighbours {
    works: Works,
    all: HashMap<String, Neighbour>,
    /// Which neighbour's effect a result answers.
    asked_by: HashMap<EntityId, String>,
}

impl Neighbours {
    pub(crate) fn new(works: Works) -> Self {
        Self { works, all: HashMap::new(), asked_by: HashMap::new() }
    }

    /// Streams to zones that own nothing any more end; new owners get one.
    pub(crate) fn follow(&mut self, table: &Table, me: &InstanceId) {
        let others: Vec<&Sector> = table
            .sectors
            .iter()
            .filter(|sector| {
                sector.zone != me.name && !sector.zone.is_empty() && !sector.grpc_address.is_empty()
            })
            .collect();
        self.all.retain(|name, neighbour| {
            others.iter().any(|sector| sector.zone == *name && sector.incarnation == neighbour.incarnation)
        });
        for sector in others {
            if !self.all.contains_key(&sector.zone) {
                let (frames, receiver) = mpsc::channel(FRAMES);
                self.works.speak_to(&sector.grpc_address, receiver);
                let neighbour = Neighbour {
                    incarnation: sector.incarnation,
                    frames,
                    told: HashMap::new(),
                    next: PeerFrame::default(),
                };
                self.all.insert(sector.zone.clone(), neighbour);
            }
        }
    }

    /// An effect goes to the zone in whose cell the target stands.
    pub(crate) fn effect(&mut self, effect: &Effect, sim: &Sim, table: &Table) {
        let owner = sim.position(effect.target).and_then(|at| table.owner(at.cell()));
        if let Some(neighbour) = owner.and_then(|sector| self.all.get_mut(&sector.zone)) {
            neighbour.next.effects.push(convert::effect(effect));
        }
    }

    /// An avatar of this zone has taken an item from another's ground.
    pub(crate) fn taken(&mut self, item: EntityId, cell: CellId, table: &Table) {
        let owner = table.owner(cell);
        if let Some(neighbour) = owner.and_then(|sector| self.all.get_mut(&sector.zone)) {
            neighbour.next.taken.push(item.0);
        }
    }

    /// A neighbour's avatar has got something for a kill here.
    pub(crate) fn rewarded(&mut self, who: CharacterId) {
        let asked_by = self.asked_by.get(&EntityId::avatar(who));
        if let Some(neighbour) = asked_by.and_then(|name| self.all.get_mut(name)) {
            neighbour.next.rewarded.push(who.0);
        }
    }

    pub(crate) fn result(&mut self, result: &EffectResult) {
        let asked_by = self.asked_by.get(&result.actor);
        if let Some(neighbour) = asked_by.and_then(|name| self.all.get_mut(name)) {
            neighbour.next.results.push(convert::result(result));
        }
    }

    /// Tells each neighbour what stands in or beside its cells.
    pub(crate) fn tell(&mut self, tick: u64, sim: &Sim, table: &Table, me: &InstanceId) {
        if self.all.is_empty() {
            return;
        }
        let ghosts_due = tick.is_multiple_of(TELL_TICKS);
        let seen: Vec<Seen> = if ghosts_due { sim.at_border().collect() } else { Vec::new() };
        let mut near: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for seen in &seen {
            let map = sim.map();
            let mut told: Vec<&str> = Vec::new();
            for cell in seen.state.position.cell().around(1, map.width, map.height) {
                let Some(owner) = table.owner(cell).map(|sector| sector.zone.as_str()) else { continue };
                if owner != me.name && !told.contains(&owner) {
                    told.push(owner);
                    near.entry(owner).or_default().push(seen);
                }
            }
        }
        for (name, neighbour) in &mut self.all {
            if ghosts_due {
                let near = near.remove(name.as_str()).unwrap_or_default();
                neighbour.see(tick, &near);
            }
            neighbour.send(me);
        }
        if tick.is_multiple_of(1_000) {
            self.asked_by.retain(|actor, _| sim.position(*actor).is_some());
        }
    }
}

impl Neighbour {
    fn see(&mut self, tick: u64, near: &[&Seen]) {
        for seen in near {
            let now = Told { velocity: seen.state.velocity, health: seen.state.health, tick };
            let known = self.told.get(&seen.state.entity).is_some_and(|told| {
                *told == Told { tick: told.tick, ..now } && tick < told.tick + REPEAT_TICKS
            });
            if !known {
                self.told.insert(seen.state.entity, now);
                self.next.ghosts.push(convert::ghost(seen));
            }
        }
        if self.told.len() > near.len() {
            let here: std::collections::HashSet<EntityId> =
                near.iter().map(|seen| seen.state.entity).collect();
            let gone: Vec<EntityId> =
                self.told.keys().filter(|entity| !here.contains(entity)).copied().collect();
            for entity in gone {
                self.told.remove(&entity);
                self.next.gone.push(entity.0);
            }
        }
    }

    fn send(&mut self, me: &InstanceId) {
        let PeerFrame { ghosts, gone, effects, results, taken, rewarded, .. } = &self.next;
        let news = ghosts.len() + gone.len() + effects.len() + results.len() + taken.len() + rewarded.len();
        if news == 0 {
            return;
        }
        let frame = PeerFrame { from: Some(me.into()), ..std::mem::take(&mut self.next) };
        match self.frames.try_send(frame) {
            Ok(()) => metrics::peer_frame("out"),
            Err(_) => {
                metrics::dropped("neighbour");
                // What was lost is told again.
                self.told.clear();
            }
        }
    }
}

impl Shard {
    /// What a neighbour says. Malformed ghosts are passed over: the next frame has them again.
    pub(crate) fn peer_frame(&mut self, frame: PeerFrame) {
        metrics::peer_frame("in");
        let from = frame.from.map(|from| from.name).unwrap_or_default();
        for ghost in &frame.ghosts {
            self.ghost(ghost);
        }
        self.inputs.extend(frame.gone.into_iter().map(|entity| Input::GhostGone(EntityId(entity))));
        self.inputs.extend(frame.taken.into_iter().map(|item| Input::Taken(EntityId(item))));
        frame.rewarded.iter().for_each(|&who| self.works.load(who.into()));
        for effect in &frame.effects {
            let effect = convert::effect_in(effect);
            self.neighbours.asked_by.insert(effect.actor, from.clone());
            self.inputs.push(Input::Effect(effect));
        }
        self.inputs
            .extend(frame.results.iter().map(|result| Input::EffectResult(convert::result_in(result))));
    }

    fn ghost(&mut self, ghost: &Ghost) {
        match convert::ghost_state(ghost) {
            Ok(state) => self.inputs.push(Input::Ghost(state)),
            Err(error) => {
                tracing::debug!(%error, "a neighbour's ghost makes no sense");
                metrics::refused("ghost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_sim::{GhostState, Kind};
    use shardkeep_types::{DaemonKind, MapId, Position};

    use super::*;

    fn seen(entity: u64, vx: i32) -> Seen {
        let state = GhostState {
            entity: EntityId(1 << 56 | entity),
            template: 0,
            name: Arc::from("Ann"),
            position: Position::new(MapId(1), 0, 0),
            velocity: (vx, 0),
            health: 100,
            max_health: 100,
        };
        Seen { state, kind: Kind::Avatar, ghost: false }
    }

    fn neighbour() -> (Neighbour, mpsc::Receiver<PeerFrame>) {
        let (frames, receiver) = mpsc::channel(1);
        (Neighbour { incarnation: 1, frames, told: HashMap::new(), next: PeerFrame::default() }, receiver)
    }

    fn me() -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: "zone-1".into(), incarnation: 1 }
    }

    #[test]
    fn a_ghost_is_told_when_it_changes_when_it_is_due_and_when_it_goes() {
        let (mut neighbour, mut frames) = neighbour();
        let mut at = |tick: u64, near: &[&Seen]| {
            neighbour.see(tick, near);
            neighbour.send(&me());
            frames.try_recv().ok().map(|frame| (frame.ghosts.len(), frame.gone.len()))
        };
        let (ann, turned) = (seen(1, 20), seen(1, 40));
        assert_eq!(at(2, &[&ann]), Some((1, 0)));
        assert_eq!(at(4, &[&ann]), None);
        assert_eq!(at(6, &[&turned]), Some((1, 0)));
        assert_eq!(at(16, &[&turned]), Some((1, 0)), "repeated after a while");
        assert_eq!(at(18, &[]), Some((0, 1)));
        assert_eq!(at(20, &[]), None);
    }

    #[test]
    fn a_lost_frame_is_made_good() {
        let (mut neighbour, mut frames) = neighbour();
        neighbour.see(2, &[&seen(1, 0)]);
        neighbour.send(&me());
        neighbour.see(4, &[&seen(1, 0), &seen(2, 0)]);
        neighbour.send(&me()); // the queue is full
        assert_eq!(frames.try_recv().unwrap().ghosts.len(), 1);
        neighbour.see(6, &[&seen(1, 0), &seen(2, 0)]);
        neighbour.send(&me());
        assert_eq!(frames.try_recv().unwrap().ghosts.len(), 2);
    }
}

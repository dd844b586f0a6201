//! Neighbouring zones: ghosts of what stands near a border, and effects across it. Each neighbour is told on a
//! stream of its own; no tick waits for any of them.

use std::collections::HashMap;

use shardkeep_rpc::zone::{Ghost, PeerFrame};
use shardkeep_sim::{Effect, EffectResult, EntityView, Input, Sim};
use shardkeep_types::{CellId, CharacterId, EntityId, InstanceId};
use tokio::sync::mpsc;

use crate::{
    background_calls::BackgroundCalls,
    convert, metrics,
    partition::{Sector, Table},
    shard::Shard,
};

/// Ghosts are told every so many ticks when something about them changed …
const GHOST_TICKS: u64 = 2;
/// … and anyway after so many.
const GHOST_REPEAT_TICKS: u64 = 10;
/// Bound of a neighbour's queue, in frames. Overflow: the frame is dropped, counted; ghosts and effects repeat.
const FRAME_QUEUE: usize = 64;

/// What a ghost was like when it was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SentGhost {
    velocity: (i32, i32),
    health: u32,
    tick: u64,
}

struct Neighbour {
    incarnation: u64,
    frames: mpsc::Sender<PeerFrame>,
    sent: HashMap<EntityId, SentGhost>,
    /// Effects and results that go with the next frame.
    next: PeerFrame,
}

pub(crate) struct NeighbourZones {
    background_calls: BackgroundCalls,
    all: HashMap<String, Neighbour>,
    /// Which neighbour's effect a result answers.
    effect_source: HashMap<EntityId, String>,
}

impl NeighbourZones {
    pub(crate) fn new(background_calls: BackgroundCalls) -> Self {
        Self { background_calls, all: HashMap::new(), effect_source: HashMap::new() }
    }

    /// Streams to zones that own nothing any more end; new owners get one.
    pub(crate) fn update_streams(&mut self, table: &Table, me: &InstanceId) {
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
                let (frames, receiver) = mpsc::channel(FRAME_QUEUE);
                self.background_calls.stream_to_neighbour(&sector.grpc_address, receiver);
                let neighbour = Neighbour {
                    incarnation: sector.incarnation,
                    frames,
                    sent: HashMap::new(),
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
    pub(crate) fn rewarded(&mut self, player: CharacterId) {
        let effect_source = self.effect_source.get(&EntityId::avatar(player));
        if let Some(neighbour) = effect_source.and_then(|name| self.all.get_mut(name)) {
            neighbour.next.rewarded.push(player.0);
        }
    }

    pub(crate) fn result(&mut self, result: &EffectResult) {
        let effect_source = self.effect_source.get(&result.actor);
        if let Some(neighbour) = effect_source.and_then(|name| self.all.get_mut(name)) {
            neighbour.next.results.push(convert::result(result));
        }
    }

    /// Tells each neighbour what stands in or beside its cells.
    pub(crate) fn send_frames(&mut self, tick: u64, sim: &Sim, table: &Table, me: &InstanceId) {
        if self.all.is_empty() {
            return;
        }
        let ghosts_due = tick.is_multiple_of(GHOST_TICKS);
        let seen: Vec<EntityView> = if ghosts_due { sim.at_border().collect() } else { Vec::new() };
        let mut near: HashMap<&str, Vec<&EntityView>> = HashMap::new();
        for seen in &seen {
            let map = sim.map();
            let mut sent: Vec<&str> = Vec::new();
            for cell in seen.state.position.cell().around(1, map.width, map.height) {
                let Some(owner) = table.owner(cell).map(|sector| sector.zone.as_str()) else { continue };
                if owner != me.name && !sent.contains(&owner) {
                    sent.push(owner);
                    near.entry(owner).or_default().push(seen);
                }
            }
        }
        for (name, neighbour) in &mut self.all {
            if ghosts_due {
                let near = near.remove(name.as_str()).unwrap_or_default();
                neighbour.queue_ghosts(tick, &near);
            }
            neighbour.send(me);
        }
        if tick.is_multiple_of(1_000) {
            self.effect_source.retain(|actor, _| sim.position(*actor).is_some());
        }
    }
}

impl Neighbour {
    fn queue_ghosts(&mut self, tick: u64, near: &[&EntityView]) {
        for seen in near {
            let now = SentGhost { velocity: seen.state.velocity, health: seen.state.health, tick };
            let known = self.sent.get(&seen.state.entity).is_some_and(|sent| {
                *sent == SentGhost { tick: sent.tick, ..now } && tick < sent.tick + GHOST_REPEAT_TICKS
            });
            if !known {
                self.sent.insert(seen.state.entity, now);
                self.next.ghosts.push(convert::ghost(seen));
            }
        }
        if self.sent.len() > near.len() {
            let here: std::collections::HashSet<EntityId> =
                near.iter().map(|seen| seen.state.entity).collect();
            let gone: Vec<EntityId> =
                self.sent.keys().filter(|entity| !here.contains(entity)).copied().collect();
            for entity in gone {
                self.sent.remove(&entity);
                self.next.gone.push(entity.0);
            }
        }
    }

    fn send(&mut self, me: &InstanceId) {
        let PeerFrame { ghosts, gone, effects, results, taken, rewarded, .. } = &self.next;
        let pending =
            ghosts.len() + gone.len() + effects.len() + results.len() + taken.len() + rewarded.len();
        if pending == 0 {
            return;
        }
        let frame = PeerFrame { from: Some(me.into()), ..std::mem::take(&mut self.next) };
        match self.frames.try_send(frame) {
            Ok(()) => metrics::peer_frame("out"),
            Err(_) => {
                metrics::dropped("neighbour");
                // What was lost is told again.
                self.sent.clear();
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
        self.inputs.extend(frame.taken.into_iter().map(|item| Input::ItemTaken(EntityId(item))));
        frame.rewarded.iter().for_each(|&player| self.background_calls.load(player.into()));
        for effect in &frame.effects {
            let effect = convert::effect_from_proto(effect);
            self.neighbours.effect_source.insert(effect.actor, from.clone());
            self.inputs.push(Input::Effect(effect));
        }
        self.inputs.extend(
            frame.results.iter().map(|result| Input::EffectResult(convert::result_from_proto(result))),
        );
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

    fn seen(entity: u64, vx: i32) -> EntityView {
        let state = GhostState {
            entity: EntityId(1 << 56 | entity),
            template: 0,
            name: Arc::from("Ann"),
            position: Position::new(MapId(1), 0, 0),
            velocity: (vx, 0),
            health: 100,
            max_health: 100,
        };
        EntityView { state, kind: Kind::Avatar, ghost: false }
    }

    fn neighbour() -> (Neighbour, mpsc::Receiver<PeerFrame>) {
        let (frames, receiver) = mpsc::channel(1);
        (Neighbour { incarnation: 1, frames, sent: HashMap::new(), next: PeerFrame::default() }, receiver)
    }

    fn me() -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: "zone-1".into(), incarnation: 1 }
    }

    #[test]
    fn ghost_is_sent_on_change_on_repeat_and_on_leave() {
        let (mut neighbour, mut frames) = neighbour();
        let mut at = |tick: u64, near: &[&EntityView]| {
            neighbour.queue_ghosts(tick, near);
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
    fn ghosts_of_dropped_frame_are_sent_again() {
        let (mut neighbour, mut frames) = neighbour();
        neighbour.queue_ghosts(2, &[&seen(1, 0)]);
        neighbour.send(&me());
        neighbour.queue_ghosts(4, &[&seen(1, 0), &seen(2, 0)]);
        neighbour.send(&me()); // the queue is full
        assert_eq!(frames.try_recv().unwrap().ghosts.len(), 1);
        neighbour.queue_ghosts(6, &[&seen(1, 0), &seen(2, 0)]);
        neighbour.send(&me());
        assert_eq!(frames.try_recv().unwrap().ghosts.len(), 2);
    }
}

//! Sends neighbouring zones ghosts of the entities near their border, and effects across it. Each neighbour has a
//! separate stream, and no tick waits for one.

use std::collections::HashMap;

use shardkeep_rpc::zone::PeerFrame;
use shardkeep_sim::{Effect, EffectResult, EntityView, Sim};
use shardkeep_types::{CellId, CellRect, CharacterId, EntityId, InstanceId};
use tokio::sync::mpsc;

use crate::{
    background_calls::BackgroundCalls,
    convert, metrics,
    partition::{Sector, Table},
};

/// Entities are sent to the owners of cells at most this far away.
const GHOST_MARGIN: u16 = 1;
/// Interval in ticks between messages with changed ghosts.
const GHOST_TICKS: u64 = 2;
/// Unchanged ghosts are sent again after this many ticks.
const GHOST_REPEAT_TICKS: u64 = 10;
/// Bound of a neighbour's queue, in frames. Overflow: the frame is dropped, counted; ghosts and effects repeat.
const FRAME_QUEUE: usize = 64;

/// The most parts of each kind in a frame. Thousands of items can lie at a border, and a frame must stay below the limit
/// of a message.
const FRAME_PARTS: usize = 4_096;

/// The state of a ghost when it was last sent.
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
    /// The neighbour that sent the last effect of each actor.
    effect_source: HashMap<EntityId, String>,
}

impl NeighbourZones {
    pub(crate) fn new(background_calls: BackgroundCalls) -> Self {
        Self { background_calls, all: HashMap::new(), effect_source: HashMap::new() }
    }

    /// Opens streams to the owners of adjacent sectors, and closes all others. A sector that this zone has just given
    /// away counts as its sector until the next table, because some of its avatars are still here.
    pub(crate) fn update_streams(&mut self, table: &Table, before: &Table, me: &InstanceId) {
        let own: Vec<CellRect> = table.of(me).chain(before.of(me)).map(|sector| sector.cells).collect();
        let others = table.around(&own, GHOST_MARGIN, me);
        let others: Vec<&Sector> = others.filter(|sector| !sector.grpc_address.is_empty()).collect();
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

    /// Queues an effect for the zone that owns the cell of the target.
    pub(crate) fn effect(&mut self, effect: &Effect, sim: &Sim, table: &Table) {
        let owner = sim.position(effect.target).and_then(|at| table.owner(at.cell()));
        if let Some(neighbour) = owner.and_then(|sector| self.all.get_mut(&sector.zone)) {
            neighbour.next.effects.push(convert::effect(effect));
        }
    }

    /// Tells a neighbour that an avatar of this zone has taken an item from its ground.
    pub(crate) fn taken(&mut self, item: EntityId, cell: CellId, table: &Table) {
        let owner = table.owner(cell);
        if let Some(neighbour) = owner.and_then(|sector| self.all.get_mut(&sector.zone)) {
            neighbour.next.taken.push(item.0);
        }
    }

    /// Stores which neighbour sent an effect of this actor, so that the result goes there.
    pub(crate) fn note_effect(&mut self, actor: EntityId, from: &str) {
        self.effect_source.insert(actor, from.to_owned());
    }

    /// Tells a neighbour that the database has rewarded its avatar for a kill in this zone.
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

    /// Sends each neighbour the entities in and next to its cells.
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
            for cell in seen.state.position.cell().around(GHOST_MARGIN, map.width, map.height) {
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

    /// Sends what waits, in frames of at most [`FRAME_PARTS`] parts of each kind.
    fn send(&mut self, me: &InstanceId) {
        let mut rest = std::mem::take(&mut self.next);
        while let Some(frame) = next_frame(&mut rest, me) {
            match self.frames.try_send(frame) {
                Ok(()) => metrics::peer_frame("out"),
                Err(_) => {
                    metrics::dropped("neighbour");
                    // The next frames repeat all ghosts.
                    self.sent.clear();
                    return;
                }
            }
        }
    }
}

/// Takes one frame off the front. `None` when nothing waits.
fn next_frame(rest: &mut PeerFrame, me: &InstanceId) -> Option<PeerFrame> {
    fn take<T>(rest: &mut Vec<T>) -> Vec<T> {
        rest.drain(..rest.len().min(FRAME_PARTS)).collect()
    }
    let frame = PeerFrame {
        from: Some(me.into()),
        ghosts: take(&mut rest.ghosts),
        gone: take(&mut rest.gone),
        effects: take(&mut rest.effects),
        results: take(&mut rest.results),
        taken: take(&mut rest.taken),
        rewarded: take(&mut rest.rewarded),
    };
    let PeerFrame { ghosts, gone, effects, results, taken, rewarded, .. } = &frame;
    let lengths = [ghosts.len(), gone.len(), effects.len(), results.len(), taken.len(), rewarded.len()];
    lengths.iter().any(|length| *length > 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_sim::{GhostState, Kind};
    use shardkeep_types::{DaemonKind, Position, SpaceId};

    use super::*;

    fn seen(entity: u64, vx: i32) -> EntityView {
        let state = GhostState {
            entity: EntityId(1 << 56 | entity),
            template: 0,
            name: Arc::from("Ann"),
            position: Position::flat(SpaceId(1), 0, 0),
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

    #[test]
    fn many_ghosts_are_sent_in_several_frames() {
        let (frames, mut receiver) = mpsc::channel(8);
        let mut neighbour =
            Neighbour { incarnation: 1, frames, sent: HashMap::new(), next: PeerFrame::default() };
        let many: Vec<EntityView> = (1..=10_000).map(|entity| seen(entity, 0)).collect();
        neighbour.queue_ghosts(2, &many.iter().collect::<Vec<_>>());
        neighbour.send(&me());
        let sizes: Vec<usize> =
            std::iter::from_fn(|| receiver.try_recv().ok()).map(|frame| frame.ghosts.len()).collect();
        assert_eq!(sizes, [4_096, 4_096, 1_808]);
    }
}

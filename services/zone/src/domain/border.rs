//! News for neighbouring zones: ghosts of the entities near their border, and effects across it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use shardkeep_sim::{EffectResult, EntityView, Sim};
use shardkeep_types::{CellId, CellRect, CharacterId, EntityId, InstanceId, SpaceId};

use crate::domain::{
    effect::Effect,
    partition::{Sector, Table},
    payload::Frame,
};

/// Entities are sent to the owners of cells at most this far away.
const GHOST_MARGIN: u16 = 1;
/// Zones with sectors at most this many cells away are neighbours. Creatures walk up to 45 m from their homes, and act
/// 20 m around them.
const NEIGHBOUR_MARGIN: u16 = 3;
/// How long the interest of a neighbour lasts, in ticks. Each of its frames renews it.
const INTEREST_TICKS: u64 = 20;
/// Interval in ticks between messages with changed ghosts.
const GHOST_TICKS: u64 = 2;
/// Unchanged ghosts are sent again after this many ticks.
const GHOST_REPEAT_TICKS: u64 = 10;
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

#[derive(Debug, Default)]
struct Neighbour {
    incarnation: u64,
    sent: HashMap<EntityId, SentGhost>,
    /// News that goes with the next frame.
    next: Frame,
    /// Cells around which the neighbour needs to know everything, until this tick.
    interest: BTreeSet<CellId>,
    interest_until: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Border {
    neighbours: BTreeMap<String, Neighbour>,
    /// The neighbour that sent the last effect of each actor.
    effect_source: HashMap<EntityId, String>,
    /// The neighbour that simulates each ghost. Its avatars and creatures may stand in cells of any zone.
    ghost_source: HashMap<EntityId, String>,
}

impl Border {
    /// Opens streams to the owners of adjacent sectors, and closes all others. A sector that this zone has just given
    /// away counts as its sector until the next table, because some of its avatars are still here.
    pub(crate) fn update_neighbours(
        &mut self,
        table: &Table,
        before: &Table,
        me: &InstanceId,
        space: SpaceId,
    ) -> Vec<Effect> {
        let sectors = table.of(me, space).chain(before.of(me, space));
        let own: Vec<CellRect> = sectors.map(|sector| sector.cells).collect();
        let others =
            table.around(&own, NEIGHBOUR_MARGIN, me).filter(|sector| !sector.grpc_address.is_empty());
        let others: BTreeMap<&str, &Sector> = others.map(|sector| (sector.zone.as_str(), sector)).collect();
        let mut effects = Vec::new();
        self.neighbours.retain(|name, neighbour| {
            let stays = others.get(name.as_str()).is_some_and(|it| it.incarnation == neighbour.incarnation);
            if !stays {
                effects.push(Effect::CloseNeighbour { zone: name.clone() });
            }
            stays
        });
        for (name, sector) in others {
            if !self.neighbours.contains_key(name) {
                let (zone, grpc_address) = (name.to_owned(), sector.grpc_address.clone());
                effects.push(Effect::OpenNeighbour { zone, grpc_address });
                let neighbour = Neighbour { incarnation: sector.incarnation, ..Neighbour::default() };
                self.neighbours.insert(name.to_owned(), neighbour);
            }
        }
        effects
    }

    /// Queues an effect for the zone that simulates the target.
    pub(crate) fn effect(&mut self, effect: &shardkeep_sim::Effect) {
        let source = self.ghost_source.get(&effect.target);
        if let Some(neighbour) = source.and_then(|zone| self.neighbours.get_mut(zone)) {
            neighbour.next.effects.push(*effect);
        }
    }

    /// Tells a neighbour that its ground has changed.
    pub(crate) fn ground_stale(&mut self, cell: CellId, table: &Table) {
        let owner = table.owner(cell);
        if let Some(neighbour) = owner.and_then(|sector| self.neighbours.get_mut(&sector.zone)) {
            neighbour.next.stale.push(cell);
        }
    }

    /// Stores who simulates these ghosts, and around which cells the sender needs ghosts.
    pub(crate) fn note_frame(&mut self, from: &str, ghosts: &[EntityView], interest: Vec<CellId>, tick: u64) {
        for ghost in ghosts {
            match self.ghost_source.get_mut(&ghost.state.entity) {
                Some(source) if source == from => {}
                Some(source) => from.clone_into(source),
                None => {
                    self.ghost_source.insert(ghost.state.entity, from.to_owned());
                }
            }
        }
        if let Some(neighbour) = self.neighbours.get_mut(from)
            && !interest.is_empty()
        {
            neighbour.interest = interest.into_iter().collect();
            neighbour.interest_until = tick + INTEREST_TICKS;
        }
    }

    /// Tells a neighbour that an avatar of this zone has taken an item from its ground.
    pub(crate) fn taken(&mut self, item: EntityId, cell: CellId, table: &Table) {
        let owner = table.owner(cell);
        if let Some(neighbour) = owner.and_then(|sector| self.neighbours.get_mut(&sector.zone)) {
            neighbour.next.taken.push(item);
        }
    }

    /// Stores which neighbour sent an effect of this actor, so that the result goes there.
    pub(crate) fn note_effect(&mut self, actor: EntityId, from: &str) {
        self.effect_source.insert(actor, from.to_owned());
    }

    /// Tells a neighbour that the database has rewarded its avatar for a kill in this zone.
    pub(crate) fn rewarded(&mut self, player: CharacterId) {
        if let Some(neighbour) = self.source_of(EntityId::avatar(player)) {
            neighbour.next.rewarded.push(player);
        }
    }

    pub(crate) fn result(&mut self, result: &EffectResult) {
        if let Some(neighbour) = self.source_of(result.actor) {
            neighbour.next.results.push(*result);
        }
    }

    fn source_of(&mut self, actor: EntityId) -> Option<&mut Neighbour> {
        self.neighbours.get_mut(self.effect_source.get(&actor)?)
    }

    /// A neighbour did not get a frame. The next frames contain all ghosts again, and the lost news.
    pub(crate) fn frames_lost(&mut self, zone: &str, lost: Frame) {
        if let Some(neighbour) = self.neighbours.get_mut(zone) {
            neighbour.sent.clear();
            neighbour.next.taken.extend(lost.taken);
            neighbour.next.rewarded.extend(lost.rewarded);
            neighbour.next.stale.extend(lost.stale);
        }
    }

    /// The frames of this tick: for each neighbour the entities in and next to its cells.
    pub(crate) fn frames(&mut self, tick: u64, sim: &Sim, table: &Table, me: &InstanceId) -> Vec<Effect> {
        if self.neighbours.is_empty() {
            return Vec::new();
        }
        let ghosts_due = tick.is_multiple_of(GHOST_TICKS);
        let current = self.neighbours.values().filter(|neighbour| tick < neighbour.interest_until);
        let interest: BTreeSet<CellId> = current.flat_map(|it| it.interest.iter().copied()).collect();
        let seen: Vec<EntityView> = if ghosts_due { sim.at_border(&interest).collect() } else { Vec::new() };
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
        let mut wanted: BTreeMap<&str, Vec<CellId>> = BTreeMap::new();
        for cell in if ghosts_due { sim.cells_around_outsiders() } else { BTreeSet::new() } {
            if let Some(owner) = table.owner(cell).filter(|owner| owner.zone != me.name) {
                wanted.entry(&owner.zone).or_default().push(cell);
            }
        }
        let mut effects = Vec::new();
        for (name, neighbour) in &mut self.neighbours {
            if ghosts_due {
                neighbour.next.interest = wanted.remove(name.as_str()).unwrap_or_default();
                let mut near = near.remove(name.as_str()).unwrap_or_default();
                if tick < neighbour.interest_until {
                    let known: HashSet<EntityId> = near.iter().map(|seen| seen.state.entity).collect();
                    near.extend(seen.iter().filter(|seen| {
                        let wanted = neighbour.interest.contains(&seen.state.position.cell());
                        wanted && !known.contains(&seen.state.entity)
                    }));
                }
                neighbour.queue_ghosts(tick, &near);
            }
            let frames = std::iter::from_fn(|| next_frame(&mut neighbour.next));
            effects.extend(frames.map(|frame| Effect::Frame { zone: name.clone(), frame }));
        }
        if tick.is_multiple_of(1_000) {
            self.effect_source.retain(|actor, _| sim.position(*actor).is_some());
            self.ghost_source.retain(|ghost, _| sim.position(*ghost).is_some());
        }
        effects
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
                self.next.ghosts.push((*seen).clone());
            }
        }
        if self.sent.len() > near.len() {
            let here: HashSet<EntityId> = near.iter().map(|seen| seen.state.entity).collect();
            let gone = self.sent.keys().filter(|entity| !here.contains(entity)).copied();
            let mut gone: Vec<EntityId> = gone.collect();
            // The order must not depend on the hash function.
            gone.sort_unstable();
            for entity in gone {
                self.sent.remove(&entity);
                self.next.gone.push(entity);
            }
        }
    }
}

/// Takes one frame off the front. `None` when nothing waits.
fn next_frame(rest: &mut Frame) -> Option<Frame> {
    fn take<T>(rest: &mut Vec<T>) -> Vec<T> {
        rest.drain(..rest.len().min(FRAME_PARTS)).collect()
    }
    let frame = Frame {
        ghosts: take(&mut rest.ghosts),
        gone: take(&mut rest.gone),
        effects: take(&mut rest.effects),
        results: take(&mut rest.results),
        taken: take(&mut rest.taken),
        rewarded: take(&mut rest.rewarded),
        interest: take(&mut rest.interest),
        stale: take(&mut rest.stale),
    };
    (frame != Frame::default()).then_some(frame)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_sim::{GhostState, Kind};
    use shardkeep_types::{DaemonKind, Position, SpaceId};

    use super::*;
    use crate::domain::partition::Sectors;

    fn seen(entity: u64, vx: i32) -> EntityView {
        let state = GhostState {
            entity: EntityId::avatar(CharacterId(entity)),
            template: 0,
            name: Arc::from("Ann"),
            position: Position::flat(SpaceId(1), 0, 0),
            velocity: (vx, 0),
            health: 100,
            max_health: 100,
        };
        EntityView { state, kind: Kind::Avatar, ghost: false }
    }

    fn frames(neighbour: &mut Neighbour) -> Vec<(usize, usize)> {
        let frames = std::iter::from_fn(|| next_frame(&mut neighbour.next));
        frames.map(|frame| (frame.ghosts.len(), frame.gone.len())).collect()
    }

    #[test]
    fn ghost_is_sent_on_change_on_repeat_and_on_leave() {
        let mut neighbour = Neighbour::default();
        let mut at = |tick: u64, near: &[&EntityView]| {
            neighbour.queue_ghosts(tick, near);
            frames(&mut neighbour)
        };
        let (ann, turned) = (seen(1, 20), seen(1, 40));
        assert_eq!(at(2, &[&ann]), [(1, 0)]);
        assert_eq!(at(4, &[&ann]), []);
        assert_eq!(at(6, &[&turned]), [(1, 0)]);
        assert_eq!(at(16, &[&turned]), [(1, 0)], "repeated after a while");
        assert_eq!(at(18, &[]), [(0, 1)]);
        assert_eq!(at(20, &[]), []);
    }

    #[test]
    fn ghosts_of_lost_frame_are_sent_again() {
        let mut border = Border::default();
        border.neighbours.insert("zone-2".into(), Neighbour::default());
        let queue = |border: &mut Border, tick: u64| {
            let neighbour = border.neighbours.get_mut("zone-2").unwrap();
            neighbour.queue_ghosts(tick, &[&seen(1, 0), &seen(2, 0)]);
            frames(neighbour)
        };
        assert_eq!(queue(&mut border, 2), [(2, 0)]);
        assert_eq!(queue(&mut border, 4), []);
        let lost = Frame { stale: vec![CellId { space: SpaceId(1), x: 1, y: 1 }], ..Frame::default() };
        border.frames_lost("zone-2", lost.clone());
        assert_eq!(border.neighbours["zone-2"].next, lost, "what does not repeat itself is sent again");
        assert_eq!(queue(&mut border, 6), [(2, 0)]);
    }

    #[test]
    fn many_ghosts_are_sent_in_several_frames() {
        let mut neighbour = Neighbour::default();
        let many: Vec<EntityView> = (1..=10_000).map(|entity| seen(entity, 0)).collect();
        neighbour.queue_ghosts(2, &many.iter().collect::<Vec<_>>());
        let sizes: Vec<usize> = frames(&mut neighbour).into_iter().map(|(ghosts, _)| ghosts).collect();
        assert_eq!(sizes, [4_096, 4_096, 1_808]);
    }

    #[test]
    fn streams_open_to_new_owners_and_close_with_their_incarnation() {
        let me = InstanceId { kind: DaemonKind::Zone, name: "zone-1".into(), incarnation: 1 };
        let sector = |zone: &str, incarnation, x0| Sector {
            cells: CellRect { space: SpaceId(1), x0, y0: 0, x1: x0 + 1, y1: 1 },
            zone: zone.into(),
            incarnation,
            epoch: 1,
            grpc_address: "somewhere".into(),
        };
        let table = |incarnation| Table {
            sectors: Sectors::from_iter([
                sector("zone-1", 1, 0),
                sector("zone-2", incarnation, 1),
                sector("zone-2", incarnation, 2),
            ]),
            ..Table::default()
        };
        let mut border = Border::default();
        let names = |effects: &[Effect]| -> Vec<String> {
            effects.iter().map(|effect| format!("{effect:?}")).collect()
        };
        let opened = names(&border.update_neighbours(&table(7), &Table::default(), &me, SpaceId(1)));
        assert!(opened.len() == 1 && opened[0].starts_with("OpenNeighbour"), "{opened:?}");
        assert!(border.update_neighbours(&table(7), &Table::default(), &me, SpaceId(1)).is_empty());
        let reopened = names(&border.update_neighbours(&table(8), &table(7), &me, SpaceId(1)));
        assert!(
            reopened[0].starts_with("CloseNeighbour") && reopened[1].starts_with("OpenNeighbour"),
            "{reopened:?}"
        );
    }
}

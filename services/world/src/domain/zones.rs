//! The zones of the world, and the partition of the map among them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shardkeep_types::{CellId, CellRect, InstanceId, SpaceId, Term};

use crate::domain::{
    effect::Effect,
    partition::Partition,
    zone::{Health, ZoneView},
};

/// How long a zone may be disconnected from the world before it counts as dead, even if the registry lists it as up.
const DISCONNECT_GRACE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(crate) struct Zones {
    /// Side of the map in cells.
    side: u16,
    sectors: u16,
    /// The table of the present term.
    partition: Option<Partition>,
    /// The zones of the registry; disconnected ones are marked gone.
    all: Vec<ZoneView>,
    registered: Vec<ZoneView>,
    streams: HashMap<InstanceId, u64>,
    disconnected_since: HashMap<InstanceId, Instant>,
}

impl Zones {
    pub(crate) fn new(side: u16, sectors: u16) -> Self {
        Self { side, sectors, ..Self::default() }
    }

    pub(crate) fn begin_term(&mut self, now: Instant) -> Vec<Effect> {
        self.partition = Some(Partition::new(SpaceId::FIRST, self.side, self.side, self.sectors, now));
        [vec![Effect::Partition], self.update(now)].concat()
    }

    pub(crate) fn end_term(&mut self) {
        self.partition = None;
        self.disconnected_since.clear();
    }

    /// Updates the registry's view of this world's zones.
    pub(crate) fn set_registered(&mut self, zones: Vec<ZoneView>) {
        self.registered = zones;
    }

    /// A zone has opened its stream of reports.
    pub(crate) fn connected(&mut self, zone: &InstanceId, stream: u64) {
        self.streams.insert(zone.clone(), stream);
        self.disconnected_since.remove(zone);
    }

    /// A stream has ended. A stream that another one has replaced is ignored.
    pub(crate) fn disconnected(&mut self, now: Instant, zone: &InstanceId, stream: u64) {
        if self.streams.get(zone) == Some(&stream) {
            self.streams.remove(zone);
            self.disconnected_since.insert(zone.clone(), now);
        }
    }

    /// Adapts the partition to the zones that are alive. Call this several times per second.
    pub(crate) fn update(&mut self, now: Instant) -> Vec<Effect> {
        let registered = &self.registered;
        self.disconnected_since.retain(|id, _| registered.iter().any(|zone| zone.id() == id));
        self.all.clone_from(registered);
        for zone in &mut self.all {
            let since = self.disconnected_since.get(zone.id());
            if since.is_some_and(|&since| now.saturating_duration_since(since) >= DISCONNECT_GRACE) {
                zone.mark_gone();
            }
        }
        let step = self.partition.as_mut().map(|partition| partition.update(now, &self.all));
        step.unwrap_or_default().into_effects().collect()
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&ZoneView> {
        self.all.iter().find(|zone| zone.id() == id)
    }

    pub(crate) fn is_alive(&self, id: &InstanceId) -> bool {
        self.get(id).is_some_and(|zone| !zone.is(Health::Gone))
    }

    pub(crate) fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    pub(crate) fn view(&self, lease: Option<(Term, Instant)>) -> View {
        let sectors = self.partition.iter().flat_map(Partition::sectors);
        let sectors = sectors.map(|(cells, owner, _)| (cells, owner.cloned())).collect();
        View { lease, sectors, zones: self.all.clone() }
    }
}

/// A copy for tasks: the lease, the table and the zones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// The term and the end of its lease, which is in the past during a pause. `None` for a standby.
    lease: Option<(Term, Instant)>,
    sectors: Vec<(CellRect, Option<InstanceId>)>,
    zones: Vec<ZoneView>,
}

impl View {
    /// The term of this instance, which may be paused.
    pub(crate) fn held_term(&self) -> Option<Term> {
        self.lease.map(|(term, _)| term)
    }

    /// The term under which commands may be issued now.
    pub(crate) fn term(&self, now: Instant) -> Option<Term> {
        self.lease.filter(|&(_, until)| now < until).map(|(term, _)| term)
    }

    /// The living zone with that name and incarnation.
    pub(crate) fn live_zone(&self, name: &str, incarnation: u64) -> Option<&ZoneView> {
        let is = |zone: &&ZoneView| zone.id().name == name && zone.id().incarnation == incarnation;
        self.zones.iter().filter(|zone| !zone.is(Health::Gone)).find(is)
    }

    /// The living zone that owns the cell. Positions outside of all sectors belong to the nearest sector.
    pub(crate) fn zone_of(&self, cell: CellId) -> Option<&ZoneView> {
        let distance = |rect: &CellRect| {
            let axis = |at: u16, from: u16, to: u16| {
                u32::from(from.saturating_sub(at)) + u32::from(at.saturating_sub(to.saturating_sub(1)))
            };
            axis(cell.x, rect.x0, rect.x1) + axis(cell.y, rect.y0, rect.y1)
        };
        let (_, owner) = self.sectors.iter().min_by_key(|(rect, _)| distance(rect))?;
        let owner = owner.as_ref()?;
        self.live_zone(&owner.name, owner.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::zone::fixture::{owner, zone};

    fn rect(x0: u16, x1: u16) -> CellRect {
        CellRect { space: SpaceId::FIRST, x0, y0: 0, x1, y1: 32 }
    }

    #[test]
    fn zone_of_finds_live_owner_of_nearest_sector() {
        let view = View {
            lease: None,
            sectors: vec![(rect(0, 16), Some(owner("a", 1))), (rect(16, 32), Some(owner("b", 1)))],
            zones: vec![zone("a", 1, Health::Up), zone("b", 1, Health::Gone)],
        };
        let at =
            |x| view.zone_of(CellId { space: SpaceId::FIRST, x, y: 40 }).map(|zone| zone.id().name.as_str());
        assert_eq!((at(0), at(15), at(16), at(99)), (Some("a"), Some("a"), None, None));
    }

    #[test]
    fn term_ends_with_lease() {
        let now = Instant::now();
        let view = View { lease: Some((Term(2), now + Duration::from_secs(1))), ..View::default() };
        assert_eq!(view.term(now), Some(Term(2)));
        assert_eq!(view.term(now + Duration::from_secs(1)), None);
        assert_eq!(View::default().term(now), None);
    }
}

//! A copy of the world's state for tasks: the lease, the table and the zones.

use std::time::Instant;

use shardkeep_types::{CellId, CellRect, InstanceId, Term};

use crate::domain::zone::{Health, ZoneView};

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// The term and the end of its lease, which is in the past during a pause. `None` for a standby.
    lease: Option<(Term, Instant)>,
    sectors: Vec<(CellRect, Option<InstanceId>)>,
    zones: Vec<ZoneView>,
}

impl View {
    pub(crate) fn new(
        lease: Option<(Term, Instant)>,
        sectors: Vec<(CellRect, Option<InstanceId>)>,
        zones: Vec<ZoneView>,
    ) -> Self {
        Self { lease, sectors, zones }
    }

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
    use std::time::Duration;

    use shardkeep_types::{DaemonKind, MapId};

    use super::*;

    fn zone(name: &str, health: Health) -> ZoneView {
        ZoneView::new(owner(name), health, String::new())
    }

    fn owner(name: &str) -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: name.into(), incarnation: 1 }
    }

    fn rect(x0: u16, x1: u16) -> CellRect {
        CellRect { map: MapId(1), x0, y0: 0, x1, y1: 32 }
    }

    #[test]
    fn zone_of_finds_live_owner_of_nearest_sector() {
        let view = View {
            lease: None,
            sectors: vec![(rect(0, 16), Some(owner("a"))), (rect(16, 32), Some(owner("b")))],
            zones: vec![zone("a", Health::Up), zone("b", Health::Gone)],
        };
        let at = |x| view.zone_of(CellId { map: MapId(1), x, y: 40 }).map(|zone| zone.id().name.as_str());
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

//! The partition: the owner of each sector, as the world publishes it. A table of an older term or epoch is refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use shardkeep_sim::Map;
use shardkeep_types::{CellId, CellRect, Epoch, InstanceId, Layer, Position, SpaceId, Term};

use crate::domain::payload::Destination;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sector {
    pub(crate) cells: CellRect,
    /// Empty when no zone owns the sector.
    pub(crate) zone: String,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) grpc_address: String,
}

/// An instance of a map, as the world describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceInfo {
    pub(crate) map: String,
    /// Its avatars have to leave.
    pub(crate) closing: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) term: Term,
    pub(crate) epoch: u64,
    pub(crate) sectors: Vec<Sector>,
    pub(crate) spaces: BTreeMap<SpaceId, SpaceInfo>,
    /// The zones that are not dead, with their addresses.
    pub(crate) alive: BTreeMap<ZoneName, String>,
}

/// Name and incarnation of a zone.
pub(crate) type ZoneName = (String, u64);

impl Table {
    /// Whether this table replaces `other`. The world may announce one epoch again with further addresses.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        let (version, other_version) = ((self.term, self.epoch), (other.term, other.epoch));
        version > other_version || version == other_version && self != other
    }

    pub(crate) fn owner(&self, cell: CellId) -> Option<&Sector> {
        self.sectors.iter().find(|sector| sector.cells.contains(cell) && !sector.zone.is_empty())
    }

    /// The space and zone that own a cell, if the zone can be called.
    pub(crate) fn destination(&self, cell: CellId) -> Option<Destination> {
        let owner = self.owner(cell).filter(|sector| !sector.grpc_address.is_empty())?;
        Some(Destination {
            space: cell.space,
            name: owner.zone.clone(),
            incarnation: owner.incarnation,
            grpc_address: owner.grpc_address.clone(),
        })
    }

    /// The zone that keeps the snapshots of a zone: the next one that is alive. `None`: there is no other.
    pub(crate) fn buddy(&self, me: &InstanceId, space: SpaceId) -> Option<Destination> {
        let me = (me.name.clone(), me.incarnation);
        let next = self.alive.range((Bound::Excluded(&me), Bound::Unbounded)).next();
        let ((name, incarnation), address) = next.or_else(|| self.alive.first_key_value())?;
        (*name != me.0 && !address.is_empty()).then(|| Destination {
            space,
            name: name.clone(),
            incarnation: *incarnation,
            grpc_address: address.clone(),
        })
    }

    /// The sectors of a zone in one space.
    pub(crate) fn of<'a>(&'a self, me: &'a InstanceId, space: SpaceId) -> impl Iterator<Item = &'a Sector> {
        self.owned_by(me).filter(move |sector| sector.cells.space == space)
    }

    /// The spaces in which a zone has a sector.
    pub(crate) fn spaces_of(&self, me: &InstanceId) -> BTreeSet<SpaceId> {
        self.owned_by(me).map(|sector| sector.cells.space).collect()
    }

    fn owned_by<'a>(&'a self, me: &'a InstanceId) -> impl Iterator<Item = &'a Sector> {
        self.sectors.iter().filter(|sector| sector.zone == me.name && sector.incarnation == me.incarnation)
    }

    /// The sectors of other zones with a cell at most `margin` cells away from these rectangles.
    pub(crate) fn around<'a>(
        &'a self,
        cells: &'a [CellRect],
        margin: u16,
        me: &'a InstanceId,
    ) -> impl Iterator<Item = &'a Sector> {
        let is_near = move |sector: &&Sector| {
            let distances = cells.iter().filter_map(|own| own.distance(&sector.cells));
            distances.min().is_some_and(|distance| distance <= margin)
        };
        let others = self.sectors.iter().filter(|sector| sector.zone != me.name && !sector.zone.is_empty());
        others.filter(is_near)
    }

    /// Where avatars of closing spaces go: the start of space 1.
    pub(crate) fn exit(&self) -> Option<Position> {
        let map = Map::named(&self.spaces.get(&SpaceId::FIRST)?.map)?;
        Some(map.start.in_space(SpaceId::FIRST, Layer::default()))
    }

    /// The publishing epoch of each cell of this zone in one space. It begins with the term, so that every epoch of a
    /// later term is higher than those of an earlier term.
    pub(crate) fn cell_epochs(&self, me: &InstanceId, space: SpaceId) -> HashMap<CellId, Epoch> {
        self.of(me, space)
            .flat_map(|sector| {
                let epoch = Epoch(self.term.0 << 32 | sector.epoch & 0xffff_ffff);
                sector.cells.cells().map(move |cell| (cell, epoch))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::DaemonKind;

    use super::*;

    fn me(incarnation: u64) -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: "zone-1".into(), incarnation }
    }

    fn table(term: u64, epoch: u64) -> Table {
        let cells = CellRect { space: SpaceId(1), x0: 0, y0: 0, x1: 2, y1: 1 };
        let sector =
            Sector { cells, zone: "zone-1".into(), incarnation: 5, epoch: 3, grpc_address: String::new() };
        Table { term: Term(term), epoch, sectors: vec![sector], ..Table::default() }
    }

    #[test]
    fn neighbours_are_the_owners_of_adjacent_sectors() {
        let sector = |zone: &str, x0| Sector {
            cells: CellRect { space: SpaceId(1), x0, y0: 0, x1: x0 + 2, y1: 2 },
            zone: zone.into(),
            ..table(1, 1).sectors.remove(0)
        };
        let sectors = vec![sector("zone-1", 0), sector("zone-2", 2), sector("", 2), sector("zone-3", 4)];
        let table = Table { sectors, ..Table::default() };
        let own = [table.sectors[0].cells];
        let names = |cells: &[CellRect], margin| -> Vec<String> {
            table.around(cells, margin, &me(5)).map(|sector| sector.zone.clone()).collect()
        };
        assert_eq!(names(&own, 1), ["zone-2"]);
        assert_eq!(names(&own, 3), ["zone-2", "zone-3"]);
        assert!(names(&[], 1).is_empty());
    }

    #[test]
    fn buddy_is_the_next_zone_that_is_alive() {
        let alive = |names: &[&str]| Table {
            alive: names.iter().map(|name| (((*name).to_owned(), 5), (*name).to_owned())).collect(),
            ..Table::default()
        };
        let buddy = |names| alive(names).buddy(&me(5), SpaceId(1)).map(|buddy| buddy.name);
        assert_eq!(buddy(&["zone-0", "zone-1", "zone-2"]).as_deref(), Some("zone-2"));
        assert_eq!(buddy(&["zone-0", "zone-1"]).as_deref(), Some("zone-0"));
        assert_eq!(buddy(&["zone-1"]), None);
        assert_eq!(buddy(&[]), None);
    }

    #[test]
    fn later_term_beats_higher_epoch() {
        assert!(table(2, 1).is_newer_than(&table(1, 9)));
        assert!(!table(1, 9).is_newer_than(&table(2, 1)));
        assert!(!table(2, 1).is_newer_than(&table(2, 1)));
        let mut with_address = table(2, 1);
        with_address.sectors[0].grpc_address = "zone-1:7000".into();
        assert!(with_address.is_newer_than(&table(2, 1)));
    }

    #[test]
    fn cells_belong_to_matching_incarnation_only() {
        assert_eq!(table(1, 1).of(&me(5), SpaceId(1)).count(), 1);
        assert_eq!(table(1, 1).of(&me(6), SpaceId(1)).count(), 0);
        assert_eq!(table(1, 1).of(&me(5), SpaceId(2)).count(), 0);
        assert_eq!(table(1, 1).spaces_of(&me(5)), BTreeSet::from([SpaceId(1)]));
        let epochs = table(2, 1).cell_epochs(&me(5), SpaceId(1));
        assert_eq!(epochs[&CellId { space: SpaceId(1), x: 1, y: 0 }], Epoch(2 << 32 | 3));
    }
}

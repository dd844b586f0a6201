//! The partition: the owner of each sector, as the world publishes it. A table of an older term or epoch is refused.

use std::collections::HashMap;

use shardkeep_types::{CellId, CellRect, Epoch, InstanceId, Term};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sector {
    pub(crate) cells: CellRect,
    /// Empty when no zone owns the sector.
    pub(crate) zone: String,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) grpc_address: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) term: Term,
    pub(crate) epoch: u64,
    pub(crate) sectors: Vec<Sector>,
}

impl Table {
    /// Whether this table replaces `other`.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        (self.term, self.epoch) > (other.term, other.epoch)
    }

    pub(crate) fn owner(&self, cell: CellId) -> Option<&Sector> {
        self.sectors.iter().find(|sector| sector.cells.contains(cell) && !sector.zone.is_empty())
    }

    pub(crate) fn of<'a>(&'a self, me: &'a InstanceId) -> impl Iterator<Item = &'a Sector> {
        self.sectors.iter().filter(|sector| sector.zone == me.name && sector.incarnation == me.incarnation)
    }

    /// The publishing epoch of each cell of this zone. It begins with the term, so that every epoch of a later term
    /// is higher than those of an earlier term.
    pub(crate) fn cell_epochs(&self, me: &InstanceId) -> HashMap<CellId, Epoch> {
        self.of(me)
            .flat_map(|sector| {
                let epoch = Epoch(self.term.0 << 32 | sector.epoch & 0xffff_ffff);
                sector.cells.cells().map(move |cell| (cell, epoch))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{DaemonKind, SpaceId};

    use super::*;

    fn me(incarnation: u64) -> InstanceId {
        InstanceId { kind: DaemonKind::Zone, name: "zone-1".into(), incarnation }
    }

    fn table(term: u64, epoch: u64) -> Table {
        let cells = CellRect { space: SpaceId(1), x0: 0, y0: 0, x1: 2, y1: 1 };
        let sector =
            Sector { cells, zone: "zone-1".into(), incarnation: 5, epoch: 3, grpc_address: String::new() };
        Table { term: Term(term), epoch, sectors: vec![sector] }
    }

    #[test]
    fn later_term_beats_higher_epoch() {
        assert!(table(2, 1).is_newer_than(&table(1, 9)));
        assert!(!table(1, 9).is_newer_than(&table(2, 1)));
        assert!(!table(2, 1).is_newer_than(&table(2, 1)));
    }

    #[test]
    fn cells_belong_to_matching_incarnation_only() {
        assert_eq!(table(1, 1).of(&me(5)).count(), 1);
        assert_eq!(table(1, 1).of(&me(6)).count(), 0);
        let epochs = table(2, 1).cell_epochs(&me(5));
        assert_eq!(epochs[&CellId { space: SpaceId(1), x: 1, y: 0 }], Epoch(2 << 32 | 3));
    }
}

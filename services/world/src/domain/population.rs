//! Counts the avatars in each sector and each space. The counts are the load that assignment balances, and they show
//! when a migration has ended.

use std::collections::{BTreeMap, HashMap};

use shardkeep_types::{CellId, InstanceId, SectorId, SpaceId};

use crate::domain::layout::Layout;

/// The weight of a sector without avatars, in avatars. A few avatars more or less then move no sector.
const SECTOR_WEIGHT: u64 = 25;

#[derive(Debug, Default)]
pub(crate) struct Population {
    /// Avatars by sector, and by the zone that has them.
    sectors: BTreeMap<SectorId, BTreeMap<InstanceId, u32>>,
    spaces: BTreeMap<SpaceId, u32>,
}

impl Population {
    /// `avatars`: the cell and the zone of each.
    pub(crate) fn count<'a>(
        layout: &Layout,
        avatars: impl Iterator<Item = (CellId, &'a InstanceId)>,
    ) -> Self {
        let mut cells: HashMap<(CellId, &InstanceId), u32> = HashMap::new();
        for avatar in avatars {
            *cells.entry(avatar).or_default() += 1;
        }
        let mut counted = Self::default();
        for ((cell, zone), count) in cells {
            *counted.spaces.entry(cell.space).or_default() += count;
            if let Some(sector) = layout.sector_at(cell) {
                let zones = counted.sectors.entry(sector.id()).or_default();
                *zones.entry(zone.clone()).or_default() += count;
            }
        }
        counted
    }

    pub(crate) fn avatars_in(&self, sector: SectorId) -> u32 {
        self.sectors.get(&sector).map_or(0, |zones| zones.values().sum())
    }

    pub(crate) fn avatars_in_space(&self, space: SpaceId) -> u32 {
        self.spaces.get(&space).copied().unwrap_or_default()
    }

    /// Whether this zone has avatars in the sector.
    pub(crate) fn has_avatars(&self, zone: &InstanceId, sector: SectorId) -> bool {
        self.sectors.get(&sector).is_some_and(|zones| zones.contains_key(zone))
    }

    /// The load of a sector, in avatars.
    pub(crate) fn weight(&self, sector: SectorId) -> u64 {
        SECTOR_WEIGHT + u64::from(self.avatars_in(sector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{layout::fixture::meadow, zone::fixture::owner};

    #[test]
    fn avatars_are_counted_by_sector_and_zone() {
        let (layout, a, b) = (meadow(2), owner("a", 1), owner("b", 1));
        let at = |space, x| CellId { space: SpaceId(space), x, y: 0 };
        let avatars = [(at(1, 15), &a), (at(1, 15), &a), (at(1, 0), &b), (at(1, 16), &b), (at(9, 0), &b)];
        let counted = Population::count(&layout, avatars.into_iter());
        assert_eq!((counted.avatars_in(SectorId(1)), counted.avatars_in(SectorId(2))), (3, 1));
        assert_eq!((counted.weight(SectorId(1)), counted.weight(SectorId(3))), (28, 25));
        assert!(counted.has_avatars(&a, SectorId(1)) && !counted.has_avatars(&a, SectorId(2)));
        assert_eq!((counted.avatars_in_space(SpaceId(1)), counted.avatars_in_space(SpaceId(9))), (4, 1));
    }
}

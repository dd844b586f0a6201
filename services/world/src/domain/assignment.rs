//! Chooses the zone of each sector. Recursive coordinate bisection (M. Berger and S. Bokhari, "A Partitioning Strategy
//! for Nonuniform Problems on Multiprocessors", IEEE Trans. Comput. C-36, 1987) divides the sectors into one compact
//! region for each zone, so that owners do not alternate along a walk. Each zone keeps the region that overlaps most
//! with its present sectors.

use std::{cmp::Reverse, collections::BTreeMap};

use shardkeep_types::{CellRect, InstanceId, SectorId};

use crate::domain::{
    layout::{Layout, Sector},
    population::Population,
};

/// Sectors move for balance only while the highest and the lowest load differ by more than this part of the mean load, in
/// percent.
const HYSTERESIS_PERCENT: u64 = 25;
/// A move must lower the higher of the two loads by at least this part of the mean load, in percent.
const LEAST_GAIN_PERCENT: u64 = 10;

/// The zone of each sector, if every move were free. `zones` are sorted and not empty. Sectors that an operator has pinned
/// to one of the zones are left out.
pub(crate) fn target<'a>(
    layout: &Layout,
    population: &Population,
    zones: &[&'a InstanceId],
) -> BTreeMap<SectorId, &'a InstanceId> {
    let regions = regions(layout, population, zones).into_iter();
    regions.map(|(sector, zone)| (sector.id(), zone)).collect()
}

/// Each sector with the zone of its region. Neighbours within a region are close to each other in the list.
fn regions<'a, 'b>(
    layout: &'b Layout,
    population: &Population,
    zones: &[&'a InstanceId],
) -> Vec<(&'b Sector, &'a InstanceId)> {
    let mut regions = Vec::new();
    let sectors = layout.sectors().filter(|sector| !is_pinned(sector, zones));
    bisect(sectors.collect(), zones.len(), population, &mut regions);
    let mut overlaps = Vec::new();
    for (region, sectors) in regions.iter().enumerate() {
        for (zone, id) in zones.iter().enumerate() {
            let owned = sectors.iter().filter(|sector| sector.owner() == Some(id));
            let weight: u64 = owned.map(|sector| population.weight(sector.id())).sum();
            overlaps.push((Reverse(weight), region, zone));
        }
    }
    overlaps.sort_unstable();
    let mut zone_of_region = vec![None; regions.len()];
    let mut is_taken = vec![false; zones.len()];
    for (_, region, zone) in overlaps {
        if zone_of_region[region].is_none() && !is_taken[zone] {
            (zone_of_region[region], is_taken[zone]) = (Some(zones[zone]), true);
        }
    }
    let regions = regions.into_iter().zip(zone_of_region);
    let regions = regions.filter_map(|(region, zone)| Some((region, zone?)));
    regions.flat_map(|(region, zone)| region.into_iter().map(move |sector| (sector, zone))).collect()
}

fn is_pinned(sector: &Sector, zones: &[&InstanceId]) -> bool {
    sector.pinned().is_some_and(|pin| zones.iter().any(|zone| zone.name == pin))
}

/// Divides sectors into `parts` regions of about the same weight.
fn bisect<'a>(
    mut sectors: Vec<&'a Sector>,
    parts: usize,
    population: &Population,
    regions: &mut Vec<Vec<&'a Sector>>,
) {
    if parts <= 1 {
        return regions.push(sectors);
    }
    sort_along_longer_side(&mut sectors);
    let (left, right) = (parts / 2, parts - parts / 2);
    let mut total = 0;
    let mut weight_before = vec![0];
    for sector in &sectors {
        total += population.weight(sector.id());
        weight_before.push(total);
    }
    let quota = total * left as u64;
    // Each zone gets a sector while there are enough of them.
    let least = left.min(sectors.len());
    let most = sectors.len().saturating_sub(right).max(least);
    let excess = |cut: &usize| (weight_before[*cut] * parts as u64).abs_diff(quota);
    let cut = (least..=most).min_by_key(excess).unwrap_or(least);
    let behind = sectors.split_off(cut);
    bisect(sectors, left, population, regions);
    bisect(behind, right, population, regions);
}

/// Sorts sectors of one space along the longer side of their common rectangle. Several spaces are sorted by number.
fn sort_along_longer_side(sectors: &mut [&Sector]) {
    let cells = || sectors.iter().map(|sector| sector.cells());
    let extent = |from: fn(&CellRect) -> u16, to: fn(&CellRect) -> u16| {
        let from = cells().map(|cells| from(&cells)).min().unwrap_or_default();
        cells().map(|cells| to(&cells)).max().unwrap_or_default().saturating_sub(from)
    };
    let is_wide = extent(|cells| cells.x0, |cells| cells.x1) >= extent(|cells| cells.y0, |cells| cells.y1);
    sectors.sort_by_key(|sector| {
        let CellRect { space, x0, y0, x1, y1 } = sector.cells();
        let (x, y) = (u32::from(x0) + u32::from(x1), u32::from(y0) + u32::from(y1));
        (space, if is_wide { (x, y) } else { (y, x) }, sector.id())
    });
}

/// The moves that balance the zones, best first. Each one lowers the higher load of its two zones.
/// `is_movable` decides about sectors.
pub(crate) fn balance<'a>(
    layout: &Layout,
    population: &Population,
    zones: &[&'a InstanceId],
    is_movable: impl Fn(&Sector) -> bool,
) -> Vec<(SectorId, &'a InstanceId)> {
    let mut loads: BTreeMap<&InstanceId, u64> = zones.iter().map(|zone| (*zone, 0)).collect();
    for sector in layout.sectors().filter(|sector| !is_pinned(sector, zones)) {
        if let Some(load) = sector.owner().and_then(|owner| loads.get_mut(owner)) {
            *load += population.weight(sector.id());
        }
    }
    let mean = loads.values().sum::<u64>() / (zones.len() as u64).max(1);
    let mut candidates = regions(layout, population, zones);
    candidates.retain(|(sector, zone)| sector.owner() != Some(zone) && is_movable(sector));
    let mut moves = Vec::new();
    let difference = |loads: &BTreeMap<&InstanceId, u64>| {
        let (least, most) = (loads.values().min().copied(), loads.values().max().copied());
        most.unwrap_or_default() - least.unwrap_or_default()
    };
    while difference(&loads) * 100 > mean * HYSTERESIS_PERCENT {
        let gain = |sector: &Sector, zone: &InstanceId| {
            let (from, to) = (loads.get(sector.owner()?)?, loads.get(zone)?);
            let gain = from.checked_sub(to + population.weight(sector.id()))?;
            (gain > 0 && gain * 100 >= mean * LEAST_GAIN_PERCENT).then_some(gain)
        };
        let gains = candidates.iter().enumerate();
        let gains = gains.filter_map(|(at, (sector, zone))| Some((gain(sector, zone)?, Reverse(at))));
        let Some((_, Reverse(at))) = gains.max() else { break };
        let (sector, to) = candidates.remove(at);
        let weight = population.weight(sector.id());
        if let Some(load) = sector.owner().and_then(|owner| loads.get_mut(owner)) {
            *load -= weight;
        }
        *loads.entry(to).or_default() += weight;
        moves.push((sector.id(), to));
    }
    moves
}

/// The zone that takes all sectors of a dead one: a zone without sectors, otherwise one with adjacent sectors, otherwise
/// the one with the lowest load.
pub(crate) fn successor<'a>(
    layout: &Layout,
    population: &Population,
    zones: &[&'a InstanceId],
    dead: &InstanceId,
) -> Option<&'a InstanceId> {
    let rank = |zone: &&&InstanceId| {
        let owned = || layout.sectors().filter(|sector| sector.owner() == Some(zone));
        let left = || layout.sectors().filter(|sector| sector.owner() == Some(dead));
        let border: u32 = owned().flat_map(|a| left().map(|b| shared_border(a.cells(), b.cells()))).sum();
        let load: u64 = owned().map(|sector| population.weight(sector.id())).sum();
        (load > 0, border == 0, load, Reverse(border))
    };
    zones.iter().min_by_key(rank).copied()
}

/// Length of the side that two rectangles share, in cells.
fn shared_border(one: CellRect, other: CellRect) -> u32 {
    if one.space != other.space {
        return 0;
    }
    let overlap = |from: u16, to: u16, other_from: u16, other_to: u16| {
        u32::from(to.min(other_to).saturating_sub(from.max(other_from)))
    };
    if one.x1 == other.x0 || other.x1 == one.x0 {
        overlap(one.y0, one.y1, other.y0, other.y1)
    } else if one.y1 == other.y0 || other.y1 == one.y0 {
        overlap(one.x0, one.x1, other.x0, other.x1)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{CellId, SpaceId};

    use super::*;
    use crate::domain::{layout::fixture::meadow, zone::fixture::owner};

    /// 8 × 8 sectors of 4 × 4 cells.
    fn grid() -> Layout {
        let mut layout = meadow(1);
        for _ in 0..6 {
            for sector in layout.sectors().map(Sector::id).collect::<Vec<_>>() {
                layout.split(sector, None).unwrap();
            }
        }
        layout
    }

    fn zones(count: usize) -> Vec<InstanceId> {
        (0..count).map(|number| owner(&format!("zone-{number}"), 1)).collect()
    }

    /// Cells along the borders between sectors of different owners.
    fn border_length(layout: &Layout) -> u32 {
        let sectors: Vec<&Sector> = layout.sectors().collect();
        let pairs = sectors.iter().enumerate().flat_map(|(at, a)| sectors[..at].iter().map(move |b| (a, b)));
        pairs.filter(|(a, b)| a.owner() != b.owner()).map(|(a, b)| shared_border(a.cells(), b.cells())).sum()
    }

    fn assign_all(layout: &mut Layout, zones: &[&InstanceId]) {
        for (sector, zone) in target(layout, &Population::default(), zones) {
            layout.assign(sector, zone.clone());
        }
    }

    fn counts(layout: &Layout, zones: &[InstanceId]) -> Vec<usize> {
        zones.iter().map(|zone| layout.sectors_of(zone).len()).collect()
    }

    #[test]
    fn regions_are_compact_and_of_similar_size() {
        let mut layout = grid();
        assert_eq!(layout.sectors().count(), 64);
        // The length of straight cuts into 2, 3, 4 and 8 regions, and some corners.
        for (count, most) in [(2, 32), (3, 72), (4, 64), (5, 100), (8, 128)] {
            let all = zones(count);
            assign_all(&mut layout, &all.iter().collect::<Vec<_>>());
            let length = border_length(&layout);
            assert!(length <= most, "{count} zones have {length} cells of border");
            let sizes = counts(&layout, &all);
            let (least, largest) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(largest - least <= 3, "{sizes:?}");
        }
    }

    #[test]
    fn columns_stay_in_order_along_a_walk() {
        let mut layout = meadow(8);
        let all = zones(3);
        assign_all(&mut layout, &all.iter().collect::<Vec<_>>());
        let owners: Vec<_> = layout.sectors().map(|sector| sector.owner().unwrap().name.clone()).collect();
        let changes = owners.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(changes, 2, "{owners:?}");
    }

    #[test]
    fn third_zone_takes_its_share_next_to_others() {
        let mut layout = grid();
        let all = zones(3);
        let all_refs: Vec<_> = all.iter().collect();
        assign_all(&mut layout, &all_refs[..2]);
        let moves = balance(&layout, &Population::default(), &all_refs, |_| true);
        for (sector, zone) in &moves {
            layout.assign(*sector, (*zone).clone());
        }
        let sizes = counts(&layout, &all);
        assert!(sizes.iter().all(|size| (18..=25).contains(size)), "{sizes:?}");
        // Random owners would have about 300 cells of border.
        assert!(border_length(&layout) <= 90, "{} cells of border", border_length(&layout));
        assert_eq!(balance(&layout, &Population::default(), &all_refs, |_| true), [], "it stays balanced");
    }

    #[test]
    fn crowded_sector_counts_as_load() {
        let mut layout = meadow(4);
        let (a, b) = (owner("a", 1), owner("b", 1));
        for (sector, zone) in [(1, &a), (2, &a), (3, &b), (4, &b)] {
            layout.assign(SectorId(sector), zone.clone());
        }
        let crowd = |x, count| std::iter::repeat_n((CellId { space: SpaceId(1), x, y: 0 }, &a), count);
        let few = Population::count(&layout, crowd(0, 6));
        assert_eq!(balance(&layout, &few, &[&a, &b], |_| true), [], "a few avatars move no sector");
        let many = Population::count(&layout, crowd(0, 200));
        assert_eq!(balance(&layout, &many, &[&a, &b], |_| true), [(SectorId(2), &b)]);
        assert_eq!(balance(&layout, &many, &[&a, &b], |sector| sector.id() != SectorId(2)), []);
        layout.pin(SectorId(1), Some("a".to_owned()));
        assert_eq!(balance(&layout, &many, &[&a, &b], |_| true), [], "pinned sectors take no part");
    }

    #[test]
    fn successor_is_idle_zone_then_adjacent_zone() {
        let mut layout = meadow(4);
        let all = zones(4);
        for (sector, zone) in (1..).zip([0, 1, 2, 2]) {
            layout.assign(SectorId(sector), all[zone].clone());
        }
        let none = Population::default();
        let by = |zones: &[&InstanceId]| successor(&layout, &none, zones, &all[0]).cloned();
        assert_eq!(by(&[&all[1], &all[2], &all[3]]), Some(all[3].clone()));
        assert_eq!(by(&[&all[2], &all[1]]), Some(all[1].clone()));
        assert_eq!(by(&[&all[2]]), Some(all[2].clone()));
        assert_eq!(by(&[]), None);
    }
}

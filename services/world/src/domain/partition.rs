//! Assigns sectors to zones. A dead zone's sectors go to its next incarnation if it returns soon, otherwise to
//! another zone. A new zone gets its share back. Epochs only rise.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use shardkeep_types::{CellRect, Epoch, InstanceId, SpaceId};

use crate::domain::{
    effect::{Effect, Work},
    zone::{Health, ZoneView},
};

/// How long a sector waits for the next incarnation of its dead owner.
const OWNER_RETURN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a zone must be up before it takes sectors from a healthy zone.
const REBALANCE_AFTER: Duration = Duration::from_secs(2);
/// How long a new term waits until each sector has its zone, before it uses fewer.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
struct Sector {
    cells: CellRect,
    owner: Option<InstanceId>,
    epoch: Epoch,
    /// Name of the zone that this sector belongs to when all zones are up.
    home: Option<String>,
    /// Since when its owner is dead.
    owner_dead_since: Option<Instant>,
}

/// The result of one step of [`Partition::update`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The table has changed and must be sent to the zones.
    changed: bool,
    /// All avatars of the first zone, which is dead, go to the second.
    reown: Vec<(InstanceId, InstanceId)>,
}

pub(crate) struct Partition {
    sectors: Vec<Sector>,
    epoch: Epoch,
    since: Instant,
    settled: bool,
    up_since: BTreeMap<InstanceId, Instant>,
    /// Highest incarnation of each zone whose avatars were reassigned after its death.
    reassigned: BTreeMap<String, u64>,
}

impl Partition {
    /// The table of a new term: `columns` sectors side by side on a map, without owners.
    pub(crate) fn new(space: SpaceId, width: u16, height: u16, columns: u16, now: Instant) -> Self {
        let edge = |column: u16| {
            u16::try_from(u32::from(width) * u32::from(column) / u32::from(columns)).unwrap_or(width)
        };
        let sector = |column: u16| Sector {
            cells: CellRect { space, x0: edge(column), y0: 0, x1: edge(column + 1), y1: height },
            owner: None,
            epoch: Epoch(0),
            home: None,
            owner_dead_since: None,
        };
        let sectors = (0..columns).map(sector).collect();
        Self {
            sectors,
            epoch: Epoch(1),
            since: now,
            settled: false,
            up_since: BTreeMap::new(),
            reassigned: BTreeMap::new(),
        }
    }

    /// The cells, owner and epoch of each sector.
    pub(crate) fn sectors(&self) -> impl Iterator<Item = (CellRect, Option<&InstanceId>, Epoch)> {
        self.sectors.iter().map(|sector| (sector.cells, sector.owner.as_ref(), sector.epoch))
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Adapts the table to the zones. Call it at each change of the zones, and several times per second.
    pub(crate) fn update(&mut self, now: Instant, zones: &[ZoneView]) -> Step {
        self.note_uptime(now, zones);
        let up = zones.iter().filter(|zone| zone.is(Health::Up)).count();
        if !self.settled && up < self.sectors.len() && now < self.since + SETTLE_TIMEOUT {
            return Step::default();
        }
        let mut step = Step::default();
        self.reassign_dead_owners(now, zones, &mut step);
        self.reassign_other_dead_zones(zones, &mut step);
        self.move_draining_sectors(zones, &mut step);
        self.assign_unowned_sectors(zones, &mut step);
        if !step.changed {
            self.rebalance_sectors(now, zones, &mut step);
        }
        self.settled |= self.sectors.iter().all(|sector| sector.owner.is_some());
        if step.changed {
            self.epoch = self.epoch.next();
        }
        step
    }

    fn note_uptime(&mut self, now: Instant, zones: &[ZoneView]) {
        let up: HashSet<&InstanceId> =
            zones.iter().filter(|zone| zone.is(Health::Up)).map(ZoneView::id).collect();
        self.up_since.retain(|owner, _| up.contains(owner));
        for owner in up {
            self.up_since.entry(owner.clone()).or_insert(now);
        }
    }

    /// One zone gets all sectors of a dead owner, because one statement moves all its avatars to one zone.
    fn reassign_dead_owners(&mut self, now: Instant, zones: &[ZoneView], step: &mut Step) {
        let owners: HashSet<InstanceId> =
            self.sectors.iter().filter_map(|sector| sector.owner.clone()).collect();
        let is_alive =
            |owner: &InstanceId| zones.iter().any(|zone| zone.id() == owner && !zone.is(Health::Gone));
        for dead in owners {
            let owned = self.sectors.iter_mut().filter(|sector| sector.owner.as_ref() == Some(&dead));
            if is_alive(&dead) {
                owned.for_each(|sector| sector.owner_dead_since = None);
                continue;
            }
            let since = owned.map(|sector| *sector.owner_dead_since.get_or_insert(now)).min().unwrap_or(now);
            let returned = zones.iter().find(|zone| zone.id().name == dead.name && zone.is(Health::Up));
            let successor = match returned {
                Some(zone) => Some(zone.id().clone()),
                None if now >= since + OWNER_RETURN_TIMEOUT => self.least_loaded(zones),
                None => None,
            };
            if let Some(successor) = successor {
                let owned = self.sectors.iter_mut().filter(|sector| sector.owner.as_ref() == Some(&dead));
                owned.for_each(|sector| sector.assign(successor.clone()));
                // When the next incarnation is up, all earlier ones are dead.
                let next = (successor.name == dead.name).then_some(successor.incarnation);
                let last = next.unwrap_or_default().saturating_sub(1).max(dead.incarnation);
                self.reassign_avatars(InstanceId { incarnation: last, ..dead }, successor, step);
                step.changed = true;
            }
        }
    }

    /// Dead zones without sectors may still own avatars, from an earlier term or an interrupted drain.
    fn reassign_other_dead_zones(&mut self, zones: &[ZoneView], step: &mut Step) {
        for zone in zones {
            let InstanceId { name, incarnation, .. } = zone.id();
            let dead = if zone.is(Health::Gone) { *incarnation } else { incarnation.saturating_sub(1) };
            let owns = |sector: &Sector| {
                sector.owner.as_ref().is_some_and(|owner| owner.name == *name && owner.incarnation <= dead)
            };
            if self.reassigned.get(name).is_some_and(|&last| last >= dead)
                || dead == 0
                || self.sectors.iter().any(owns)
            {
                continue;
            }
            let successor =
                if zone.is(Health::Up) { Some(zone.id().clone()) } else { self.least_loaded(zones) };
            if let Some(successor) = successor {
                self.reassign_avatars(InstanceId { incarnation: dead, ..zone.id().clone() }, successor, step);
            }
        }
    }

    fn reassign_avatars(&mut self, dead: InstanceId, successor: InstanceId, step: &mut Step) {
        self.reassigned.insert(dead.name.clone(), dead.incarnation);
        step.reown.push((dead, successor));
    }

    fn move_draining_sectors(&mut self, zones: &[ZoneView], step: &mut Step) {
        let draining: HashSet<&InstanceId> =
            zones.iter().filter(|zone| zone.is(Health::Draining)).map(ZoneView::id).collect();
        for index in 0..self.sectors.len() {
            if !self.sectors[index].owner.as_ref().is_some_and(|owner| draining.contains(owner)) {
                continue;
            }
            if let Some(successor) = self.least_loaded(zones) {
                self.sectors[index].assign(successor);
                step.changed = true;
            }
        }
    }

    fn assign_unowned_sectors(&mut self, zones: &[ZoneView], step: &mut Step) {
        for index in 0..self.sectors.len() {
            if self.sectors[index].owner.is_some() {
                continue;
            }
            let Some(zone) = self.least_loaded(zones) else { return };
            if !self.has_home_sector(&zone.name) {
                self.sectors[index].home = Some(zone.name.clone());
            }
            self.sectors[index].assign(zone);
            step.changed = true;
        }
    }

    /// Moves one sector at a time: to its home zone, or from a zone with several sectors to a zone without any.
    fn rebalance_sectors(&mut self, now: Instant, zones: &[ZoneView], step: &mut Step) {
        let eligible = |zone: &&ZoneView| {
            zone.is(Health::Up)
                && self.up_since.get(zone.id()).is_some_and(|&since| now >= since + REBALANCE_AFTER)
        };
        let zones: Vec<&ZoneView> = zones.iter().filter(eligible).collect();
        let transfer = self.sectors.iter().enumerate().find_map(|(index, sector)| {
            let owner = sector.owner.as_ref()?;
            let home = zones.iter().find(|zone| sector.home.as_deref() == Some(&zone.id().name))?;
            (home.id() != owner).then(|| (index, home.id().clone()))
        });
        let transfer = transfer.or_else(|| {
            let idle = zones
                .iter()
                .find(|zone| self.count(zone.id()) == 0 && !self.has_home_sector(&zone.id().name))?;
            let spare = self.sectors.iter().position(|sector| {
                let at_home =
                    sector.owner.as_ref().is_some_and(|owner| sector.home.as_ref() == Some(&owner.name));
                !at_home && sector.owner.as_ref().is_some_and(|owner| self.count(owner) > 1)
            })?;
            Some((spare, idle.id().clone()))
        });
        if let Some((index, owner)) = transfer {
            self.sectors[index].home = Some(owner.name.clone());
            self.sectors[index].assign(owner);
            step.changed = true;
        }
    }

    /// The zone with the fewest sectors; among equals the first by name.
    fn least_loaded(&self, zones: &[ZoneView]) -> Option<InstanceId> {
        let up = zones.iter().filter(|zone| zone.is(Health::Up));
        up.map(ZoneView::id).min_by_key(|owner| (self.count(owner), &owner.name)).cloned()
    }

    fn count(&self, owner: &InstanceId) -> usize {
        self.sectors.iter().filter(|sector| sector.owner.as_ref() == Some(owner)).count()
    }

    fn has_home_sector(&self, name: &str) -> bool {
        self.sectors.iter().any(|sector| sector.home.as_deref() == Some(name))
    }
}

impl Step {
    pub(crate) fn into_effects(self) -> impl Iterator<Item = Effect> {
        let table = self.changed.then_some(Effect::Partition);
        let reown = |(dead, successor)| Effect::Start(Work::Reown { dead, successor });
        table.into_iter().chain(self.reown.into_iter().map(reown))
    }
}

impl Sector {
    fn assign(&mut self, owner: InstanceId) {
        self.owner = Some(owner);
        self.owner_dead_since = None;
        self.epoch = self.epoch.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::zone::fixture::{owner, zone};

    fn meadow(now: Instant) -> Partition {
        Partition::new(SpaceId(1), 32, 32, 2, now)
    }

    fn owners(partition: &Partition) -> Vec<String> {
        let name = |sector: &Sector| {
            sector.owner.as_ref().map_or("-".into(), |o| format!("{}/{}", o.name, o.incarnation))
        };
        partition.sectors.iter().map(name).collect()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn settled(start: Instant) -> Partition {
        let mut partition = meadow(start);
        let step = partition.update(start, &[zone("b", 1, Health::Up), zone("a", 1, Health::Up)]);
        assert!(step.changed && step.reown.is_empty());
        partition
    }

    #[test]
    fn two_zones_share_sectors_in_name_order() {
        let partition = settled(Instant::now());
        assert_eq!(owners(&partition), ["a/1", "b/1"]);
        let columns =
            partition.sectors.iter().map(|sector| (sector.cells.x0, sector.cells.x1, sector.cells.y1));
        assert_eq!(columns.collect::<Vec<_>>(), [(0, 16, 32), (16, 32, 32)]);
    }

    #[test]
    fn second_zone_gets_its_share_after_rebalance_delay() {
        let start = Instant::now();
        let mut partition = meadow(start);
        let lone = [zone("b", 1, Health::Up)];
        assert_eq!(partition.update(at(start, 1), &lone), Step::default(), "waits for the others");
        assert!(partition.update(at(start, 3), &lone).changed);
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let both = [zone("a", 1, Health::Up), zone("b", 1, Health::Up)];
        assert!(!partition.update(at(start, 10), &both).changed);
        let step = partition.update(at(start, 12), &both);
        assert!(step.changed && step.reown.is_empty(), "the owner lives and hands its avatars over itself");
        assert_eq!(owners(&partition), ["b/1", "a/1"]);
        assert!(!partition.update(at(start, 20), &both).changed);
    }

    #[test]
    fn restarted_zone_gets_its_sectors_at_once() {
        let start = Instant::now();
        let mut partition = settled(start);
        let epochs: Vec<Epoch> = partition.sectors.iter().map(|sector| sector.epoch).collect();
        let step = partition.update(at(start, 9), &[zone("a", 2, Health::Up), zone("b", 1, Health::Up)]);
        assert_eq!(step, Step { changed: true, reown: vec![(owner("a", 1), owner("a", 2))] });
        assert_eq!(owners(&partition), ["a/2", "b/1"]);
        assert!(partition.sectors[0].epoch > epochs[0]);
        assert_eq!(partition.sectors[1].epoch, epochs[1]);
    }

    #[test]
    fn dead_zone_is_replaced_and_regains_its_share_later() {
        let start = Instant::now();
        let mut partition = settled(start);
        let half = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up)];
        assert!(!partition.update(at(start, 9), &half).changed);
        let step = partition.update(at(start, 11), &half);
        assert_eq!(step.reown, [(owner("a", 1), owner("b", 1))]);
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let both = [zone("a", 2, Health::Up), zone("b", 1, Health::Up)];
        partition.update(at(start, 20), &both);
        assert!(partition.update(at(start, 22), &both).changed);
        assert_eq!(owners(&partition), ["a/2", "b/1"]);
    }

    #[test]
    fn new_zone_can_replace_dead_zone() {
        let start = Instant::now();
        let mut partition = settled(start);
        let zones = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up), zone("c", 1, Health::Up)];
        partition.update(at(start, 9), &zones);
        let step = partition.update(at(start, 11), &zones);
        assert_eq!(step.reown, [(owner("a", 1), owner("c", 1))]);
        assert_eq!(owners(&partition), ["c/1", "b/1"]);
    }

    #[test]
    fn first_zone_up_takes_all_sectors_of_dead_zones() {
        let start = Instant::now();
        let mut partition = settled(start);
        let none = [zone("a", 1, Health::Gone), zone("b", 1, Health::Gone)];
        partition.update(at(start, 1), &none);
        assert_eq!(partition.update(at(start, 60), &none), Step::default());
        let one = [zone("a", 1, Health::Gone), zone("b", 2, Health::Up)];
        let mut reown = partition.update(at(start, 61), &one).reown;
        reown.sort();
        assert_eq!(reown, [(owner("a", 1), owner("b", 2)), (owner("b", 1), owner("b", 2))]);
        assert_eq!(owners(&partition), ["b/2", "b/2"]);
    }

    #[test]
    fn draining_zone_loses_sectors_without_reown() {
        let start = Instant::now();
        let mut partition = settled(start);
        let zones = [zone("a", 1, Health::Draining), zone("b", 1, Health::Up)];
        let step = partition.update(at(start, 9), &zones);
        assert_eq!(step, Step { changed: true, reown: vec![] });
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let alone = [zone("a", 1, Health::Gone), zone("b", 1, Health::Draining)];
        assert!(
            !partition.update(at(start, 10), &alone).changed,
            "better served by the draining than by nobody"
        );
    }

    #[test]
    fn drained_dead_zone_is_reowned_once() {
        let start = Instant::now();
        let mut partition = settled(start);
        partition.update(at(start, 9), &[zone("a", 1, Health::Draining), zone("b", 1, Health::Up)]);
        let after = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up)];
        assert_eq!(partition.update(at(start, 10), &after).reown, [(owner("a", 1), owner("b", 1))]);
        assert_eq!(partition.update(at(start, 11), &after).reown, []);
    }

    #[test]
    fn new_term_reowns_earlier_incarnations() {
        let start = Instant::now();
        let step = meadow(start).update(start, &[zone("a", 7, Health::Up), zone("b", 4, Health::Up)]);
        assert_eq!(step.reown, [(owner("a", 6), owner("a", 7)), (owner("b", 3), owner("b", 4))]);
    }

    #[test]
    fn starting_zone_gets_no_sectors() {
        let start = Instant::now();
        let mut partition = settled(start);
        let starting = [zone("a", 2, Health::Starting), zone("b", 1, Health::Up)];
        assert_eq!(partition.update(at(start, 1), &starting), Step::default());
        assert_eq!(partition.update(at(start, 3), &starting).reown, [(owner("a", 1), owner("b", 1))]);
    }
}

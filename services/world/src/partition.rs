//! Which zone owns which sector. The table follows the zones that live: a dead zone's sectors go to its own next
//! incarnation if that comes quickly, else to another; a zone that appears gets its share back. Epochs only rise.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use shardkeep_types::{CellRect, Epoch, MapId};

/// How long a sector waits for its dead owner's next incarnation.
pub(crate) const WAIT_FOR_RETURN: Duration = Duration::from_millis(1_500);
/// How long a zone must have been up before it takes sectors from another that serves them well.
pub(crate) const PROVEN: Duration = Duration::from_secs(2);
/// How long a new term waits for the zones of every sector before it is content with fewer.
const SETTLE: Duration = Duration::from_secs(3);

/// A zone as one incarnation of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Alive, but takes nothing yet.
    Starting,
    Up,
    /// Serves what it has, and wants to be rid of it.
    Draining,
    Gone,
}

/// What is known of a zone: its latest incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneView {
    pub(crate) owner: Owner,
    pub(crate) health: Health,
    pub(crate) grpc_address: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Sector {
    pub(crate) cells: CellRect,
    pub(crate) owner: Option<Owner>,
    pub(crate) epoch: Epoch,
    /// Zone whose share this is, by name.
    home: Option<String>,
    /// Since when its owner is dead.
    orphaned: Option<Instant>,
}

/// What a step of [`Partition::follow`] asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The table is another: tell it.
    pub(crate) changed: bool,
    /// Every avatar of the first (dead) goes to the second.
    pub(crate) reown: Vec<(Owner, Owner)>,
}

pub(crate) struct Partition {
    sectors: Vec<Sector>,
    epoch: Epoch,
    since: Instant,
    settled: bool,
    up_since: BTreeMap<Owner, Instant>,
    /// Highest incarnation of each zone whose avatars were given away after its death.
    buried: BTreeMap<String, u64>,
}

impl Partition {
    /// A new term's table: `columns` sectors beside each other over a map, nobody's yet.
    pub(crate) fn new(map: MapId, width: u16, height: u16, columns: u16, now: Instant) -> Self {
        let edge = |column: u16| {
            u16::try_from(u32::from(width) * u32::from(column) / u32::from(columns)).unwrap_or(width)
        };
        let sector = |column: u16| Sector {
            cells: CellRect { map, x0: edge(column), y0: 0, x1: edge(column + 1), y1: height },
            owner: None,
            epoch: Epoch(0),
            home: None,
            orphaned: None,
        };
        let sectors = (0..columns).map(sector).collect();
        Self {
            sectors,
            epoch: Epoch(1),
            since: now,
            settled: false,
            up_since: BTreeMap::new(),
            buried: BTreeMap::new(),
        }
    }

    pub(crate) fn sectors(&self) -> &[Sector] {
        &self.sectors
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Follows the zones as they are now. To be called at every change of them, and often.
    pub(crate) fn follow(&mut self, now: Instant, zones: &[ZoneView]) -> Step {
        self.note_uptime(now, zones);
        let up = zones.iter().filter(|zone| zone.health == Health::Up).count();
        if !self.settled && up < self.sectors.len() && now < self.since + SETTLE {
            return Step::default();
        }
        let mut step = Step::default();
        self.bury_owners(now, zones, &mut step);
        self.bury_others(zones, &mut step);
        self.empty_the_draining(zones, &mut step);
        self.fill_the_unowned(zones, &mut step);
        if !step.changed {
            self.give_shares_back(now, zones, &mut step);
        }
        self.settled |= self.sectors.iter().all(|sector| sector.owner.is_some());
        if step.changed {
            self.epoch = self.epoch.next();
        }
        step
    }

    fn note_uptime(&mut self, now: Instant, zones: &[ZoneView]) {
        let up: HashSet<&Owner> =
            zones.iter().filter(|zone| zone.health == Health::Up).map(|zone| &zone.owner).collect();
        self.up_since.retain(|owner, _| up.contains(owner));
        for owner in up {
            self.up_since.entry(owner.clone()).or_insert(now);
        }
    }

    /// A dead owner's sectors all go to one heir, because one statement moves all its avatars to one zone.
    fn bury_owners(&mut self, now: Instant, zones: &[ZoneView], step: &mut Step) {
        let owners: HashSet<Owner> = self.sectors.iter().filter_map(|sector| sector.owner.clone()).collect();
        let lives =
            |owner: &Owner| zones.iter().any(|zone| zone.owner == *owner && zone.health != Health::Gone);
        for dead in owners {
            let mine = |sector: &&mut Sector| sector.owner.as_ref() == Some(&dead);
            if lives(&dead) {
                self.sectors.iter_mut().filter(mine).for_each(|sector| sector.orphaned = None);
                continue;
            }
            let since = self
                .sectors
                .iter_mut()
                .filter(mine)
                .map(|sector| *sector.orphaned.get_or_insert(now))
                .min()
                .unwrap_or(now);
            let returned =
                zones.iter().find(|zone| zone.owner.name == dead.name && zone.health == Health::Up);
            let heir = match returned {
                Some(zone) => Some(zone.owner.clone()),
                None if now >= since + WAIT_FOR_RETURN => self.lightest(zones),
                None => None,
            };
            if let Some(heir) = heir {
                self.sectors.iter_mut().filter(mine).for_each(|sector| sector.give(heir.clone()));
                // With its next incarnation here, every one before it is dead.
                let last = if heir.name == dead.name {
                    heir.incarnation.saturating_sub(1)
                } else {
                    dead.incarnation
                };
                self.bury(Owner { incarnation: last.max(dead.incarnation), ..dead }, heir, step);
                step.changed = true;
            }
        }
    }

    /// The dead that own no sector (any more) may have left avatars all the same: those of an earlier term, or of a
    /// drain that was cut short.
    fn bury_others(&mut self, zones: &[ZoneView], step: &mut Step) {
        for zone in zones {
            let Owner { name, incarnation } = &zone.owner;
            let dead = if zone.health == Health::Gone { *incarnation } else { incarnation.saturating_sub(1) };
            let owns = |sector: &Sector| {
                sector.owner.as_ref().is_some_and(|owner| owner.name == *name && owner.incarnation <= dead)
            };
            if self.buried.get(name).is_some_and(|&last| last >= dead)
                || dead == 0
                || self.sectors.iter().any(owns)
            {
                continue;
            }
            let heir =
                if zone.health == Health::Up { Some(zone.owner.clone()) } else { self.lightest(zones) };
            if let Some(heir) = heir {
                self.bury(Owner { name: name.clone(), incarnation: dead }, heir, step);
            }
        }
    }

    fn bury(&mut self, dead: Owner, heir: Owner, step: &mut Step) {
        self.buried.insert(dead.name.clone(), dead.incarnation);
        step.reown.push((dead, heir));
    }

    fn empty_the_draining(&mut self, zones: &[ZoneView], step: &mut Step) {
        let draining: HashSet<&Owner> =
            zones.iter().filter(|zone| zone.health == Health::Draining).map(|zone| &zone.owner).collect();
        for index in 0..self.sectors.len() {
            if !self.sectors[index].owner.as_ref().is_some_and(|owner| draining.contains(owner)) {
                continue;
            }
            if let Some(heir) = self.lightest(zones) {
                self.sectors[index].give(heir);
                step.changed = true;
            }
        }
    }

    fn fill_the_unowned(&mut self, zones: &[ZoneView], step: &mut Step) {
        for index in 0..self.sectors.len() {
            if self.sectors[index].owner.is_some() {
                continue;
            }
            let Some(zone) = self.lightest(zones) else { return };
            if !self.is_home(&zone.name) {
                self.sectors[index].home = Some(zone.name.clone());
            }
            self.sectors[index].give(zone);
            step.changed = true;
        }
    }

    /// One sector at a time: to the zone at home there, else to a zone that has none from one that has several.
    fn give_shares_back(&mut self, now: Instant, zones: &[ZoneView], step: &mut Step) {
        let proven = |zone: &&ZoneView| {
            zone.health == Health::Up
                && self.up_since.get(&zone.owner).is_some_and(|&since| now >= since + PROVEN)
        };
        let zones: Vec<&ZoneView> = zones.iter().filter(proven).collect();
        let share = self.sectors.iter().enumerate().find_map(|(index, sector)| {
            let owner = sector.owner.as_ref()?;
            let home = zones.iter().find(|zone| sector.home.as_deref() == Some(&zone.owner.name))?;
            (home.owner != *owner).then(|| (index, home.owner.clone()))
        });
        let share = share.or_else(|| {
            let idle =
                zones.iter().find(|zone| self.count(&zone.owner) == 0 && !self.is_home(&zone.owner.name))?;
            let spare = self.sectors.iter().position(|sector| {
                let at_home =
                    sector.owner.as_ref().is_some_and(|owner| sector.home.as_ref() == Some(&owner.name));
                !at_home && sector.owner.as_ref().is_some_and(|owner| self.count(owner) > 1)
            })?;
            Some((spare, idle.owner.clone()))
        });
        if let Some((index, owner)) = share {
            self.sectors[index].home = Some(owner.name.clone());
            self.sectors[index].give(owner);
            step.changed = true;
        }
    }

    /// The zone with the fewest sectors, by name among equals.
    fn lightest(&self, zones: &[ZoneView]) -> Option<Owner> {
        let up = zones.iter().filter(|zone| zone.health == Health::Up);
        up.map(|zone| &zone.owner).min_by_key(|owner| (self.count(owner), &owner.name)).cloned()
    }

    fn count(&self, owner: &Owner) -> usize {
        self.sectors.iter().filter(|sector| sector.owner.as_ref() == Some(owner)).count()
    }

    fn is_home(&self, name: &str) -> bool {
        self.sectors.iter().any(|sector| sector.home.as_deref() == Some(name))
    }
}

impl Sector {
    fn give(&mut self, owner: Owner) {
        self.owner = Some(owner);
        self.orphaned = None;
        self.epoch = self.epoch.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, incarnation: u64, health: Health) -> ZoneView {
        ZoneView { owner: owner(name, incarnation), health, grpc_address: format!("{name}:1") }
    }

    fn owner(name: &str, incarnation: u64) -> Owner {
        Owner { name: name.into(), incarnation }
    }

    fn meadow(now: Instant) -> Partition {
        Partition::new(MapId(1), 32, 32, 2, now)
    }

    fn owners(partition: &Partition) -> Vec<String> {
        let name = |sector: &Sector| {
            sector.owner.as_ref().map_or("-".into(), |o| format!("{}/{}", o.name, o.incarnation))
        };
        partition.sectors().iter().map(name).collect()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn settled(start: Instant) -> Partition {
        let mut partition = meadow(start);
        let step = partition.follow(start, &[zone("b", 1, Health::Up), zone("a", 1, Health::Up)]);
        assert!(step.changed && step.reown.is_empty());
        partition
    }

    #[test]
    fn two_zones_share_the_meadow_in_the_order_of_their_names() {
        let partition = settled(Instant::now());
        assert_eq!(owners(&partition), ["a/1", "b/1"]);
        let columns =
            partition.sectors().iter().map(|sector| (sector.cells.x0, sector.cells.x1, sector.cells.y1));
        assert_eq!(columns.collect::<Vec<_>>(), [(0, 16, 32), (16, 32, 32)]);
    }

    #[test]
    fn a_lone_zone_gets_everything_and_the_second_its_half_when_it_has_proven_itself() {
        let start = Instant::now();
        let mut partition = meadow(start);
        let lone = [zone("b", 1, Health::Up)];
        assert_eq!(partition.follow(at(start, 1), &lone), Step::default(), "waits for the others");
        assert!(partition.follow(at(start, 3), &lone).changed);
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let both = [zone("a", 1, Health::Up), zone("b", 1, Health::Up)];
        assert!(!partition.follow(at(start, 10), &both).changed);
        let step = partition.follow(at(start, 12), &both);
        assert!(step.changed && step.reown.is_empty(), "the owner lives and hands its avatars over itself");
        assert_eq!(owners(&partition), ["b/1", "a/1"]);
        assert!(!partition.follow(at(start, 20), &both).changed);
    }

    #[test]
    fn a_zone_that_comes_back_gets_its_sectors_at_once() {
        let start = Instant::now();
        let mut partition = settled(start);
        let epochs: Vec<Epoch> = partition.sectors().iter().map(|sector| sector.epoch).collect();
        let step = partition.follow(at(start, 9), &[zone("a", 2, Health::Up), zone("b", 1, Health::Up)]);
        assert_eq!(step, Step { changed: true, reown: vec![(owner("a", 1), owner("a", 2))] });
        assert_eq!(owners(&partition), ["a/2", "b/1"]);
        assert!(partition.sectors()[0].epoch > epochs[0]);
        assert_eq!(partition.sectors()[1].epoch, epochs[1]);
    }

    #[test]
    fn a_zone_that_stays_away_is_inherited_and_gets_its_share_back_later() {
        let start = Instant::now();
        let mut partition = settled(start);
        let half = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up)];
        assert!(!partition.follow(at(start, 9), &half).changed);
        let step = partition.follow(at(start, 11), &half);
        assert_eq!(step.reown, [(owner("a", 1), owner("b", 1))]);
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let both = [zone("a", 2, Health::Up), zone("b", 1, Health::Up)];
        partition.follow(at(start, 20), &both);
        assert!(partition.follow(at(start, 22), &both).changed);
        assert_eq!(owners(&partition), ["a/2", "b/1"]);
    }

    #[test]
    fn a_stranger_inherits_like_any_other() {
        let start = Instant::now();
        let mut partition = settled(start);
        let zones = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up), zone("c", 1, Health::Up)];
        partition.follow(at(start, 9), &zones);
        let step = partition.follow(at(start, 11), &zones);
        assert_eq!(step.reown, [(owner("a", 1), owner("c", 1))]);
        assert_eq!(owners(&partition), ["c/1", "b/1"]);
    }

    #[test]
    fn with_nobody_left_the_first_to_come_inherits() {
        let start = Instant::now();
        let mut partition = settled(start);
        let none = [zone("a", 1, Health::Gone), zone("b", 1, Health::Gone)];
        partition.follow(at(start, 1), &none);
        assert_eq!(partition.follow(at(start, 60), &none), Step::default());
        let one = [zone("a", 1, Health::Gone), zone("b", 2, Health::Up)];
        let mut reown = partition.follow(at(start, 61), &one).reown;
        reown.sort();
        assert_eq!(reown, [(owner("a", 1), owner("b", 2)), (owner("b", 1), owner("b", 2))]);
        assert_eq!(owners(&partition), ["b/2", "b/2"]);
    }

    #[test]
    fn a_zone_that_drains_loses_its_sectors_to_another_without_a_burial() {
        let start = Instant::now();
        let mut partition = settled(start);
        let zones = [zone("a", 1, Health::Draining), zone("b", 1, Health::Up)];
        let step = partition.follow(at(start, 9), &zones);
        assert_eq!(step, Step { changed: true, reown: vec![] });
        assert_eq!(owners(&partition), ["b/1", "b/1"]);
        let alone = [zone("a", 1, Health::Gone), zone("b", 1, Health::Draining)];
        assert!(
            !partition.follow(at(start, 10), &alone).changed,
            "better served by the draining than by nobody"
        );
    }

    #[test]
    fn what_drained_and_died_still_has_its_avatars_moved_once() {
        let start = Instant::now();
        let mut partition = settled(start);
        partition.follow(at(start, 9), &[zone("a", 1, Health::Draining), zone("b", 1, Health::Up)]);
        let after = [zone("a", 1, Health::Gone), zone("b", 1, Health::Up)];
        assert_eq!(partition.follow(at(start, 10), &after).reown, [(owner("a", 1), owner("b", 1))]);
        assert_eq!(partition.follow(at(start, 11), &after).reown, []);
    }

    #[test]
    fn a_new_term_moves_what_earlier_incarnations_left() {
        let start = Instant::now();
        let step = meadow(start).follow(start, &[zone("a", 7, Health::Up), zone("b", 4, Health::Up)]);
        assert_eq!(step.reown, [(owner("a", 6), owner("a", 7)), (owner("b", 3), owner("b", 4))]);
    }

    #[test]
    fn a_zone_that_is_starting_takes_nothing_yet() {
        let start = Instant::now();
        let mut partition = settled(start);
        let starting = [zone("a", 2, Health::Starting), zone("b", 1, Health::Up)];
        assert_eq!(partition.follow(at(start, 1), &starting), Step::default());
        assert_eq!(partition.follow(at(start, 3), &starting).reown, [(owner("a", 1), owner("b", 1))]);
    }
}

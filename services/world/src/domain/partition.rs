//! Adapts the layout of the world to the zones that are up, and to commands of operators. A change is planned, then
//! stored, then announced to the zones.

mod command;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use shardkeep_types::{InstanceId, SectorId, SpaceId, Term};

pub(crate) use command::{LayoutCommand, LayoutCommandDone};

use crate::domain::{
    assignment::{balance, successor, target},
    effect::{Effect, Work},
    layout::{Layout, Sector, Space},
    migration::Migrations,
    population::Population,
    zone::{Health, ZoneView},
};

/// How long a sector waits for the next incarnation of its dead owner.
const OWNER_RETURN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long a zone must be up before it takes sectors from a healthy zone.
const REBALANCE_AFTER: Duration = Duration::from_secs(2);
/// How long a new term waits for zones that it has not seen yet.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long zones may take to learn that a space is closing, before it can be removed.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The avatars of a dead zone, and the zone that gets them.
type Succession = (InstanceId, InstanceId);

pub(crate) struct Partition {
    term: Term,
    since: Instant,
    /// As stored and announced.
    stored: Layout,
    /// The change that the database is storing.
    in_flight: Option<InFlight>,
    /// With all changes that follow.
    planned: Layout,
    /// Avatars that move when the plan is stored.
    planned_successions: Vec<Succession>,
    migrations: Migrations,
    up_since: BTreeMap<InstanceId, Instant>,
    dead_since: BTreeMap<InstanceId, Instant>,
    closing_since: BTreeMap<SpaceId, Instant>,
    /// Highest incarnation of each zone whose avatars were reassigned after its death.
    reassigned: BTreeMap<String, u64>,
}

struct InFlight {
    layout: Layout,
    successions: Vec<Succession>,
}

/// The zones that are up, in the order of their names.
struct UpZones<'a>(Vec<&'a InstanceId>);

impl<'a> UpZones<'a> {
    fn new(zones: &'a [ZoneView]) -> Self {
        let mut up: Vec<_> = zones.iter().filter(|zone| zone.is(Health::Up)).map(ZoneView::id).collect();
        up.sort_unstable();
        Self(up)
    }

    fn named(&self, name: &str) -> Option<&'a InstanceId> {
        self.0.iter().find(|zone| zone.name == name).copied()
    }
}

impl Partition {
    /// A partition with the layout that an earlier term has stored.
    pub(crate) fn loaded(term: Term, layout: Layout, max_migrations: usize, now: Instant) -> Self {
        Self {
            term,
            since: now,
            planned: layout.clone(),
            stored: layout,
            in_flight: None,
            planned_successions: Vec::new(),
            migrations: Migrations::new(max_migrations),
            up_since: BTreeMap::new(),
            dead_since: BTreeMap::new(),
            closing_since: BTreeMap::new(),
            reassigned: BTreeMap::new(),
        }
    }

    /// The partition of a world without a stored layout. `first` is stored with the next update.
    pub(crate) fn created(term: Term, first: Layout, max_migrations: usize, now: Instant) -> Self {
        Self { planned: first, ..Self::loaded(term, Layout::default(), max_migrations, now) }
    }

    /// The layout as stored. Nothing else is announced.
    pub(crate) fn layout(&self) -> &Layout {
        &self.stored
    }

    pub(crate) fn migrations(&self) -> &Migrations {
        &self.migrations
    }

    /// Adapts the layout to the zones. Call it at each change of the zones, and several times per second.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        zones: &[ZoneView],
        population: &Population,
    ) -> Vec<Effect> {
        let up = UpZones::new(zones);
        self.note_uptime(now, &up);
        let is_alive = |id: &InstanceId| zones.iter().any(|zone| zone.id() == id && !zone.is(Health::Gone));
        self.migrations.finish(now, |from, sector| is_alive(from) && population.has_avatars(from, sector));
        self.reassign_dead_owners(now, zones, &up, population);
        self.reassign_other_dead_zones(zones, &up, population);
        self.remove_empty_spaces(now, population);
        if !up.0.is_empty() {
            self.drop_void_pins(zones, &up);
            self.move_pinned_sectors(now, zones, &up, population);
            self.move_draining_sectors(now, zones, &up, population);
            self.assign_unowned_sectors(now, &up, population);
            if self.in_flight.is_none() && self.planned.changes_since(&self.stored).is_none() {
                self.balance(now, &up, population);
            }
        }
        self.store_plan()
    }

    /// The database has stored the change in flight.
    pub(crate) fn stored(&mut self, revision: u64) -> Vec<Effect> {
        let Some(InFlight { layout, successions }) = self.in_flight.take() else { return Vec::new() };
        self.stored = layout.at_revision(revision);
        let mut effects = vec![Effect::Partition];
        effects.extend(successions.into_iter().map(reown));
        effects.extend(self.store_plan());
        effects
    }

    /// Stores the plan, unless another change is being stored: then the plan follows it.
    fn store_plan(&mut self) -> Vec<Effect> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let successions = std::mem::take(&mut self.planned_successions);
        let Some(change) = self.planned.changes_since(&self.stored) else {
            return successions.into_iter().map(reown).collect();
        };
        self.in_flight = Some(InFlight { layout: self.planned.clone(), successions });
        vec![Effect::Start(Work::StoreLayout { term: self.term, change })]
    }

    /// The revision that contains the whole plan.
    fn planned_revision(&self) -> u64 {
        let stored = self.stored.revision();
        let (base, revision) = match &self.in_flight {
            Some(in_flight) => (&in_flight.layout, stored + 1),
            None => (&self.stored, stored),
        };
        revision + u64::from(self.planned.changes_since(base).is_some())
    }

    fn note_uptime(&mut self, now: Instant, up: &UpZones<'_>) {
        self.up_since.retain(|zone, _| up.0.contains(&zone));
        for zone in &up.0 {
            self.up_since.entry((*zone).clone()).or_insert(now);
        }
    }

    /// One zone gets all sectors of a dead owner, because one statement moves all its avatars to one zone.
    fn reassign_dead_owners(
        &mut self,
        now: Instant,
        zones: &[ZoneView],
        up: &UpZones<'_>,
        population: &Population,
    ) {
        let is_alive =
            |owner: &&InstanceId| zones.iter().any(|zone| zone.id() == *owner && !zone.is(Health::Gone));
        let owners = self.planned.sectors().filter_map(Sector::owner);
        let dead: BTreeSet<InstanceId> = owners.filter(|owner| !is_alive(owner)).cloned().collect();
        self.dead_since.retain(|owner, _| dead.contains(owner));
        for dead in dead {
            let since = *self.dead_since.entry(dead.clone()).or_insert(now);
            let waited = now >= since + OWNER_RETURN_TIMEOUT && now >= self.since + SETTLE_TIMEOUT;
            let successor = match up.named(&dead.name) {
                Some(returned) => Some(returned),
                None if waited => successor(&self.planned, population, &up.0, &dead),
                None => None,
            };
            let Some(successor) = successor.cloned() else { continue };
            for sector in self.planned.sectors_of(&dead) {
                self.planned.assign(sector, successor.clone());
            }
            // When the next incarnation is up, all earlier ones are dead.
            let next = (successor.name == dead.name).then_some(successor.incarnation);
            let last = next.unwrap_or_default().saturating_sub(1).max(dead.incarnation);
            self.reassign_avatars(InstanceId { incarnation: last, ..dead }, successor);
        }
    }

    /// Dead zones without sectors may still own avatars, from an earlier term or an interrupted drain.
    fn reassign_other_dead_zones(&mut self, zones: &[ZoneView], up: &UpZones<'_>, population: &Population) {
        for zone in zones {
            let InstanceId { name, incarnation, .. } = zone.id();
            let dead = if zone.is(Health::Gone) { *incarnation } else { incarnation.saturating_sub(1) };
            let owns = |sector: &Sector| {
                sector.owner().is_some_and(|owner| owner.name == *name && owner.incarnation <= dead)
            };
            if self.reassigned.get(name).is_some_and(|&last| last >= dead)
                || dead == 0
                || self.planned.sectors().any(owns)
            {
                continue;
            }
            let dead = InstanceId { incarnation: dead, ..zone.id().clone() };
            let successor = match zone.is(Health::Up) {
                true => Some(zone.id()),
                false => successor(&self.planned, population, &up.0, &dead),
            };
            if let Some(successor) = successor {
                self.reassign_avatars(dead, successor.clone());
            }
        }
    }

    fn reassign_avatars(&mut self, dead: InstanceId, successor: InstanceId) {
        self.reassigned.insert(dead.name.clone(), dead.incarnation);
        self.planned_successions.push((dead, successor));
    }

    /// A pin ends when another zone has the sector and the chosen zone drains, died or was never up in this term.
    fn drop_void_pins(&mut self, zones: &[ZoneView], up: &UpZones<'_>) {
        let is_starting =
            |name: &str| zones.iter().any(|zone| zone.id().name == name && zone.is(Health::Starting));
        let is_void = |sector: &&Sector| {
            let owner = sector.owner().map(|owner| owner.name.as_str());
            let is_usable = |zone: &str| up.named(zone).is_some() || is_starting(zone) || owner == Some(zone);
            sector.pinned().is_some_and(|zone| !is_usable(zone))
        };
        for sector in self.planned.sectors().filter(is_void).map(Sector::id).collect::<Vec<_>>() {
            self.planned.pin(sector, None);
        }
    }

    fn move_pinned_sectors(
        &mut self,
        now: Instant,
        zones: &[ZoneView],
        up: &UpZones<'_>,
        population: &Population,
    ) {
        let moves = self.planned.sectors().filter_map(|sector| {
            let zone = up.named(sector.pinned()?)?;
            (sector.owner() != Some(zone)).then(|| (sector.id(), zone))
        });
        for (sector, zone) in moves.collect::<Vec<_>>() {
            self.migrate(now, zones, population, sector, zone);
        }
    }

    fn move_draining_sectors(
        &mut self,
        now: Instant,
        zones: &[ZoneView],
        up: &UpZones<'_>,
        population: &Population,
    ) {
        let is_draining = |sector: &&Sector| {
            let drains = |owner| zones.iter().any(|zone| zone.id() == owner && zone.is(Health::Draining));
            sector.owner().is_some_and(drains)
        };
        let sectors: Vec<SectorId> = self.planned.sectors().filter(is_draining).map(Sector::id).collect();
        if sectors.is_empty() {
            return;
        }
        let target = target(&self.planned, population, &up.0);
        for sector in sectors {
            if let Some(zone) = target.get(&sector)
                && self.migrate(now, zones, population, sector, zone)
            {
                self.planned.pin(sector, None);
            }
        }
    }

    /// Gives a sector to another zone, if the limit of migrations allows it.
    fn migrate(
        &mut self,
        now: Instant,
        zones: &[ZoneView],
        population: &Population,
        sector: SectorId,
        to: &InstanceId,
    ) -> bool {
        let from = self.planned.sector(sector).and_then(Sector::owner).cloned();
        let is_alive = |id: &InstanceId| zones.iter().any(|zone| zone.id() == id && !zone.is(Health::Gone));
        // A sector without avatars has nothing to hand over.
        let from = from.filter(|from| is_alive(from) && population.has_avatars(from, sector));
        if self.migrations.source(sector).is_some() || from.is_some() && !self.migrations.has_room() {
            return false;
        }
        if let Some(from) = from {
            self.migrations.begin(now, sector, from);
        }
        self.planned.assign(sector, to.clone());
        true
    }

    /// The first sectors wait a moment for all zones, so that they need not move at once.
    fn assign_unowned_sectors(&mut self, now: Instant, up: &UpZones<'_>, population: &Population) {
        let unowned = self.planned.sectors().filter(|sector| sector.owner().is_none());
        let unowned: Vec<SectorId> = unowned.map(Sector::id).collect();
        let is_settling = up.0.len() < unowned.len() && now < self.since + SETTLE_TIMEOUT;
        if unowned.is_empty() || is_settling {
            return;
        }
        let target = target(&self.planned, population, &up.0);
        for sector in unowned {
            if let Some(zone) = target.get(&sector) {
                self.planned.assign(sector, (*zone).clone());
            }
        }
    }

    fn balance(&mut self, now: Instant, up: &UpZones<'_>, population: &Population) {
        let is_ready = |zone: &&InstanceId| {
            self.up_since.get(*zone).is_some_and(|&since| now >= since + REBALANCE_AFTER)
        };
        let ready: Vec<&InstanceId> = up.0.iter().copied().filter(is_ready).collect();
        if ready.len() < 2 {
            return;
        }
        let is_movable = |sector: &Sector| self.migrations.may_balance(sector.id());
        for (sector, zone) in balance(&self.planned, population, &ready, is_movable) {
            let from = self.planned.sector(sector).and_then(Sector::owner).cloned();
            let from = from.filter(|from| population.has_avatars(from, sector));
            if from.is_some() && !self.migrations.has_room() {
                continue;
            }
            if let Some(from) = from {
                self.migrations.begin(now, sector, from);
            }
            self.planned.assign(sector, zone.clone());
            self.migrations.balanced(now, sector);
        }
    }

    /// Removes closing spaces that have no avatar any more.
    fn remove_empty_spaces(&mut self, now: Instant, population: &Population) {
        let closing: Vec<SpaceId> =
            self.stored.spaces().filter(|space| space.is_closing()).map(Space::id).collect();
        self.closing_since.retain(|space, _| closing.contains(space));
        for space in closing {
            let since = *self.closing_since.entry(space).or_insert(now);
            if now >= since + CLOSE_GRACE && population.avatars_in_space(space) == 0 {
                self.planned.remove_space(space);
            }
        }
    }
}

fn reown((dead, successor): Succession) -> Effect {
    Effect::Start(Work::Reown { dead, successor })
}

#[cfg(test)]
mod tests;

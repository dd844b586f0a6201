//! Spawns come with the cells of their homes: from the zone that owned them before, or else from the map.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use shardkeep_sim::{Input, SpawnState};
use shardkeep_types::{CellId, CellRect};

use super::Space;
use crate::domain::{
    effect::{CommandError, Effect},
    partition::Table,
    payload::Destination,
};

/// How long new cells wait for the spawns of a living zone that owned them before.
const SPAWNS_WITHIN: Duration = Duration::from_secs(5);
/// The same, when this zone does not know who owned them.
const UNKNOWN_SPAWNS_WITHIN: Duration = Duration::from_secs(1);

/// Cells whose spawns will come alive.
#[derive(Debug)]
pub(super) struct Populating {
    at: Instant,
    cells: CellRect,
    generations: BTreeMap<u32, u64>,
}

impl Space {
    /// The ground of these cells is loaded, so their spawns may come alive. Another zone may still hand them over.
    pub(super) fn populate_soon(&mut self, cells: CellRect, generations: BTreeMap<u32, u64>) {
        let waits = self.spawn_waits.iter().filter(|(gained, _)| gained.distance(&cells) == Some(0));
        let at = waits.map(|(_, until)| *until).max().unwrap_or(self.now);
        self.populating.push(Populating { at, cells, generations });
        self.populate();
    }

    /// This zone does not own these cells any more, or owns them anew.
    pub(super) fn forget_waits(&mut self, cells: &CellRect) {
        let (table, me, space) = (self.table.clone(), &self.me, self.id());
        let is_mine = |gained: &CellRect| {
            let corner = CellId { space: gained.space, x: gained.x0, y: gained.y0 };
            table.of(me, space).any(|sector| sector.cells.contains(corner))
        };
        self.spawn_waits.retain(|(gained, _)| is_mine(gained));
        self.populating.retain(|next| next.cells.distance(cells) != Some(0));
    }

    /// This zone owns these cells from now on.
    pub(super) fn wait_for_spawns(&mut self, gained: CellRect, before: &Table) {
        let corner = CellId { space: gained.space, x: gained.x0, y: gained.y0 };
        let last_owner = before.owner(corner).map(|sector| (sector.zone.clone(), sector.incarnation));
        let me = (self.me.name.clone(), self.me.incarnation);
        let wait = match last_owner {
            Some(owner) if owner != me && self.table.alive.contains(&owner) => SPAWNS_WITHIN,
            Some(_) => return,
            None if self.table.alive.iter().any(|zone| *zone != me) => UNKNOWN_SPAWNS_WITHIN,
            None => return,
        };
        self.spawn_waits.push((gained, self.now + wait));
    }

    fn populate(&mut self) {
        let now = self.now;
        self.spawn_waits.retain(|(_, until)| *until > now);
        for due in self.populating.extract_if(.., |next| next.at <= now).collect::<Vec<_>>() {
            let homes = self.lost_spawns.numbers();
            let here = |number: &u32| self.home_of(*number).is_some_and(|home| due.cells.contains(home));
            let here: Vec<u32> = homes.into_iter().filter(here).collect();
            // Nobody has a later state of them.
            let own = here.into_iter().filter_map(|number| self.lost_spawns.take(number)).collect();
            self.apply(Input::Spawns(own));
            self.apply(Input::Populate { cells: due.cells, generations: due.generations });
        }
    }

    /// Continues what waits: new cells come alive, and lost spawns are offered to their zones.
    pub(super) fn advance_spawns(&mut self) {
        self.populate();
        self.give_spawns();
    }

    pub(super) fn spawns_lost(&mut self, mut lost: Vec<SpawnState>) {
        for state in &mut lost {
            let epoch = self.home_of(state.number).and_then(|home| self.cell_epochs.get(&home));
            state.epoch = epoch.copied().unwrap_or_default();
        }
        self.lost_spawns.add(self.now, lost);
    }

    /// Offers lost spawns to the zones that own their homes now. Spawns whose homes came back live here again.
    pub(super) fn give_spawns(&mut self) {
        let mut by_zone: BTreeMap<(String, u64), (Destination, Vec<SpawnState>)> = BTreeMap::new();
        let mut back = Vec::new();
        for (state, uncertain) in self.lost_spawns.due(self.now) {
            let Some(to) = self.home_of(state.number).and_then(|home| self.owner_of(home)) else { continue };
            if self.is_here(&to) {
                // Another zone that may have taken it gives it back, or the cells populate with this state.
                if !uncertain {
                    back.push(state);
                }
            } else {
                let zone = (to.name.clone(), to.incarnation);
                by_zone.entry(zone).or_insert_with(|| (to, Vec::new())).1.push(state);
            }
        }
        if !back.is_empty() {
            for state in &back {
                self.lost_spawns.take(state.number);
            }
            self.apply(Input::Spawns(back));
        }
        for (to, spawns) in by_zone.into_values() {
            self.lost_spawns.asked(&spawns);
            self.effects.push(Effect::GiveSpawns { to, spawns });
        }
    }

    /// Another zone gives spawns away. All or none are taken, and a repeat changes nothing. This zone's own old states of
    /// them are worth nothing any more.
    pub(super) fn take_spawns(&mut self, spawns: Vec<SpawnState>) -> Result<(), CommandError> {
        let is_mine = |state: &SpawnState| {
            let owner = self.home_of(state.number).and_then(|home| self.owner_of(home));
            owner.is_some_and(|to| self.is_here(&to))
        };
        if !spawns.iter().all(is_mine) {
            return Err(CommandError::Precondition("this zone does not own all homes".to_owned()));
        }
        self.apply(Input::Spawns(spawns));
        Ok(())
    }

    pub(super) fn home_of(&self, number: u32) -> Option<CellId> {
        let spawn = self.sim.map().spawns.iter().find(|spawn| spawn.number == number)?;
        Some(spawn.home.in_space(self.id(), Default::default()).cell())
    }
}

//! Spawns come with the cells of their homes: from the zone that owned them before, from its buddy if it is dead, or else
//! from the map.

use std::{collections::BTreeMap, time::Duration};

use shardkeep_sim::{EnteringAvatar, Input, SpawnState};
use shardkeep_types::{CellId, CellRect};

use super::Space;
use crate::domain::{
    effect::{CommandError, Effect},
    mirror::{AvatarSnapshot, Snapshot},
    partition::Table,
    payload::Destination,
};

const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a zone remembers avatars of a dead zone, which the world has not given to it yet.
const REMEMBER_FOR: Duration = Duration::from_secs(10);
/// How long new cells wait for the spawns of a living zone that owned them before.
const SPAWNS_WITHIN: Duration = Duration::from_secs(5);
/// The same, when the zone is dead.
const SNAPSHOT_WITHIN: Duration = Duration::from_millis(1_500);
/// The same, when this zone does not know who owned them.
const UNKNOWN_SPAWNS_WITHIN: Duration = Duration::from_secs(1);

impl Space {
    /// The ground of these cells is loaded, so their spawns may come alive. Another zone may still hand them over.
    pub(super) fn populate_soon(&mut self, cells: CellRect, generations: BTreeMap<u32, u64>) {
        self.new_cells.loaded(self.now, cells, generations);
        self.populate();
    }

    /// This zone does not own these cells any more, or owns them anew.
    pub(super) fn forget_waits(&mut self, cells: &CellRect) {
        let (table, me, space) = (self.table.clone(), &self.me, self.id());
        let is_mine = |gained: &CellRect| {
            let corner = CellId { space: gained.space, x: gained.x0, y: gained.y0 };
            table.of(me, space).any(|sector| sector.cells.contains(corner))
        };
        self.new_cells.forget(cells, is_mine);
    }

    /// This zone owns these cells from now on.
    pub(super) fn wait_for_spawns(&mut self, gained: CellRect, before: &Table) {
        let corner = CellId { space: gained.space, x: gained.x0, y: gained.y0 };
        let last_owner = before.owner(corner).map(|sector| (sector.zone.clone(), sector.incarnation));
        let me = (self.me.name.clone(), self.me.incarnation);
        let wait = match last_owner {
            Some(owner) if owner != me && self.table.alive.contains_key(&owner) => SPAWNS_WITHIN,
            // A buddy of the dead zone has a snapshot.
            Some(owner) if owner != me => SNAPSHOT_WITHIN,
            Some(_) => return,
            None if self.table.alive.keys().any(|zone| *zone != me) => UNKNOWN_SPAWNS_WITHIN,
            None => return,
        };
        self.new_cells.wait(gained, self.now + wait);
    }

    fn populate(&mut self) {
        for due in self.new_cells.due(self.now) {
            let homes = self.lost_spawns.numbers();
            let here = |number: &u32| self.home_of(*number).is_some_and(|home| due.cells.contains(home));
            let here: Vec<u32> = homes.into_iter().filter(here).collect();
            // No other zone has a later state of them.
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
        self.date(&mut lost);
        self.lost_spawns.add(self.now, lost);
    }

    /// Offers lost spawns to the zones that own their homes now. Spawns whose homes came back live here again.
    pub(super) fn give_spawns(&mut self) {
        let mut by_zone: BTreeMap<(String, u64), (Destination, Vec<SpawnState>)> = BTreeMap::new();
        let mut back = Vec::new();
        for (state, uncertain) in self.lost_spawns.due(self.now) {
            let Some(to) = self.home_of(state.number).and_then(|home| self.table.destination(home)) else {
                continue;
            };
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
    pub(super) fn take_snapshot(&mut self, snapshot: Snapshot) -> Result<(), CommandError> {
        let Snapshot { spawns, avatars } = snapshot;
        let is_mine = |state: &SpawnState| {
            let owner = self.home_of(state.number).and_then(|home| self.table.destination(home));
            owner.is_some_and(|to| self.is_here(&to))
        };
        if !spawns.iter().all(is_mine) {
            return Err(CommandError::Precondition("this zone does not own all homes".to_owned()));
        }
        self.apply(Input::Spawns(spawns));
        // The sender forgets them, so the buddy must know them soon.
        self.next_snapshot = self.now;
        let until = self.now + REMEMBER_FOR;
        self.remembered.retain(|_, (_, until)| *until > self.now);
        self.remembered.extend(avatars.into_iter().map(|avatar| (avatar.character, (avatar, until))));
        Ok(())
    }

    /// The state of an avatar in a zone that has died, if the world gives the avatar to this zone next.
    pub(super) fn recall_avatar(&mut self, entering: &mut EnteringAvatar) {
        if let Some((avatar, _)) = self.remembered.remove(&entering.character)
            && avatar.epoch.next() == entering.epoch
            && avatar.state.position.space == self.id()
        {
            avatar.state.update(entering);
        }
    }

    /// Sends the state of this space to the buddy, once per second. A new buddy gets it at once.
    pub(super) fn send_snapshot(&mut self) {
        let buddy = self.table.buddy(&self.me, self.id());
        if self.now < self.next_snapshot && buddy == self.buddy {
            return;
        }
        self.next_snapshot = self.now + SNAPSHOT_INTERVAL;
        self.buddy.clone_from(&buddy);
        let Some(to) = buddy else { return };
        let mut spawns: Vec<SpawnState> = self.sim.spawn_states().collect();
        self.date(&mut spawns);
        let playing = self.players.iter().filter(|player| player.is_playing());
        let avatars = playing.filter_map(|player| {
            let (character, epoch) = (player.character, player.epoch);
            Some(AvatarSnapshot { character, epoch, state: self.latest_state(character)? })
        });
        let snapshot = Snapshot { avatars: avatars.collect(), spawns };
        self.effects.push(Effect::Mirror { to, snapshot });
    }

    /// Adds the epochs of the homes.
    fn date(&self, spawns: &mut [SpawnState]) {
        for state in spawns {
            let epoch = self.home_of(state.number).and_then(|home| self.cell_epochs.get(&home));
            state.epoch = epoch.copied().unwrap_or_default();
        }
    }

    pub(super) fn home_of(&self, number: u32) -> Option<CellId> {
        let spawn = self.sim.map().spawns.iter().find(|spawn| spawn.number == number)?;
        Some(spawn.home.in_space(self.id(), Default::default()).cell())
    }
}

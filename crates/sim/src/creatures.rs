//! Creatures appear at their spawn points. The zone that owns the home of a creature simulates it, wherever it walks.

use std::collections::BTreeMap;

use shardkeep_types::{CellRect, EntityId, Epoch, SpawnId};

use crate::{
    body::{Body, Creature, EntityDetails},
    event::{Event, Kind, RemovalReason},
    input::{CreatureState, Goal, SpawnState},
    rules::{ATTACK_COOLDOWN_MS, CREATURE_RESPAWN_MS, INTENT_LIFETIME_MS},
    sim::{Sim, Spawn},
    template::CreatureTemplate,
};

impl Sim {
    /// The identity of a spawn point, by its index in the map.
    pub(crate) fn spawn_id(&self, spawn: usize) -> SpawnId {
        SpawnId { space: self.space, number: self.map.spawns[spawn].number }
    }

    /// Puts the next creature of a spawn point into the world, by its index in the map.
    pub(crate) fn spawn_creature(&mut self, spawn: usize) {
        let point = self.map.spawns[spawn];
        let template = CreatureTemplate::get(point.template).unwrap_or(CreatureTemplate::rabbit());
        let body = Body {
            health: template.health,
            max_health: template.health,
            template: template.number,
            ..self.new_body(EntityId::creature(self.spawn_id(spawn)), Kind::Creature, point.home)
        };
        let creature = Creature { spawn, goal: Goal::Idle, goal_until: 0, next_attack_at: 0, attacker: None };
        self.spawns[spawn].respawns_at = None;
        self.bodies.insert(body, EntityDetails::Creature(creature));
    }

    /// Spawns of owned cells come alive, except for those that live already.
    pub(crate) fn populate(&mut self, cells: CellRect, generations: &BTreeMap<u32, u64>) {
        for spawn in 0..self.spawns.len() {
            let point = self.map.spawns[spawn];
            let home = self.place(point.home).cell();
            let here = cells.contains(home) && self.owns(home);
            if here && self.spawns[spawn].generation == 0 {
                self.spawns[spawn].generation = generations.get(&point.number).map_or(1, |minted| minted + 1);
                self.spawn_creature(spawn);
            }
        }
    }

    /// Gives up the spawns whose homes this zone does not own any more.
    pub(crate) fn lose_spawns(&mut self) {
        let mut lost = Vec::new();
        for spawn in 0..self.spawns.len() {
            let is_lost = self.spawns[spawn].generation != 0
                && !self.owns(self.place(self.map.spawns[spawn].home).cell());
            if !is_lost {
                continue;
            }
            lost.push(self.spawn_state(spawn));
            self.spawns[spawn] = Spawn::default();
            self.remove_creature(spawn);
        }
        if !lost.is_empty() {
            self.events.push(Event::SpawnsLost(lost));
        }
    }

    fn remove_creature(&mut self, spawn: usize) {
        let entity = EntityId::creature(self.spawn_id(spawn));
        let is_own = |details: &EntityDetails| matches!(details, EntityDetails::Creature(_));
        if self.bodies.find(entity).is_some_and(|at| is_own(&self.bodies.details[at])) {
            self.remove_entity(entity, RemovalReason::Left);
        }
    }

    /// The state of all spawns whose homes this zone owns.
    pub fn spawn_states(&self) -> impl Iterator<Item = SpawnState> {
        let living = (0..self.spawns.len()).filter(|&spawn| self.spawns[spawn].generation != 0);
        living.map(|spawn| self.spawn_state(spawn))
    }

    fn spawn_state(&self, spawn: usize) -> SpawnState {
        let (point, state) = (self.map.spawns[spawn], &self.spawns[spawn]);
        let at = self.bodies.find(EntityId::creature(self.spawn_id(spawn)));
        let creature = at.and_then(|at| match &self.bodies.details[at] {
            EntityDetails::Creature(creature) => Some(self.creature_state(&self.bodies.hot[at], creature)),
            _ => None,
        });
        SpawnState {
            number: point.number,
            epoch: Epoch(0),
            generation: state.generation,
            respawns_in_ms: state.respawns_at.map(|at| at.saturating_sub(self.now)),
            creature,
        }
    }

    fn creature_state(&self, body: &Body, creature: &Creature) -> CreatureState {
        CreatureState {
            position: body.point(),
            velocity: (body.vx, body.vy),
            facing: body.facing,
            health: body.health,
            cooldown_ms: creature.next_attack_at.saturating_sub(self.now),
            attacker: creature.attacker,
            goal: creature.goal,
            goal_ms: creature.goal_until.saturating_sub(self.now),
        }
    }

    /// Takes over a spawn from the zone that owned its home before.
    pub(crate) fn take_spawn(&mut self, state: SpawnState) {
        let Some(spawn) = self.map.spawns.iter().position(|point| point.number == state.number) else {
            return;
        };
        let home = self.map.spawns[spawn].home;
        let known = &self.spawns[spawn];
        let is_old = known.generation != 0 && state.epoch <= known.taken;
        if is_old || !self.owns(self.place(home).cell()) {
            return;
        }
        let respawns_at = state.respawns_in_ms.map(|within| self.now + within.min(CREATURE_RESPAWN_MS));
        self.spawns[spawn] = Spawn { generation: state.generation.max(1), respawns_at, taken: state.epoch };
        match state.creature {
            Some(creature) => self.place_creature(spawn, creature),
            // It is neither alive nor about to appear.
            None if respawns_at.is_none() => self.spawn_creature(spawn),
            None => self.remove_creature(spawn),
        }
    }

    fn place_creature(&mut self, spawn: usize, state: CreatureState) {
        let entity = EntityId::creature(self.spawn_id(spawn));
        let before = self.bodies.find(entity).map(|at| self.bodies.hot[at].cell);
        self.spawn_creature(spawn);
        let at = self.map.nearest_walkable(state.position);
        let cell = self.cells.at(at.x_mm, at.y_mm);
        if let Some(before) = before.filter(|before| *before != cell) {
            self.cells.all[before as usize].record_gone(entity, RemovalReason::ToOtherCell);
        }
        let Some(index) = self.bodies.find(entity) else { return };
        let body = &mut self.bodies.hot[index];
        (body.x, body.y, body.cell) = (at.x_mm, at.y_mm, cell);
        (body.vx, body.vy) = state.velocity;
        body.facing = state.facing;
        body.health = state.health.clamp(1, body.max_health);
        if let EntityDetails::Creature(creature) = &mut self.bodies.details[index] {
            creature.attacker = state.attacker;
            creature.goal = state.goal;
            creature.goal_until = self.now + state.goal_ms.min(INTENT_LIFETIME_MS);
            creature.next_attack_at = self.now + state.cooldown_ms.min(10 * ATTACK_COOLDOWN_MS);
        }
    }
}

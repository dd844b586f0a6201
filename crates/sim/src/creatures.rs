//! Creatures appear at their spawn points.

use shardkeep_types::{EntityId, SpawnId};

use crate::{
    body::{Body, Creature, EntityDetails},
    event::Kind,
    input::Goal,
    sim::Sim,
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
}

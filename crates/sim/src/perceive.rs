//! The perceptions of creatures for the AI. Only creatures near an avatar have perceptions.

use shardkeep_types::{EntityId, Position};

use crate::{
    Sim,
    body::{Body, EntityDetails},
    event::Kind,
    rules::{MAX_PERCEIVED, PERCEPTION_RANGE},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Perception {
    pub creature: EntityId,
    pub template: u16,
    pub position: Position,
    pub home: Position,
    pub health_permille: u32,
    /// The last entity that hurt the creature.
    pub attacker: Option<EntityId>,
    /// The nearest living avatars, nearest first.
    pub near: Vec<Neighbour>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub entity: EntityId,
    pub position: Position,
}

impl Sim {
    /// The perceptions of all creatures near an avatar.
    pub fn perceptions(&mut self) -> Vec<Perception> {
        // Inputs since the last tick may have added and removed bodies.
        self.cells.sort(&self.bodies.hot);
        let bodies = self.bodies.hot.iter().zip(&self.bodies.details);
        bodies.filter_map(|(body, details)| self.perceive(body, details)).collect()
    }

    fn perceive(&self, body: &Body, details: &EntityDetails) -> Option<Perception> {
        let EntityDetails::Creature(creature) = details else { return None };
        if !self.cells.all[body.cell as usize].active {
            return None;
        }
        Some(Perception {
            creature: body.id,
            template: body.template,
            position: self.position_of(body),
            home: self.place(self.map.spawns[creature.spawn].home),
            health_permille: body.health * 1_000 / body.max_health.max(1),
            attacker: creature.attacker,
            near: self.nearest(body),
        })
    }

    fn nearest(&self, body: &Body) -> Vec<Neighbour> {
        let here = self.position_of(body);
        let cells = self.cells.around(body.cell as usize, 1);
        let others = cells.flat_map(|cell| self.cells.inside(cell)).map(|&at| &self.bodies.hot[at as usize]);
        let avatars = others.filter(|other| {
            other.kind == Kind::Avatar && other.alive() && other.within(body, PERCEPTION_RANGE)
        });
        let mut near: Vec<_> =
            avatars.map(|other| Neighbour { entity: other.id, position: self.position_of(other) }).collect();
        near.sort_unstable_by_key(|other| (other.position.distance_squared(here), other.entity));
        near.truncate(MAX_PERCEIVED);
        near
    }
}

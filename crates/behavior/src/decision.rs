//! The inputs of one decision of a creature, and the questions that a tree asks about them.

use shardkeep_types::EntityId;

use crate::{
    grid::{Point, WalkGrid},
    memory::Memory,
    path::Pathfinder,
    profile::CreatureProfile,
    tree::Condition,
};

#[derive(Debug, Clone)]
pub struct Perception {
    pub template: u32,
    pub at: Point,
    pub home: Point,
    /// Thousandths of full health.
    pub health: u32,
    /// The last entity that hurt the creature.
    pub attacker: Option<EntityId>,
    pub near: Vec<Neighbour>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub entity: EntityId,
    pub at: Point,
}

/// The intent of a creature. The zone decides whether it is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Idle,
    /// Straight to this point, at this speed in mm/s.
    Move(Point, u32),
    Attack(EntityId),
}

/// The inputs of a decision.
pub(crate) struct DecisionContext<'a> {
    pub(crate) perception: &'a Perception,
    pub(crate) profile: &'a CreatureProfile,
    pub(crate) memory: &'a mut Memory,
    pub(crate) grid: &'a WalkGrid,
    pub(crate) finder: &'a mut Pathfinder,
}

/// Within this distance of its home, a creature has returned.
const HOME_MM: i32 = 3_000;

impl DecisionContext<'_> {
    pub(crate) fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::BeyondLeash => self.memory.returning,
            Condition::Threatened => self.threat().is_some(),
            Condition::Provoked => self.combat_target().is_some(),
            Condition::LowHealth => self.perception.health < self.profile.flee_health,
            Condition::InReach => self
                .combat_target()
                .is_some_and(|combat_target| combat_target.at.within(self.perception.at, self.profile.reach)),
        }
    }

    pub(crate) fn update_returning(&mut self) {
        let Perception { at, home, .. } = *self.perception;
        if !at.within(home, self.profile.leash) {
            self.memory.returning = true;
        } else if at.within(home, HOME_MM) {
            self.memory.returning = false;
        }
    }

    /// The closest avatar within the flee distance, else the attacker in sight.
    pub(crate) fn threat(&self) -> Option<Neighbour> {
        self.closest_avatar(self.profile.flee_distance).or_else(|| self.attacker())
    }

    /// The attacker, else the closest avatar within the attack distance. A target beyond the leash does not count:
    /// otherwise a creature would repeat a chase that ended at its leash.
    pub(crate) fn combat_target(&self) -> Option<Neighbour> {
        let within_leash =
            |neighbour: &Neighbour| neighbour.at.within(self.perception.home, self.profile.leash);
        let attacker = self.attacker().filter(within_leash);
        attacker.or_else(|| self.closest_avatar(self.profile.attack_distance).filter(within_leash))
    }

    fn attacker(&self) -> Option<Neighbour> {
        let attacker = self.perception.attacker?;
        self.perception.near.iter().find(|neighbour| neighbour.entity == attacker).copied()
    }

    fn closest_avatar(&self, mm: i32) -> Option<Neighbour> {
        let avatars =
            self.perception.near.iter().filter(|neighbour| neighbour.entity.as_character().is_some());
        let in_range = avatars.filter(|neighbour| mm > 0 && neighbour.at.within(self.perception.at, mm));
        in_range
            .min_by_key(|neighbour| (neighbour.at.distance_squared(self.perception.at), neighbour.entity))
            .copied()
    }
}

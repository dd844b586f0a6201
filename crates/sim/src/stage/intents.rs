//! Stage 4: applies the intents of the AI. Creatures without an intent or without an avatar nearby stand idle.

use crate::{
    Sim,
    body::EntityDetails,
    input::{Goal, Intent},
    rules::INTENT_LIFETIME_MS,
    template::CreatureTemplate,
};

/// Intents for creatures that are not here, or belong to a neighbour, are dropped.
pub(crate) fn accept(sim: &mut Sim, intents: &[Intent]) {
    for intent in intents {
        let Some(at) = sim.bodies.find(intent.creature) else { continue };
        if let EntityDetails::Creature(creature) = &mut sim.bodies.details[at] {
            creature.goal = intent.goal;
            creature.goal_until = sim.now + INTENT_LIFETIME_MS;
        }
    }
}

pub(crate) fn run(sim: &mut Sim) {
    for at in 0..sim.bodies.hot.len() {
        let EntityDetails::Creature(creature) = &sim.bodies.details[at] else { continue };
        let body = &sim.bodies.hot[at];
        let active = sim.cells.all[body.cell as usize].active;
        let goal = if !active || creature.goal_until < sim.now {
            Goal::Idle
        } else {
            resolve_goal(sim, at, creature.goal)
        };
        if let EntityDetails::Creature(creature) = &mut sim.bodies.details[at] {
            creature.goal = goal;
            if !active {
                creature.attacker = None;
            }
        }
    }
}

/// A creature approaches a target that it cannot reach yet. A creature at its goal waits.
fn resolve_goal(sim: &Sim, at: usize, goal: Goal) -> Goal {
    let Goal::Attack { target } = goal else { return goal };
    let Some(target_body) = sim.bodies.find(target).map(|at| &sim.bodies.hot[at]) else { return Goal::Idle };
    let Some(template) = CreatureTemplate::get(sim.bodies.hot[at].template) else { return Goal::Idle };
    if !target_body.alive() {
        Goal::Idle
    } else if sim.bodies.hot[at].within(target_body, template.reach) {
        goal
    } else {
        Goal::Move { x_mm: target_body.x, y_mm: target_body.y, speed: template.speed }
    }
}

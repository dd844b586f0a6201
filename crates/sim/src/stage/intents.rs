//! Stage 5: what the AI wants of creatures. Without word from it, or without anybody near, they stand idle.

use crate::{
    Sim,
    body::Mind,
    input::{Goal, Intent},
    rules::INTENT_LIVES_MS,
    template::CreatureTemplate,
};

/// Wishes for creatures that are not here, or are a neighbour's, are dropped.
pub(crate) fn accept(sim: &mut Sim, intents: &[Intent]) {
    for intent in intents {
        let Some(at) = sim.bodies.find(intent.creature) else { continue };
        if let Mind::Creature(creature) = &mut sim.bodies.minds[at] {
            creature.goal = intent.goal;
            creature.goal_until = sim.now + INTENT_LIVES_MS;
        }
    }
}

pub(crate) fn run(sim: &mut Sim) {
    for at in 0..sim.bodies.hot.len() {
        let Mind::Creature(creature) = &sim.bodies.minds[at] else { continue };
        let body = &sim.bodies.hot[at];
        let awake = sim.cells.all[body.cell as usize].awake;
        let goal =
            if !awake || creature.goal_until < sim.now { Goal::Idle } else { follow(sim, at, creature.goal) };
        if let Mind::Creature(creature) = &mut sim.bodies.minds[at] {
            creature.goal = goal;
            if !awake {
                creature.attacker = None;
            }
        }
    }
}

/// A creature that shall attack what it cannot reach yet closes in; one that has arrived waits.
fn follow(sim: &Sim, at: usize, goal: Goal) -> Goal {
    let Goal::Attack { target } = goal else { return goal };
    let Some(victim) = sim.bodies.find(target).map(|at| &sim.bodies.hot[at]) else { return Goal::Idle };
    let Some(template) = CreatureTemplate::get(sim.bodies.hot[at].template) else { return Goal::Idle };
    if !victim.alive() {
        Goal::Idle
    } else if sim.bodies.hot[at].within(victim, template.reach) {
        goal
    } else {
        Goal::Move { x_mm: victim.x, y_mm: victim.y, speed: template.speed }
    }
}

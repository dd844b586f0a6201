//! Stage 1: moves every body by its velocity, within walls and the map's edge.

use crate::{
    Map, Sim,
    body::{Body, EntityDetails},
    cells::Cells,
    input::Goal,
    rules::PARTS_PER_MM,
    template::CreatureTemplate,
    vector,
};

pub(crate) fn run(sim: &mut Sim) {
    let (map, cells, steps) = (sim.map.as_ref(), &mut sim.cells, sim.steps);
    for (body, details) in sim.bodies.hot.iter_mut().zip(&mut sim.bodies.details) {
        if body.is_frozen() {
            continue;
        }
        match details {
            EntityDetails::Avatar(avatar) => {
                let desired_velocity = if body.alive() { avatar.desired_velocity } else { (0, 0) };
                walk(body, desired_velocity, steps, map);
            }
            EntityDetails::Creature(creature) => {
                let desired_velocity = pursue(body, creature.goal, steps);
                walk(body, desired_velocity, steps, map);
            }
            EntityDetails::Ghost(_) => extrapolate(body, steps, map),
        }
        enter_cell(body, cells);
    }
}

fn enter_cell(body: &mut Body, cells: &mut Cells) {
    let into = cells.at(body.x, body.y);
    cells.enter(body, into);
}

/// Moves along each axis separately, so that a body slides along a wall. Watchers get the velocity that resulted.
fn walk(body: &mut Body, desired_velocity: (i32, i32), steps: i32, map: &Map) {
    if desired_velocity == (0, 0) {
        body.set_velocity(0, 0);
        return;
    }
    let free = |x: i32, y: i32| !map.grid.is_blocked(x, y);
    let (mut vx, mut vy) = desired_velocity;
    let (x, part) = step(body.x, body.parts.0, vx, steps);
    if vx != 0 && !free(x, body.y) {
        vx = 0;
    } else {
        (body.x, body.parts.0) = (x, part);
    }
    let (y, part) = step(body.y, body.parts.1, vy, steps);
    if vy != 0 && !free(body.x, y) {
        vy = 0;
    } else {
        (body.y, body.parts.1) = (y, part);
    }
    body.set_velocity(vx, vy);
}

/// The coordinate after `steps` steps, in millimetres and fractions of a millimetre.
fn step(mm: i32, part: i32, velocity: i32, steps: i32) -> (i32, i32) {
    let parts = part + velocity * steps;
    (mm + parts.div_euclid(PARTS_PER_MM), parts.rem_euclid(PARTS_PER_MM))
}

/// Moves a ghost with its last velocity. Only its own zone checks walls.
fn extrapolate(body: &mut Body, steps: i32, map: &Map) {
    let (x, px) = step(body.x, body.parts.0, body.vx, steps);
    let (y, py) = step(body.y, body.parts.1, body.vy, steps);
    (body.x, body.y) = (x.clamp(0, map.width_mm() - 1), y.clamp(0, map.height_mm() - 1));
    body.parts = (px, py);
}

/// The velocity towards the goal; zero when this tick reaches it.
fn pursue(body: &Body, goal: Goal, steps: i32) -> (i32, i32) {
    let Goal::Move { x_mm, y_mm, speed } = goal else { return (0, 0) };
    let fastest = CreatureTemplate::get(body.template).map_or(0, |template| template.speed);
    let speed = speed.clamp(0, fastest);
    let way = (i64::from(x_mm) - i64::from(body.x), i64::from(y_mm) - i64::from(body.y));
    let distance = vector::length(way);
    if distance * i64::from(PARTS_PER_MM) <= i64::from(speed) * i64::from(steps) {
        return (0, 0);
    }
    vector::scale(way, speed, distance)
}

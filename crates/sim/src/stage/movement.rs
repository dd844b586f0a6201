//! Stage 2: everything moves by its velocity, as far as walls, the map's edge and ownership allow.

use crate::{
    Map, Sim,
    body::{Body, Mind},
    cells::Cells,
    input::Goal,
    template::CreatureTemplate,
};

pub(crate) fn run(sim: &mut Sim) {
    let (map, cells, elapsed) = (sim.map.as_ref(), &mut sim.cells, sim.elapsed as i32);
    for (body, mind) in sim.bodies.hot.iter_mut().zip(&mut sim.bodies.minds) {
        if body.frozen {
            continue;
        }
        match mind {
            Mind::Avatar(avatar) => {
                let wish = if body.alive() { avatar.wish } else { (0, 0) };
                walk(body, wish, elapsed, map, |_, _| true);
            }
            Mind::Creature(creature) => {
                let wish = pursue(body, creature.goal, elapsed);
                let cells = &*cells;
                walk(body, wish, elapsed, map, |x, y| cells.owned(cells.at(x, y)));
            }
            Mind::Ghost(_) => glide(body, elapsed, map),
        }
        enter_cell(body, cells);
    }
}

fn enter_cell(body: &mut Body, cells: &mut Cells) {
    let into = cells.at(body.x, body.y);
    cells.enter(body, into);
}

/// Moves along each axis for itself, so that one slides along a wall. The velocity told to watchers is the one
/// that came true.
fn walk(body: &mut Body, wish: (i32, i32), elapsed: i32, map: &Map, allowed: impl Fn(i32, i32) -> bool) {
    if wish == (0, 0) {
        body.set_velocity(0, 0);
        return;
    }
    let free = |x: i32, y: i32| !map.grid.is_blocked(x, y) && allowed(x, y);
    let step = |v: i32| v * elapsed / 1_000;
    let (mut vx, mut vy) = wish;
    let x = body.x + step(vx);
    if vx != 0 && !free(x, body.y) {
        vx = 0;
    } else {
        body.x = x;
    }
    let y = body.y + step(vy);
    if vy != 0 && !free(body.x, y) {
        vy = 0;
    } else {
        body.y = y;
    }
    body.set_velocity(vx, vy);
}

/// A neighbour's entity goes on as last heard; its own zone minds the walls.
fn glide(body: &mut Body, elapsed: i32, map: &Map) {
    body.x = (body.x + body.vx * elapsed / 1_000).clamp(0, map.width_mm() - 1);
    body.y = (body.y + body.vy * elapsed / 1_000).clamp(0, map.height_mm() - 1);
}

/// Velocity towards the goal; none when it is reached within this tick.
fn pursue(body: &Body, goal: Goal, elapsed: i32) -> (i32, i32) {
    let Goal::Move { x_mm, y_mm, speed } = goal else { return (0, 0) };
    let fastest = CreatureTemplate::get(body.template).map_or(0, |template| template.speed);
    let speed = f64::from(speed.clamp(0, fastest));
    let (dx, dy) = (f64::from(x_mm) - f64::from(body.x), f64::from(y_mm) - f64::from(body.y));
    let distance = dx.hypot(dy);
    if distance <= speed * f64::from(elapsed) / 1_000.0 {
        return (0, 0);
    }
    let part = |d: f64| {
        let step = crate::rules::VELOCITY_STEP;
        (d / distance * speed) as i32 / step * step
    };
    (part(dx), part(dy))
}

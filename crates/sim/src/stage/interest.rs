//! Stage 2: finds the cell of each body, the view of each avatar, avatars that left the zone, and creatures near an
//! avatar.

use crate::{
    Event, Sim,
    body::{Body, EntityDetails},
    cells::Cells,
    event::{Kind, RemovalReason},
    rules::{GHOST_LIFETIME_MS, HANDOVER_DELAY_MS, HANDOVER_MARGIN_MM},
};

pub(crate) fn run(sim: &mut Sim) {
    forget_old_ghosts(sim);
    sim.cells.sort(&sim.bodies.hot);
    activate_cells(sim);
    watch_avatars(sim);
    sim.cancel_distant_trades();
}

fn forget_old_ghosts(sim: &mut Sim) {
    let now = sim.now;
    sim.remote_ground_items.retain(|_, (_, seen_at)| *seen_at + GHOST_LIFETIME_MS >= now);
    let is_old = |details: &EntityDetails| matches!(details, EntityDetails::Ghost(ghost) if ghost.seen_at + GHOST_LIFETIME_MS < now);
    let bodies = sim.bodies.hot.iter().zip(&sim.bodies.details);
    let old: Vec<_> = bodies.filter(|(_, details)| is_old(details)).map(|(body, _)| body.id).collect();
    for entity in old {
        sim.remove_entity(entity, RemovalReason::Left);
    }
}

/// Activates the cells with an avatar inside or next to them. Only creatures in active cells have perceptions.
fn activate_cells(sim: &mut Sim) {
    sim.cells.all.iter_mut().for_each(|cell| cell.active = false);
    for index in 0..sim.cells.all.len() {
        let has_avatar =
            sim.cells.inside(index).iter().any(|&at| sim.bodies.hot[at as usize].kind == Kind::Avatar);
        if has_avatar {
            for near in sim.cells.around(index, 1) {
                sim.cells.all[near].active = true;
            }
        }
    }
}

fn watch_avatars(sim: &mut Sim) {
    let (cells, events, now) = (&sim.cells, &mut sim.events, sim.now);
    for (body, details) in sim.bodies.hot.iter().zip(&mut sim.bodies.details) {
        let EntityDetails::Avatar(avatar) = details else { continue };
        let (character, cell) = (avatar.character, cells.id(body.cell as usize));
        if avatar.view != Some(body.cell) {
            avatar.view = Some(body.cell);
            events.push(Event::View { character, cell });
        }
        if cells.owned(body.cell) {
            avatar.outside_since = None;
            continue;
        }
        let since = *avatar.outside_since.get_or_insert(now);
        let due = is_far_outside(cells, body) || now.saturating_sub(since) >= HANDOVER_DELAY_MS;
        if !body.is_held() && body.alive() && due {
            events.push(Event::Outside { character, cell });
        }
    }
}

/// Whether the own cells are farther away than the margin of a hand-over, along both axes.
fn is_far_outside(cells: &Cells, body: &Body) -> bool {
    const M: i32 = HANDOVER_MARGIN_MM;
    let near = [(M, 0), (-M, 0), (0, M), (0, -M)];
    !near
        .into_iter()
        .any(|(dx, dy)| cells.owned(cells.at(body.x.saturating_add(dx), body.y.saturating_add(dy))))
}

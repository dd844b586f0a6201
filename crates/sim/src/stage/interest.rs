//! Stage 3: who is where, who sees from where, who has left the zone, which creatures somebody is near.

use crate::{
    Event, Sim,
    body::Mind,
    event::{Gone, Kind},
    rules::{GHOST_LIVES_MS, OUTSIDE_MS},
};

pub(crate) fn run(sim: &mut Sim) {
    forget_old_ghosts(sim);
    sim.cells.sort(&sim.bodies.hot);
    wake_cells(sim);
    watch_avatars(sim);
    sim.part_distant_traders();
}

fn forget_old_ghosts(sim: &mut Sim) {
    let now = sim.now;
    sim.beyond.retain(|_, (_, seen_at)| *seen_at + GHOST_LIVES_MS >= now);
    let is_old = |mind: &Mind| matches!(mind, Mind::Ghost(ghost) if ghost.seen_at + GHOST_LIVES_MS < now);
    let bodies = sim.bodies.hot.iter().zip(&sim.bodies.minds);
    let old: Vec<_> = bodies.filter(|(_, mind)| is_old(mind)).map(|(body, _)| body.id).collect();
    for entity in old {
        sim.take_away(entity, Gone::Left);
    }
}

/// Creatures think, and are told to the AI, only where an avatar is in the cell or beside it.
fn wake_cells(sim: &mut Sim) {
    sim.cells.all.iter_mut().for_each(|cell| cell.awake = false);
    for index in 0..sim.cells.all.len() {
        let somebody =
            sim.cells.inside(index).iter().any(|&at| sim.bodies.hot[at as usize].kind == Kind::Avatar);
        if somebody {
            for near in sim.cells.around(index, 1) {
                sim.cells.all[near].awake = true;
            }
        }
    }
}

fn watch_avatars(sim: &mut Sim) {
    let (cells, events, now) = (&sim.cells, &mut sim.events, sim.now);
    for (body, mind) in sim.bodies.hot.iter().zip(&mut sim.bodies.minds) {
        let Mind::Avatar(avatar) = mind else { continue };
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
        if !body.frozen && body.alive() && now.saturating_sub(since) >= OUTSIDE_MS {
            events.push(Event::Outside { character, cell });
        }
    }
}

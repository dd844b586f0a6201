//! Stage 5: encodes each watched and changed cell once for all watchers. A crowded cell spreads its changes over
//! several ticks instead of growing the message.

use std::sync::Arc;

use shardkeep_types::{CELL_MM, EntityId, Position};

use crate::{
    Event, Sim,
    body::{Body, EntityDetails, dirty},
    cells::GroundItem,
    event::{Appearance, CellForm, CellUpdate, Entry, Kind},
    ring::Ring,
    rules::{KEYFRAME_ENTRIES, KEYFRAME_TICKS, OUTER_TICKS, OWN_STATE_TICKS, PACKET_ENTRIES},
    template::CreatureTemplate,
};

pub(crate) fn run(sim: &mut Sim) {
    // Deaths and respawns have moved bodies since the interest stage.
    sim.cells.sort(&sim.bodies.hot);
    for index in 0..sim.cells.all.len() {
        if !sim.cells.all[index].owned {
            continue;
        }
        // Cells take turns, so that not all keyframes fall into one tick.
        let turn = sim.tick.wrapping_add(index as u64);
        publish_due(sim, index, Ring::Near, true, turn.is_multiple_of(KEYFRAME_TICKS));
        publish_due(
            sim,
            index,
            Ring::Outer,
            turn.is_multiple_of(OUTER_TICKS),
            turn.is_multiple_of(KEYFRAME_TICKS),
        );
    }
    publish_own_states(sim);
}

fn publish_due(sim: &mut Sim, index: usize, ring: Ring, delta_due: bool, keyframe_due: bool) {
    let feed = sim.cells.all[index].feed(ring);
    if !feed.watched {
        return;
    }
    if feed.keyframe || keyframe_due {
        keyframe(sim, index, ring);
    } else if delta_due {
        delta(sim, index, ring);
    }
}

fn keyframe(sim: &mut Sim, index: usize, ring: Ring) {
    let feed = sim.cells.all[index].feed(ring);
    feed.keyframe = false;
    feed.gone.clear();
    let mut entries = ground_entries(sim, index, ring, true);
    let corner = corner(sim, index);
    for place in 0..sim.cells.inside(index).len() {
        let at = sim.cells.inside(index)[place] as usize;
        let body = &mut sim.bodies.hot[at];
        *dirty_bits(body, ring) = 0;
        entries.push(entry(body, &sim.bodies.details[at], dirty::ALL, corner));
    }
    publish(sim, index, ring, true, entries);
}

fn delta(sim: &mut Sim, index: usize, ring: Ring) {
    let gone = std::mem::take(&mut sim.cells.all[index].feed(ring).gone);
    let mut entries: Vec<Entry> = Vec::new();
    for (entity, why) in gone {
        let back = sim.bodies.find(entity).is_some_and(|at| sim.bodies.hot[at].cell as usize == index);
        if !back {
            entries.push(Entry { gone: Some(why), ..empty_entry(entity) });
        }
    }
    entries.append(&mut ground_entries(sim, index, ring, false));

    let corner = corner(sim, index);
    let crowd = sim.cells.inside(index).len();
    // The start rotates through the crowd, so that the entries that waited longest come first.
    let first = if crowd > PACKET_ENTRIES { sim.tick as usize * PACKET_ENTRIES % crowd } else { 0 };
    let (mut published, mut deferred) = (0, 0);
    for place in (first..crowd).chain(0..first) {
        let at = sim.cells.inside(index)[place] as usize;
        let body = &mut sim.bodies.hot[at];
        let bits = *dirty_bits(body, ring);
        if bits == 0 {
            continue;
        }
        if published == PACKET_ENTRIES {
            deferred += 1;
            continue;
        }
        published += 1;
        *dirty_bits(body, ring) = 0;
        entries.push(entry(body, &sim.bodies.details[at], bits, corner));
    }
    sim.counts.deferred += deferred;
    if !entries.is_empty() {
        publish(sim, index, ring, false, entries);
    }
}

/// A long list becomes several updates. A keyframe is followed by parts that complete it.
fn publish(sim: &mut Sim, index: usize, ring: Ring, keyframe: bool, mut entries: Vec<Entry>) {
    sim.counts.entries += entries.len() as u64;
    let (cell, tick) = (sim.cells.id(index), sim.tick as u32);
    let (mut form, next, most) = if keyframe {
        (CellForm::Keyframe, CellForm::Part, KEYFRAME_ENTRIES)
    } else {
        (CellForm::Delta, CellForm::Delta, PACKET_ENTRIES)
    };
    loop {
        let rest = entries.split_off(entries.len().min(most));
        sim.events.push(Event::Cell(CellUpdate { cell, ring, form, tick, entries }));
        if rest.is_empty() {
            return;
        }
        (entries, form) = (rest, next);
    }
}

fn dirty_bits(body: &mut Body, ring: Ring) -> &mut u8 {
    match ring {
        Ring::Near => &mut body.near,
        Ring::Outer => &mut body.outer,
    }
}

fn corner(sim: &Sim, index: usize) -> (i32, i32) {
    let cell = sim.cells.id(index);
    (i32::from(cell.x) * CELL_MM, i32::from(cell.y) * CELL_MM)
}

fn offset(x: i32, y: i32, corner: (i32, i32)) -> (u16, u16) {
    let part = |at: i32, corner: i32| (at - corner).clamp(0, CELL_MM - 1) as u16;
    (part(x, corner.0), part(y, corner.1))
}

fn empty_entry(entity: EntityId) -> Entry {
    Entry { entity, appears: None, position: None, velocity: None, facing: None, health: None, gone: None }
}

fn entry(body: &Body, details: &EntityDetails, bits: u8, corner: (i32, i32)) -> Entry {
    let appears = bits & dirty::APPEARS != 0;
    let has = |bit: u8| appears || bits & bit != 0;
    // With `appears`, an absent velocity means that the entity stands.
    let moving = (body.vx, body.vy) != (0, 0);
    let velocity = (bits & dirty::VELOCITY != 0 && !appears) || (appears && moving);
    Entry {
        appears: appears.then(|| appearance(body, details)),
        position: has(dirty::POSITION).then(|| offset(body.x, body.y, corner)),
        velocity: velocity.then_some((body.vx as i16, body.vy as i16)),
        facing: has(dirty::FACING).then_some(body.facing),
        health: has(dirty::HEALTH).then(|| health(body)),
        ..empty_entry(body.id)
    }
}

fn appearance(body: &Body, details: &EntityDetails) -> Appearance {
    let name = match details {
        EntityDetails::Avatar(avatar) => avatar.name.clone(),
        EntityDetails::Ghost(ghost) => ghost.name.clone(),
        EntityDetails::Creature(_) => {
            Arc::from(CreatureTemplate::get(body.template).map_or("", |template| template.name))
        }
    };
    Appearance { kind: body.kind, template: body.template, name }
}

/// Rounds so that only the dead have 0, and only the unhurt have 255.
fn health(body: &Body) -> u8 {
    let part = (u64::from(body.health) * 255 / u64::from(body.max_health.max(1))).min(255) as u8;
    if body.alive() { part.max(1) } else { 0 }
}

fn ground_entries(sim: &mut Sim, index: usize, ring: Ring, all: bool) -> Vec<Entry> {
    let corner = corner(sim, index);
    let mut entries = Vec::new();
    for ground_item in &mut sim.cells.all[index].ground {
        let fresh = match ring {
            Ring::Near => &mut ground_item.near,
            Ring::Outer => &mut ground_item.outer,
        };
        if std::mem::take(fresh) || all {
            entries.push(item_entry(ground_item, corner));
        }
    }
    entries
}

fn item_entry(ground_item: &GroundItem, corner: (i32, i32)) -> Entry {
    let appears =
        Appearance { kind: Kind::Item, template: ground_item.item.template as u16, name: Arc::from("") };
    let Position { x_mm, y_mm, .. } = ground_item.at;
    Entry {
        appears: Some(appears),
        position: Some(offset(x_mm, y_mm, corner)),
        ..empty_entry(EntityId::ground_item(ground_item.item.id))
    }
}

/// Sends each player the state of the avatar when it changed, and at least once a second.
fn publish_own_states(sim: &mut Sim) {
    for at in 0..sim.bodies.hot.len() {
        let EntityDetails::Avatar(avatar) = &sim.bodies.details[at] else { continue };
        let state = sim.own_state(&sim.bodies.hot[at], avatar.last_input);
        let known = avatar.published.is_some_and(|published| {
            let same = crate::OwnState { tick: state.tick, ..published } == state;
            same && u64::from(state.tick.wrapping_sub(published.tick)) < OWN_STATE_TICKS
        });
        if known || sim.bodies.hot[at].is_frozen() {
            continue;
        }
        let EntityDetails::Avatar(avatar) = &mut sim.bodies.details[at] else { continue };
        avatar.published = Some(state);
        let character = avatar.character;
        sim.events.push(Event::AvatarState { character, state });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RemovalReason;
    use shardkeep_types::{Point, SpaceId};

    #[test]
    fn health_byte_is_zero_only_for_the_dead() {
        let sim = Sim::new(SpaceId::FIRST, Arc::new(crate::Map::meadow()), 1, 0);
        let mut body = sim.new_body(EntityId(1), Kind::Creature, Point::flat(5, 5));
        (body.health, body.max_health) = (1, 10_000);
        assert_eq!(health(&body), 1);
        body.health = 0;
        assert_eq!(health(&body), 0);
    }

    #[test]
    fn gone_reasons_have_protocol_numbers() {
        assert_eq!(
            [RemovalReason::ToOtherCell as u8, RemovalReason::Left as u8, RemovalReason::Died as u8],
            [1, 2, 3]
        );
    }
}

//! Applies inputs as they arrive, between ticks.

use shardkeep_types::{CellId, CellRect, CharacterId, EntityId, Point, Position};

use crate::{
    Event, Sim,
    body::{Avatar, Body, EntityDetails, Ghost, Hold, dirty},
    event::{Kind, Refusal, RemovalReason},
    input::{EnteringAvatar, GhostState, Input, Item, Requester},
    ring::Ring,
    rules::{ATTACK_COOLDOWN_MS, AVATAR_HEALTH, AVATAR_SPEED},
    vector,
};

/// The tolerance for clients that round their velocity up.
const SPEED_TOLERANCE: i32 = 20;

impl Sim {
    /// Applies one input at the time of the last tick, and returns what it caused. Requests are answered at once, as far
    /// as the database is not asked. Entities move and watchers get updates in ticks only.
    pub fn apply(&mut self, input: Input) -> Vec<Event> {
        apply(self, input);
        std::mem::take(&mut self.events)
    }
}

fn apply(sim: &mut Sim, input: Input) {
    match input {
        Input::Sectors(rects) => set_owned_cells(sim, &rects),
        Input::Ground { cells, items } => ground(sim, cells, &items),
        Input::Populate { cells, generations } => sim.populate(cells, &generations),
        Input::Spawns(spawns) => spawns.into_iter().for_each(|spawn| sim.take_spawn(spawn)),
        Input::Watch { cell, ring, on } => watch(sim, cell, ring, on),
        Input::Keyframe { cell, ring } => {
            if let Some(cell) = sim.cells.get_mut(cell) {
                cell.feed(ring).keyframe = true;
            }
        }
        Input::Enter(entering) => enter(sim, *entering),
        Input::Leave { character } => sim.leave(character),
        Input::Suspend { character } => hold(sim, character, Hold::Suspended),
        Input::Freeze { character } => hold(sim, character, Hold::Frozen),
        Input::Thaw { character } => hold(sim, character, Hold::Free),
        Input::Stop { character } => {
            if let Some((_, avatar)) = sim.bodies.avatar_mut(character) {
                avatar.desired_velocity = (0, 0);
            }
        }
        Input::Teleport { character, to } => {
            if to.space == sim.space {
                let to = sim.map.nearest_walkable(to.point());
                sim.teleport(character, to);
            }
        }
        Input::Move { character, sequence, velocity, facing } => {
            desired_velocity(sim, character, sequence, velocity, facing);
        }
        Input::Act { requester, act } => sim.act(requester, act),
        Input::Committed { number, outcome } => sim.finish_commit(number, outcome),
        Input::Possessions { character, possessions } => {
            if let Some((_, avatar)) = sim.bodies.avatar_mut(character) {
                avatar.possessions = possessions;
                sim.events.push(Event::Possessions { character });
            }
        }
        Input::Ghost(state) => ghost(sim, state),
        Input::ItemTaken(item) => sim.cells.remove_item(item),
        Input::GhostGone(entity) => {
            sim.remote_ground_items.remove(&entity);
            if is_ghost(sim, entity) {
                sim.remove_entity(entity, RemovalReason::Left);
            }
        }
        Input::Effect(effect) => crate::stage::combat::receive_effect(sim, effect),
        Input::EffectResult(result) => crate::stage::combat::effect_answered(sim, result),
        Input::Intents(intents) => crate::stage::intents::accept(sim, &intents),
    }
}

/// Sets the owned cells. New cells begin with a keyframe.
fn set_owned_cells(sim: &mut Sim, rects: &[CellRect]) {
    for index in 0..sim.cells.all.len() {
        let id = sim.cells.id(index);
        let owned = rects.iter().any(|rect| rect.contains(id));
        let cell = &mut sim.cells.all[index];
        if owned == cell.owned {
            continue;
        }
        cell.owned = owned;
        cell.ready = false;
        for ring in [Ring::Near, Ring::Outer] {
            let feed = cell.feed(ring);
            feed.gone.clear();
            feed.keyframe = true;
        }
        sim.cells.clear_ground(index);
    }
    sim.lose_spawns();
}

/// The ground of owned cells is loaded.
fn ground(sim: &mut Sim, cells: CellRect, items: &[(Item, Position)]) {
    for cell in cells.cells() {
        if let Some(cell) = sim.cells.get_mut(cell).filter(|cell| cell.owned) {
            cell.ready = true;
        }
    }
    for &(item, at) in items {
        if !sim.commits.moves(item.id) {
            sim.cells.place_item(item, at);
        }
    }
}

fn watch(sim: &mut Sim, cell: CellId, ring: Ring, on: bool) {
    let Some(cell) = sim.cells.get_mut(cell) else { return };
    let feed = cell.feed(ring);
    feed.watched = on;
    feed.keyframe = on;
    feed.gone.clear();
}

fn enter(sim: &mut Sim, entering: EnteringAvatar) {
    let died = entering.health == 0;
    let at = if died || entering.position.space != sim.space {
        sim.map.start
    } else {
        sim.map.nearest_walkable(entering.position.point())
    };
    let id = EntityId::avatar(entering.character);
    sim.end_interactions(entering.character);
    let body = Body {
        facing: entering.facing,
        health: if died { AVATAR_HEALTH } else { entering.health.min(AVATAR_HEALTH) },
        ..sim.new_body(id, Kind::Avatar, at)
    };
    let avatar = Avatar {
        character: entering.character,
        name: entering.name,
        epoch: entering.epoch,
        desired_velocity: vector::limit(entering.velocity, AVATAR_SPEED),
        last_input: entering.last_input,
        next_attack_at: sim.now + entering.cooldown_ms.min(ATTACK_COOLDOWN_MS),
        last_hurt_at: sim.now,
        respawns_at: None,
        outside_since: None,
        possessions: entering.possessions,
        trade: None,
        view: None,
        published: None,
    };
    // A ghost becomes an avatar of this zone. Watchers of its cell see only a new entry.
    if let Some(ghost) = sim.bodies.find(id) {
        let mut before = sim.bodies.hot[ghost].clone();
        sim.cells.enter(&mut before, body.cell);
    }
    sim.bodies.insert(body, EntityDetails::Avatar(Box::new(avatar)));
}

fn hold(sim: &mut Sim, character: CharacterId, hold: Hold) {
    if let Some((body, _)) = sim.bodies.avatar_mut(character) {
        body.hold = hold;
    }
    if hold != Hold::Free {
        // Now, because the player can still be answered. The next zone does not know these requests.
        sim.end_interactions(character);
    }
}

fn desired_velocity(sim: &mut Sim, character: CharacterId, sequence: u32, velocity: (i32, i32), facing: u8) {
    let Some((body, avatar)) = sim.bodies.avatar_mut(character) else { return };
    if sequence <= avatar.last_input {
        return;
    }
    avatar.last_input = sequence;
    if body.facing != facing {
        body.facing = facing;
        body.touch(dirty::FACING);
    }
    let clamped = vector::limit(velocity, AVATAR_SPEED);
    avatar.desired_velocity = clamped;
    let fast = |(x, y): (i32, i32)| i64::from(x) * i64::from(x) + i64::from(y) * i64::from(y);
    let limit = i64::from(AVATAR_SPEED + SPEED_TOLERANCE);
    if fast(velocity) > limit * limit {
        sim.events.push(Event::TooFast { character });
    }
}

fn is_ghost(sim: &Sim, entity: EntityId) -> bool {
    sim.bodies.find(entity).is_some_and(|at| matches!(sim.bodies.details[at], EntityDetails::Ghost(_)))
}

fn ghost(sim: &mut Sim, state: GhostState) {
    if state.entity.as_item().is_some() {
        let known = sim.remote_ground_items.insert(state.entity, (state.position, sim.now));
        if known.is_none() {
            sim.retry_pending_pickups();
        }
        return;
    }
    let kind = if state.entity.as_character().is_some() { Kind::Avatar } else { Kind::Creature };
    let Some(at) = sim.bodies.find(state.entity) else {
        if state.position.space == sim.space && sim.map.contains(state.position.cell()) {
            let mut body = sim.new_body(state.entity, kind, state.position.point());
            body.template = state.template;
            (body.vx, body.vy) = state.velocity;
            (body.health, body.max_health) = (state.health, state.max_health.max(1));
            sim.bodies.insert(body, EntityDetails::Ghost(Ghost { name: state.name, seen_at: sim.now }));
        }
        return;
    };
    // A message about an entity that belongs to this zone now is old.
    let EntityDetails::Ghost(ghost) = &mut sim.bodies.details[at] else { return };
    ghost.seen_at = sim.now;
    let body = &mut sim.bodies.hot[at];
    let jumped = (body.x - state.position.x_mm).abs() + (body.y - state.position.y_mm).abs() > 500;
    (body.x, body.y, body.parts) = (state.position.x_mm, state.position.y_mm, (0, 0));
    if jumped {
        body.touch(dirty::MOVEMENT);
    }
    body.set_velocity(state.velocity.0, state.velocity.1);
    if body.health != state.health {
        body.health = state.health;
        body.touch(dirty::HEALTH);
    }
    let cell = sim.cells.at(body.x, body.y);
    sim.cells.enter(body, cell);
}

impl Sim {
    /// Removes an avatar that is released or belongs to another zone.
    fn leave(&mut self, character: CharacterId) {
        self.end_interactions(character);
        self.remove_entity(EntityId::avatar(character), RemovalReason::Left);
    }

    /// Ends everything in which the avatar takes part, and answers all waiting requests.
    fn end_interactions(&mut self, character: CharacterId) {
        if self.bodies.avatar(character).is_none() {
            return;
        }
        self.cancel_trade_of(character);
        let is_requester = |requester: &Requester| requester.character == character;
        let sent = self.sent.values().filter_map(|sent| sent.requester);
        let others = self.pending_pickups.iter().map(|it| it.requester);
        let waiting: Vec<Requester> = sent.chain(others).filter(is_requester).collect();
        self.sent.retain(|_, sent| !sent.requester.as_ref().is_some_and(is_requester));
        self.pending_pickups.retain(|pending| !is_requester(&pending.requester));
        for requester in waiting {
            self.reply(requester, Err(Refusal::Unavailable));
        }
    }

    /// Moves the avatar to another position at once.
    pub(crate) fn teleport(&mut self, character: CharacterId, to: Point) {
        let cell = self.cells.at(to.x_mm, to.y_mm);
        let Some((body, avatar)) = self.bodies.avatar_mut(character) else { return };
        avatar.desired_velocity = (0, 0);
        body.set_velocity(0, 0);
        (body.x, body.y, body.parts) = (to.x_mm, to.y_mm, (0, 0));
        body.touch(dirty::MOVEMENT);
        let at = self.bodies.find(EntityId::avatar(character));
        if let Some(at) = at {
            self.cells.enter(&mut self.bodies.hot[at], cell);
        }
        self.events.push(Event::Placed { character, position: self.place(to) });
    }
}

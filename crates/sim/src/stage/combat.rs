//! Stage 3: resolves the attacks of creatures, deaths and respawns. Attacks of players are resolved when they arrive. Effects cross borders as idempotent messages.

use shardkeep_types::{CharacterId, EntityId, Epoch};

use crate::{
    Event, Sim,
    body::{Body, EntityDetails, dirty},
    event::{Answer, Kind, Refusal, RemovalReason, Reply},
    input::{Effect, EffectResult, Goal, HardChange, Requester, Reward},
    rules::{
        ATTACK_COOLDOWN_MS, ATTACK_DAMAGE, AVATAR_REGENERATION, AVATAR_RESPAWN_MS, CREATURE_RESPAWN_MS,
        EFFECT_GIVE_UP_MS, EFFECT_MEMORY_MS, EFFECT_REPEAT_MS, GHOST_REACH, MAX_EFFECT_DAMAGE, REACH,
        REGENERATION_PAUSE_MS, TICK_HZ,
    },
    sim::SentEffect,
    template::CreatureTemplate,
};

/// The attacker, in this zone or a neighbour.
#[derive(Debug, Clone, Copy)]
struct Attacker {
    id: EntityId,
    /// Ownership epoch of an avatar.
    epoch: Epoch,
}

pub(crate) fn run(sim: &mut Sim) {
    resolve_creature_attacks(sim);
    respawn(sim);
    regenerate(sim);
    repeat_effects(sim);
}

/// The attack of an avatar. The reply comes later when the target belongs to a neighbour, which resolves the attack.
pub(crate) fn attack(sim: &mut Sim, requester: Requester, target: EntityId) -> Answer {
    let at = sim.bodies.find(target).ok_or(Refusal::NotFound)?;
    let goal = sim.bodies.hot[at].clone();
    if goal.kind != Kind::Creature || !goal.alive() {
        return Err(Refusal::Refused("the target is not a living creature"));
    }
    let now = sim.now;
    let (body, avatar) = sim.bodies.avatar_mut(requester.character).ok_or(Refusal::NotFound)?;
    if !body.alive() {
        return Err(Refusal::Refused("a dead avatar cannot attack"));
    }
    if !body.within(&goal, REACH) {
        return Err(Refusal::Refused("out of reach"));
    }
    if now < avatar.next_attack_at {
        return Err(Refusal::Refused("the attack is on cooldown"));
    }
    avatar.next_attack_at = now + ATTACK_COOLDOWN_MS;
    let (actor, epoch) = (body.id, avatar.epoch);
    let damage = sim.random.within(ATTACK_DAMAGE.0, ATTACK_DAMAGE.1);
    if matches!(sim.bodies.details[at], EntityDetails::Ghost(_)) {
        send_effect(sim, Attacker { id: actor, epoch }, target, damage, Some(requester));
        return Ok(None);
    }
    let killed = hurt_creature(sim, target, damage, Attacker { id: actor, epoch });
    Ok(Some(Reply::Attack { damage, killed }))
}

/// Returns whether the creature died.
fn hurt_creature(sim: &mut Sim, creature: EntityId, damage: u32, by: Attacker) -> bool {
    let Some(at) = sim.bodies.find(creature) else { return false };
    let EntityDetails::Creature(details) = &mut sim.bodies.details[at] else { return false };
    details.attacker = Some(by.id);
    let spawn = details.spawn;
    let body = &mut sim.bodies.hot[at];
    body.health = body.health.saturating_sub(damage);
    body.touch(dirty::HEALTH);
    if body.alive() {
        return false;
    }
    let body = body.clone();
    sim.remove_entity(creature, RemovalReason::Died);
    die(sim, spawn, &body, by);
    true
}

/// A dead creature leaves its loot, once for its generation. The next generation appears later.
fn die(sim: &mut Sim, spawn: usize, body: &Body, by: Attacker) {
    sim.counts.deaths += 1;
    let template = CreatureTemplate::get(body.template).unwrap_or(CreatureTemplate::rabbit());
    let stacks = template.loot(&mut sim.random);
    let coins = i64::from(sim.random.within(template.coins.0, template.coins.1));
    let rewarded = |player| Reward { player, epoch: by.epoch, experience: template.experience, coins };
    let reward = by.id.as_character().map(rewarded);
    let generation = sim.spawns[spawn].generation;
    let change = HardChange::Loot {
        spawn: sim.spawn_id(spawn),
        generation,
        at: sim.position_of(body),
        stacks,
        reward,
    };
    sim.commit(change, Vec::new(), None);
    sim.spawns[spawn].generation = generation + 1;
    sim.spawns[spawn].respawns_at = Some(sim.now + CREATURE_RESPAWN_MS);
}

fn resolve_creature_attacks(sim: &mut Sim) {
    let mut attacks = Vec::new();
    for at in 0..sim.bodies.hot.len() {
        let EntityDetails::Creature(creature) = &mut sim.bodies.details[at] else { continue };
        let Goal::Attack { target } = creature.goal else { continue };
        let Some(template) = CreatureTemplate::get(sim.bodies.hot[at].template) else { continue };
        let ready = sim.now >= creature.next_attack_at;
        let reached = sim.bodies.find(target).is_some_and(|target| {
            let target = &sim.bodies.hot[target];
            target.alive() && target.kind == Kind::Avatar && sim.bodies.hot[at].within(target, template.reach)
        });
        if ready && reached {
            let EntityDetails::Creature(creature) = &mut sim.bodies.details[at] else { continue };
            creature.next_attack_at = sim.now + template.cooldown_ms;
            attacks.push((sim.bodies.hot[at].id, target, template.damage));
        }
    }
    for (actor, target, (low, high)) in attacks {
        let damage = sim.random.within(low, high);
        match target.as_character() {
            Some(character) if sim.bodies.avatar(character).is_some() => {
                hurt_avatar(sim, character, damage, actor);
            }
            _ => send_effect(sim, Attacker { id: actor, epoch: Epoch(0) }, target, damage, None),
        }
    }
}

/// Returns whether the avatar died.
fn hurt_avatar(sim: &mut Sim, character: CharacterId, damage: u32, by: EntityId) -> bool {
    let now = sim.now;
    let Some((body, avatar)) = sim.bodies.avatar_mut(character) else { return false };
    if body.is_frozen() || !body.alive() {
        return false;
    }
    body.health = body.health.saturating_sub(damage);
    body.touch(dirty::HEALTH);
    avatar.last_hurt_at = now;
    let died = !body.alive();
    if died {
        avatar.respawns_at = Some(now + AVATAR_RESPAWN_MS);
    }
    let (health, max_health) = (body.health, body.max_health);
    let at = body.point();
    sim.events.push(Event::Vitals { character, health, max_health, died });
    if died {
        sim.counts.deaths += 1;
        let position = sim.place(at);
        sim.events.push(Event::Died { character, killer: by, position });
        sim.cancel_trade_of(character);
    }
    died
}

fn respawn(sim: &mut Sim) {
    let due = |at: Option<u64>| at.is_some_and(|at| at <= sim.now);
    let spawns: Vec<_> = (0..sim.spawns.len()).filter(|&spawn| due(sim.spawns[spawn].respawns_at)).collect();
    let respawning =
        sim.bodies.avatars().filter(|(body, avatar)| !body.is_frozen() && due(avatar.respawns_at));
    let avatars: Vec<_> = respawning.map(|(_, avatar)| avatar.character).collect();
    for spawn in spawns {
        sim.spawn_creature(spawn);
    }
    for character in avatars {
        let start = sim.map.start;
        if let Some((body, avatar)) = sim.bodies.avatar_mut(character) {
            avatar.respawns_at = None;
            body.health = body.max_health;
            body.touch(dirty::HEALTH);
            let (health, max_health) = (body.health, body.max_health);
            sim.teleport(character, start);
            sim.events.push(Event::Vitals { character, health, max_health, died: false });
        }
    }
}

fn regenerate(sim: &mut Sim) {
    if !sim.tick.is_multiple_of(TICK_HZ) {
        return;
    }
    for (body, details) in sim.bodies.hot.iter_mut().zip(&sim.bodies.details) {
        let EntityDetails::Avatar(avatar) = details else { continue };
        let rested = sim.now.saturating_sub(avatar.last_hurt_at) >= REGENERATION_PAUSE_MS;
        if rested && body.alive() && !body.is_frozen() && body.health < body.max_health {
            body.health = (body.health + AVATAR_REGENERATION).min(body.max_health);
            body.touch(dirty::HEALTH);
        }
    }
}

fn send_effect(sim: &mut Sim, actor: Attacker, target: EntityId, damage: u32, requester: Option<Requester>) {
    let (actor, actor_epoch) = (actor.id, actor.epoch);
    let effect = Effect { actor, actor_epoch, number: sim.number(), target, damage };
    let sent = SentEffect { effect, requester, since: sim.now, repeat_at: sim.now + EFFECT_REPEAT_MS };
    sim.sent.insert((actor, effect.number), sent);
    sim.events.push(Event::Effect(effect));
}

fn repeat_effects(sim: &mut Sim) {
    let now = sim.now;
    let mut given_up = Vec::new();
    for (&key, sent) in &mut sim.sent {
        if now >= sent.since + EFFECT_GIVE_UP_MS {
            given_up.push(key);
        } else if now >= sent.repeat_at {
            sent.repeat_at = now + EFFECT_REPEAT_MS;
            sim.events.push(Event::Effect(sent.effect));
        }
    }
    for key in given_up {
        if let Some(requester) = sim.sent.remove(&key).and_then(|sent| sent.requester) {
            sim.reply(requester, Err(Refusal::Unavailable));
        }
    }
    sim.received.retain(|_, (at, _)| *at + EFFECT_MEMORY_MS > now);
}

/// Applies the attack of a neighbour's actor on a target of this zone. A repeat gets the first result.
pub(crate) fn receive_effect(sim: &mut Sim, effect: Effect) {
    let key = (effect.actor, effect.number);
    let result = match sim.received.get(&key) {
        Some((_, result)) => *result,
        None => {
            let result = resolve_effect(sim, effect);
            sim.received.insert(key, (sim.now, result));
            result
        }
    };
    sim.events.push(Event::EffectResult(result));
}

fn resolve_effect(sim: &mut Sim, effect: Effect) -> EffectResult {
    let Effect { actor, actor_epoch, number, target, damage } = effect;
    let damage = damage.min(MAX_EFFECT_DAMAGE);
    let missed = EffectResult { actor, number, applied: false, damage: 0, killed: false };
    let Some(at) = sim.bodies.find(target) else { return missed };
    let near = sim
        .bodies
        .find(actor)
        .is_some_and(|actor| sim.bodies.hot[actor].within(&sim.bodies.hot[at], GHOST_REACH));
    if !near || !sim.bodies.hot[at].alive() {
        return missed;
    }
    let killed = match &sim.bodies.details[at] {
        EntityDetails::Creature(_) => {
            hurt_creature(sim, target, damage, Attacker { id: actor, epoch: actor_epoch })
        }
        EntityDetails::Avatar(avatar) => {
            let character = avatar.character;
            hurt_avatar(sim, character, damage, actor)
        }
        EntityDetails::Ghost(_) => return missed,
    };
    EffectResult { actor, number, applied: true, damage, killed }
}

/// The zone of the target has resolved an effect of this zone.
pub(crate) fn effect_answered(sim: &mut Sim, result: EffectResult) {
    let Some(sent) = sim.sent.remove(&(result.actor, result.number)) else { return };
    let Some(requester) = sent.requester else { return };
    let reply = if result.applied {
        Ok(Reply::Attack { damage: result.damage, killed: result.killed })
    } else {
        Err(Refusal::Refused("missed"))
    };
    sim.reply(requester, reply);
}

//! Converts between the types of the simulation and the messages of the database, of neighbours and of the AI.

use std::sync::Arc;

use shardkeep_rpc::{
    Malformed, ai,
    dbcache::{self, Character},
    zone as peer,
};
use shardkeep_sim::{
    Effect, EffectResult, EnteringAvatar, EntityView, GhostState, Goal, Intent, Item, Perception, Possessions,
};
use shardkeep_types::{EntityId, Epoch, ItemId};

pub(crate) fn possessions(character: &Character) -> Possessions {
    let items = character.items.iter().copied().map(item).collect();
    Possessions {
        items,
        coins: character.coins,
        experience: character.experience,
        last_action: character.last_action,
    }
}

pub(crate) fn item(item: dbcache::Item) -> Item {
    Item { id: ItemId(item.id), template: item.template, count: item.count }
}

/// An avatar from the database. It stands still.
pub(crate) fn entering(character: &Character) -> Result<EnteringAvatar, Malformed> {
    let position = character.position.ok_or_else(|| Malformed::missing("position"))?;
    Ok(EnteringAvatar {
        character: character.id.into(),
        name: Arc::from(character.name.as_str()),
        epoch: Epoch(character.epoch),
        position: position.try_into()?,
        velocity: (0, 0),
        facing: character.facing as u8,
        health: character.health,
        last_input: 0,
        cooldown_ms: 0,
        possessions: possessions(character),
    })
}

/// The reverse of [`entering`], for an offer to a neighbour.
pub(crate) fn character(entering: &EnteringAvatar, account: u64, world: u32, session: &[u8]) -> Character {
    let item = |item: &Item| dbcache::Item { id: item.id.0, template: item.template, count: item.count };
    Character {
        id: entering.character.0,
        account,
        world,
        name: entering.name.to_string(),
        owner: String::new(),
        owner_incarnation: 0,
        epoch: entering.epoch.0,
        position: Some(entering.position.into()),
        facing: entering.facing.into(),
        health: entering.health,
        experience: entering.possessions.experience,
        items: entering.possessions.items.iter().map(item).collect(),
        coins: entering.possessions.coins,
        last_action: entering.possessions.last_action,
        session: session.to_vec(),
    }
}

pub(crate) fn ghost(seen: &EntityView) -> peer::Ghost {
    let state = &seen.state;
    peer::Ghost {
        entity: state.entity.0,
        kind: seen.kind as u32,
        template: state.template.into(),
        name: state.name.to_string(),
        position: Some(state.position.into()),
        vx_mm_s: state.velocity.0,
        vy_mm_s: state.velocity.1,
        health: state.health,
        max_health: state.max_health,
    }
}

/// Only avatars, creatures and items have ghosts.
pub(crate) fn ghost_state(ghost: &peer::Ghost) -> Result<GhostState, Malformed> {
    let entity = EntityId(ghost.entity);
    let known = entity.as_character().is_some() || entity.as_spawn().is_some() || entity.as_item().is_some();
    if !known {
        return Err(Malformed::new("entity", "neither avatar nor creature nor item"));
    }
    let velocity =
        |field, v: i32| i16::try_from(v).map(i32::from).map_err(|error| Malformed::new(field, error));
    Ok(GhostState {
        entity,
        template: u16::try_from(ghost.template).map_err(|error| Malformed::new("template", error))?,
        name: Arc::from(ghost.name.as_str()),
        position: ghost.position.ok_or_else(|| Malformed::missing("position"))?.try_into()?,
        velocity: (velocity("vx_mm_s", ghost.vx_mm_s)?, velocity("vy_mm_s", ghost.vy_mm_s)?),
        health: ghost.health,
        max_health: ghost.max_health,
    })
}

pub(crate) fn effect(effect: &Effect) -> peer::Effect {
    let Effect { actor, actor_epoch, number, target, damage } = *effect;
    peer::Effect { actor: actor.0, number, target: target.0, damage, actor_epoch: actor_epoch.0 }
}

pub(crate) fn effect_from_proto(effect: &peer::Effect) -> Effect {
    let peer::Effect { actor, number, target, damage, actor_epoch } = *effect;
    Effect {
        actor: EntityId(actor),
        actor_epoch: Epoch(actor_epoch),
        number,
        target: EntityId(target),
        damage,
    }
}

pub(crate) fn result(result: &EffectResult) -> peer::EffectResult {
    let EffectResult { actor, number, applied, damage, killed } = *result;
    peer::EffectResult { actor: actor.0, number, applied, damage, killed }
}

pub(crate) fn result_from_proto(result: &peer::EffectResult) -> EffectResult {
    let peer::EffectResult { actor, number, applied, damage, killed } = *result;
    EffectResult { actor: EntityId(actor), number, applied, damage, killed }
}

pub(crate) fn perception(seen: &Perception) -> ai::Perception {
    let neighbour = |near: &shardkeep_sim::Neighbour| ai::Neighbour {
        entity: near.entity.0,
        x_mm: near.position.x_mm,
        y_mm: near.position.y_mm,
    };
    ai::Perception {
        creature: seen.creature.0,
        template: seen.template.into(),
        x_mm: seen.position.x_mm,
        y_mm: seen.position.y_mm,
        home_x_mm: seen.home.x_mm,
        home_y_mm: seen.home.y_mm,
        health_permille: seen.health_permille,
        attacker: seen.attacker.map_or(0, |entity| entity.0),
        near: seen.near.iter().map(neighbour).collect(),
    }
}

pub(crate) fn intent(intent: &ai::Intent) -> Intent {
    use ai::intent::Action;
    let goal = match intent.action() {
        Action::Move => Goal::Move {
            x_mm: intent.x_mm,
            y_mm: intent.y_mm,
            speed: i32::try_from(intent.speed_mm_s).unwrap_or(i32::MAX),
        },
        Action::Attack => Goal::Attack { target: EntityId(intent.target) },
        Action::Idle | Action::Unspecified => Goal::Idle,
    };
    Intent { creature: EntityId(intent.creature), goal }
}

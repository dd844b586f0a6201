//! Converts between the types of a space and the messages of the world, the database, neighbours and the AI.

use std::sync::Arc;

use prost::Message;
use shardkeep_link::ClientMessage;
use shardkeep_rpc::{
    Malformed, ai,
    dbcache::{self, Character},
    link, session_id, world, zone as peer,
};
use shardkeep_sim::{
    CreatureState, Effect, EffectResult, EnteringAvatar, EntityView, GhostState, Goal, Intent, Item, Kind,
    Perception, Possessions, SpawnState,
};
use shardkeep_types::{
    AccountId, CellId, EntityId, Epoch, InstanceId, ItemId, Point, SpaceId, Term, WorldId,
};

use crate::domain::{
    mirror::{AvatarSnapshot, Snapshot},
    partition::{Sector, SpaceInfo, Table, ZoneName},
    payload::{
        Admission, Frame, LatestState, OfferedAvatar, PresenceReport, Present, Settlement, SoftState,
        StoredAvatar,
    },
};

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

/// A character of the database, with its owner.
pub(crate) fn stored_avatar(character: &Character) -> Result<StoredAvatar, Malformed> {
    Ok(StoredAvatar {
        owner: (character.owner.clone(), character.owner_incarnation),
        account: AccountId(character.account),
        session: session_id(&character.session).ok(),
        entering: entering(character)?,
    })
}

pub(crate) fn soft_state(state: &SoftState) -> dbcache::SoftState {
    dbcache::SoftState {
        character: state.character.0,
        epoch: state.epoch.0,
        sequence: state.sequence,
        position: Some(state.position.into()),
        facing: state.facing.into(),
        health: state.health,
    }
}

pub(crate) fn offer(from: &InstanceId, world: WorldId, offered: &OfferedAvatar) -> peer::OfferRequest {
    let Admission { session, session_epoch, account, entering } = &offered.admission;
    let session = session.as_bytes();
    peer::OfferRequest {
        from: Some(from.into()),
        session: session.to_vec(),
        session_epoch: session_epoch.0,
        account: account.0,
        epoch: entering.epoch.0,
        character: Some(character(entering, account.0, world.0, session)),
        vx_mm_s: entering.velocity.0,
        vy_mm_s: entering.velocity.1,
        last_input: entering.last_input,
        cooldown_ms: u32::try_from(entering.cooldown_ms).unwrap_or(u32::MAX),
        gateway: offered.gateway.as_deref().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn offered(request: peer::OfferRequest) -> Result<OfferedAvatar, Malformed> {
    let from = request.from.ok_or_else(|| Malformed::missing("from"))?.name;
    let character = request.character.ok_or_else(|| Malformed::missing("character"))?;
    let mut entering = entering(&character)?;
    entering.epoch = Epoch(request.epoch);
    entering.velocity = (request.vx_mm_s, request.vy_mm_s);
    entering.last_input = request.last_input;
    entering.cooldown_ms = request.cooldown_ms.into();
    let admission = Admission {
        session: session_id(&request.session)?,
        session_epoch: Epoch(request.session_epoch),
        account: AccountId(request.account),
        entering,
    };
    let gateway = (!request.gateway.is_empty()).then(|| request.gateway.into());
    Ok(OfferedAvatar { from, gateway, admission })
}

pub(crate) fn settlement(space: SpaceId, settlement: Settlement) -> peer::SettleRequest {
    let Settlement { character, epoch, committed, inputs, from, latest } = settlement;
    peer::SettleRequest {
        character: character.0,
        epoch: epoch.0,
        committed,
        pending_inputs: inputs
            .into_iter()
            .map(|input| link::ClientMessage::from(input).encode_to_vec())
            .collect(),
        pending_from: from,
        latest: latest.map(latest_state),
        space: space.0,
    }
}

pub(crate) fn settlement_from_proto(request: peer::SettleRequest) -> Result<Settlement, Malformed> {
    let input = |bytes: Vec<u8>| {
        let message = link::ClientMessage::decode(&*bytes);
        let message = message.map_err(|error| Malformed::new("pending_inputs", error))?;
        ClientMessage::try_from(message)
    };
    Ok(Settlement {
        character: request.character.into(),
        epoch: Epoch(request.epoch),
        committed: request.committed,
        inputs: request.pending_inputs.into_iter().map(input).collect::<Result<_, Malformed>>()?,
        from: request.pending_from,
        latest: request.latest.map(latest_state_from_proto).transpose()?,
    })
}

fn latest_state(latest: LatestState) -> peer::LatestState {
    peer::LatestState {
        position: Some(latest.position.into()),
        vx_mm_s: latest.velocity.0,
        vy_mm_s: latest.velocity.1,
        facing: latest.facing.into(),
        health: latest.health,
        last_input: latest.last_input,
        cooldown_ms: u32::try_from(latest.cooldown_ms).unwrap_or(u32::MAX),
    }
}

fn latest_state_from_proto(latest: peer::LatestState) -> Result<LatestState, Malformed> {
    Ok(LatestState {
        position: latest.position.ok_or_else(|| Malformed::missing("position"))?.try_into()?,
        velocity: (latest.vx_mm_s, latest.vy_mm_s),
        facing: u8::try_from(latest.facing).map_err(|error| Malformed::new("facing", error))?,
        health: latest.health,
        last_input: latest.last_input,
        cooldown_ms: latest.cooldown_ms.into(),
    })
}

/// The reverse of [`entering`], for an offer to a neighbour.
fn character(entering: &EnteringAvatar, account: u64, world: u32, session: &[u8]) -> Character {
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
fn ghost_from_proto(ghost: &peer::Ghost) -> Result<EntityView, Malformed> {
    let entity = EntityId(ghost.entity);
    let kind = match (entity.as_character(), entity.as_spawn(), entity.as_item()) {
        (Some(_), ..) => Kind::Avatar,
        (_, Some(_), _) => Kind::Creature,
        (.., Some(_)) => Kind::Item,
        _ => return Err(Malformed::new("entity", "neither avatar nor creature nor item")),
    };
    let velocity =
        |field, v: i32| i16::try_from(v).map(i32::from).map_err(|error| Malformed::new(field, error));
    let state = GhostState {
        entity,
        template: u16::try_from(ghost.template).map_err(|error| Malformed::new("template", error))?,
        name: Arc::from(ghost.name.as_str()),
        position: ghost.position.ok_or_else(|| Malformed::missing("position"))?.try_into()?,
        velocity: (velocity("vx_mm_s", ghost.vx_mm_s)?, velocity("vy_mm_s", ghost.vy_mm_s)?),
        health: ghost.health,
        max_health: ghost.max_health,
    };
    Ok(EntityView { state, kind, ghost: true })
}

pub(crate) fn frame(from: &InstanceId, space: SpaceId, frame: Frame) -> peer::PeerFrame {
    peer::PeerFrame {
        from: Some(from.into()),
        space: space.0,
        ghosts: frame.ghosts.iter().map(ghost).collect(),
        gone: frame.gone.into_iter().map(|entity| entity.0).collect(),
        effects: frame.effects.iter().map(effect).collect(),
        results: frame.results.iter().map(result).collect(),
        taken: frame.taken.into_iter().map(|item| item.0).collect(),
        rewarded: frame.rewarded.into_iter().map(|player| player.0).collect(),
        interest: frame.interest.into_iter().map(CellId::number).collect(),
        stale: frame.stale.into_iter().map(CellId::number).collect(),
    }
}

/// The news in a frame, and how many malformed ghosts were skipped. The next frame repeats ghosts.
pub(crate) fn frame_from_proto(frame: peer::PeerFrame) -> (Frame, usize) {
    let sent = frame.ghosts.len();
    let ghosts: Vec<_> = frame.ghosts.iter().filter_map(|ghost| ghost_from_proto(ghost).ok()).collect();
    let malformed = sent - ghosts.len();
    let decoded = Frame {
        ghosts,
        gone: frame.gone.into_iter().map(EntityId).collect(),
        effects: frame.effects.iter().map(effect_from_proto).collect(),
        results: frame.results.iter().map(result_from_proto).collect(),
        taken: frame.taken.into_iter().map(EntityId).collect(),
        rewarded: frame.rewarded.into_iter().map(Into::into).collect(),
        interest: frame.interest.into_iter().map(CellId::from_number).collect(),
        stale: frame.stale.into_iter().map(CellId::from_number).collect(),
    };
    (decoded, malformed)
}

fn spawn(spawn: &SpawnState) -> peer::Spawn {
    let creature = spawn.creature.map(|creature| {
        let (x_mm, y_mm, speed) = match creature.goal {
            Goal::Move { x_mm, y_mm, speed } => (x_mm, y_mm, speed),
            Goal::Idle | Goal::Attack { .. } => (0, 0, 0),
        };
        let target = match creature.goal {
            Goal::Attack { target } => target.0,
            Goal::Idle | Goal::Move { .. } => 0,
        };
        peer::Creature {
            x_mm: creature.position.x_mm,
            y_mm: creature.position.y_mm,
            z_mm: creature.position.z_mm,
            vx_mm_s: creature.velocity.0,
            vy_mm_s: creature.velocity.1,
            facing: creature.facing.into(),
            health: creature.health,
            cooldown_ms: creature.cooldown_ms,
            attacker: creature.attacker.map_or(0, |attacker| attacker.0),
            goal_ms: creature.goal_ms,
            goal_target: target,
            goal_x_mm: x_mm,
            goal_y_mm: y_mm,
            goal_speed_mm_s: speed,
        }
    });
    peer::Spawn {
        number: spawn.number,
        generation: spawn.generation,
        respawns_in_ms: spawn.respawns_in_ms,
        creature,
        epoch: spawn.epoch.0,
    }
}

fn spawn_from_proto(spawn: &peer::Spawn) -> Result<SpawnState, Malformed> {
    let creature = |creature: &peer::Creature| {
        let goal = match (creature.goal_target, creature.goal_speed_mm_s) {
            (0, 0) => Goal::Idle,
            (0, speed) => Goal::Move { x_mm: creature.goal_x_mm, y_mm: creature.goal_y_mm, speed },
            (target, _) => Goal::Attack { target: EntityId(target) },
        };
        Ok::<_, Malformed>(CreatureState {
            position: Point { x_mm: creature.x_mm, y_mm: creature.y_mm, z_mm: creature.z_mm },
            velocity: (creature.vx_mm_s, creature.vy_mm_s),
            facing: u8::try_from(creature.facing).map_err(|error| Malformed::new("facing", error))?,
            health: creature.health,
            cooldown_ms: creature.cooldown_ms,
            attacker: (creature.attacker != 0).then_some(EntityId(creature.attacker)),
            goal,
            goal_ms: creature.goal_ms,
        })
    };
    Ok(SpawnState {
        number: spawn.number,
        epoch: Epoch(spawn.epoch),
        generation: spawn.generation,
        respawns_in_ms: spawn.respawns_in_ms,
        creature: spawn.creature.as_ref().map(creature).transpose()?,
    })
}

pub(crate) fn presence(zone: &InstanceId, report: PresenceReport) -> world::PresenceReport {
    let present = |present: Present| world::Presence {
        character: present.character.0,
        name: present.name.to_string(),
        session: present.session.as_bytes().to_vec(),
        account: present.account.0,
        space: present.cell.space.0,
        cell_x: present.cell.x.into(),
        cell_y: present.cell.y.into(),
        zone: zone.name.clone(),
        epoch: present.epoch.0,
    };
    world::PresenceReport {
        zone: Some(zone.into()),
        space: report.space.0,
        complete: report.complete,
        present: report.present.into_iter().map(present).collect(),
        gone: report.gone.into_iter().map(|character| character.0).collect(),
    }
}

pub(crate) fn table(table: world::Partition) -> Result<Table, Malformed> {
    let sector = |sector: world::Sector| {
        Ok(Sector {
            cells: sector.cells.ok_or_else(|| Malformed::missing("cells"))?.try_into()?,
            zone: sector.zone,
            incarnation: sector.incarnation,
            epoch: sector.epoch,
            grpc_address: sector.grpc_address,
        })
    };
    let space =
        |space: world::Space| (SpaceId(space.space), SpaceInfo { map: space.map, closing: space.closing });
    Ok(Table {
        term: Term(table.term),
        epoch: table.epoch,
        sectors: table.sectors.into_iter().map(sector).collect::<Result<_, Malformed>>()?,
        spaces: table.spaces.into_iter().map(space).collect(),
        alive: table.alive.into_iter().filter_map(live_zone).collect(),
    })
}

fn live_zone(live: world::LiveZone) -> Option<(ZoneName, String)> {
    let zone = live.zone?;
    Some(((zone.name, zone.incarnation), live.grpc_address))
}

pub(crate) fn snapshot(from: &InstanceId, space: SpaceId, snapshot: &Snapshot) -> peer::MirrorRequest {
    peer::MirrorRequest {
        from: Some(from.into()),
        space: space.0,
        spawns: snapshot.spawns.iter().map(spawn).collect(),
        avatars: snapshot.avatars.iter().map(avatar_snapshot).collect(),
    }
}

fn avatar_snapshot(avatar: &AvatarSnapshot) -> peer::AvatarSnapshot {
    peer::AvatarSnapshot {
        character: avatar.character.0,
        epoch: avatar.epoch.0,
        state: Some(latest_state(avatar.state)),
    }
}

pub(crate) fn snapshot_from_proto(
    spawns: &[peer::Spawn],
    avatars: Vec<peer::AvatarSnapshot>,
) -> Result<Snapshot, Malformed> {
    let avatar = |avatar: peer::AvatarSnapshot| {
        Ok(AvatarSnapshot {
            character: avatar.character.into(),
            epoch: Epoch(avatar.epoch),
            state: latest_state_from_proto(avatar.state.ok_or_else(|| Malformed::missing("state"))?)?,
        })
    };
    Ok(Snapshot {
        spawns: spawns.iter().map(spawn_from_proto).collect::<Result<_, Malformed>>()?,
        avatars: avatars.into_iter().map(avatar).collect::<Result<_, Malformed>>()?,
    })
}

fn effect(effect: &Effect) -> peer::Effect {
    let Effect { actor, actor_epoch, number, target, damage } = *effect;
    peer::Effect { actor: actor.0, number, target: target.0, damage, actor_epoch: actor_epoch.0 }
}

fn effect_from_proto(effect: &peer::Effect) -> Effect {
    let peer::Effect { actor, number, target, damage, actor_epoch } = *effect;
    Effect {
        actor: EntityId(actor),
        actor_epoch: Epoch(actor_epoch),
        number,
        target: EntityId(target),
        damage,
    }
}

fn result(result: &EffectResult) -> peer::EffectResult {
    let EffectResult { actor, number, applied, damage, killed } = *result;
    peer::EffectResult { actor: actor.0, number, applied, damage, killed }
}

fn result_from_proto(result: &peer::EffectResult) -> EffectResult {
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

#[cfg(test)]
mod tests {
    use shardkeep_types::CellRect;

    use super::*;

    #[test]
    fn partition_names_the_map_of_each_space() {
        let sector = |space| world::Sector {
            cells: Some(CellRect { space: SpaceId(space), x0: 0, y0: 0, x1: 2, y1: 1 }.into()),
            ..world::Sector::default()
        };
        let space = |space, map: &str| world::Space { space, map: map.into(), ..world::Space::default() };
        let partition = world::Partition {
            sectors: vec![sector(1), sector(2)],
            spaces: vec![space(1, "meadow"), space(2, "ring")],
            ..world::Partition::default()
        };
        let table = table(partition).unwrap();
        assert_eq!(table.sectors.len(), 2);
        assert_eq!(table.spaces[&SpaceId(2)], SpaceInfo { map: "ring".into(), closing: false });
    }
}

//! Conversions between messages of other daemons and the world's types.

use std::sync::Arc;

use shardkeep_rpc::{Malformed, common, dbcache, session_id, world as proto};
use shardkeep_types::{
    AccountId, CellId, CharacterId, Epoch, InstanceId, MapId, Position, Secret, Term, WorldId,
};

use crate::{
    directory::SessionActivity,
    partition::{Owner, Partition, ZoneView},
    presence::{Avatar, Delta},
    sessions::{Claim, PresentedSession, Session},
};

/// Length limit of resume keys, which have 32 bytes.
const KEY_BYTES: usize = 32;

pub(crate) fn presented(
    gateway: &Arc<str>,
    opening: proto::Opening,
) -> Result<(PresentedSession, SessionActivity), Malformed> {
    let activity = SessionActivity {
        character: (opening.character != 0).then_some(CharacterId(opening.character)),
        queue_place: opening.queue_place,
    };
    let presented = PresentedSession {
        session: session_id(&opening.session)?,
        epoch: Epoch(opening.session_epoch),
        account: AccountId(opening.account),
        account_name: opening.account_name,
        generation: shardkeep_types::Generation(opening.generation),
        gateway: gateway.clone(),
        key: key("resume_key", opening.resume_key)?,
    };
    Ok((presented, activity))
}

pub(crate) fn claim(request: proto::ClaimSessionRequest) -> Result<Claim, Malformed> {
    Ok(Claim {
        session: session_id(&request.session)?,
        from: Epoch(request.from_epoch),
        gateway: request.gateway.into(),
        used_key: key("used_key", request.used_key)?,
        next_key: key("next_key", request.next_key)?,
    })
}

/// The gateways that a claiming gateway asks for the session's state.
pub(crate) fn holders(session: &Session) -> Vec<proto::Holder> {
    let holder = session
        .holders()
        .iter()
        .map(|holder| proto::Holder { gateway: holder.gateway.to_string(), session_epoch: holder.epoch.0 });
    holder.collect()
}

fn key(field: &'static str, bytes: Vec<u8>) -> Result<Secret<Vec<u8>>, Malformed> {
    if bytes.len() != KEY_BYTES {
        return Err(Malformed::new(field, format!("expected {KEY_BYTES} bytes, got {}", bytes.len())));
    }
    Ok(bytes.into())
}

/// A zone's report of one avatar, which is in the reporting zone.
pub(crate) fn avatar(zone: &Owner, present: proto::Presence) -> Result<Avatar, Malformed> {
    let side = |field, value: u32| u16::try_from(value).map_err(|error| Malformed::new(field, error));
    Ok(Avatar {
        character: CharacterId(present.character),
        session: session_id(&present.session)?,
        account: AccountId(present.account),
        cell: CellId {
            map: MapId(side("map", present.map)?),
            x: side("cell_x", present.cell_x)?,
            y: side("cell_y", present.cell_y)?,
        },
        zone: zone.clone(),
        epoch: Epoch(present.epoch),
        name: present.name,
    })
}

/// A newly admitted avatar.
pub(crate) fn admitted(
    character: &dbcache::Character,
    zone: &Owner,
    at: Option<common::Position>,
) -> Result<Avatar, Malformed> {
    let at = at.or(character.position).ok_or_else(|| Malformed::missing("position"))?;
    Ok(Avatar {
        character: CharacterId(character.id),
        name: character.name.clone(),
        session: session_id(&character.session)?,
        account: AccountId(character.account),
        cell: Position::try_from(at)?.cell(),
        zone: zone.clone(),
        epoch: Epoch(character.epoch),
    })
}

pub(crate) fn zone(id: Option<common::InstanceId>) -> Result<Owner, Malformed> {
    let id: InstanceId = id.ok_or_else(|| Malformed::missing("zone"))?.try_into()?;
    Ok(Owner { name: id.name, incarnation: id.incarnation })
}

/// A change of presence, for watchers.
pub(crate) fn report(delta: &Delta) -> proto::PresenceReport {
    proto::PresenceReport {
        zone: None,
        complete: false,
        present: delta.present.iter().map(presence).collect(),
        gone: delta.gone.iter().map(|character| character.0).collect(),
    }
}

pub(crate) fn presence(avatar: &Avatar) -> proto::Presence {
    proto::Presence {
        character: avatar.character.0,
        name: avatar.name.clone(),
        session: avatar.session.as_bytes().to_vec(),
        account: avatar.account.0,
        map: avatar.cell.map.0.into(),
        cell_x: avatar.cell.x.into(),
        cell_y: avatar.cell.y.into(),
        zone: avatar.zone.name.clone(),
        epoch: avatar.epoch.0,
    }
}

pub(crate) fn partition(term: Term, table: &Partition, zones: &[ZoneView]) -> proto::Partition {
    let sector = |sector: &crate::partition::Sector| {
        let owner = sector.owner.clone().unwrap_or(Owner { name: String::new(), incarnation: 0 });
        let zone = zones.iter().find(|zone| zone.owner == owner);
        proto::Sector {
            cells: Some(sector.cells.into()),
            grpc_address: zone.map(|zone| zone.grpc_address.clone()).unwrap_or_default(),
            zone: owner.name,
            incarnation: owner.incarnation,
            epoch: sector.epoch.0,
        }
    };
    proto::Partition {
        term: term.0,
        epoch: table.epoch().0,
        sectors: table.sectors().iter().map(sector).collect(),
    }
}

/// Whether the character belongs to this account and this world.
pub(crate) fn belongs_to(character: &dbcache::Character, account: AccountId, world: WorldId) -> bool {
    character.account == account.0 && character.world == world.0
}

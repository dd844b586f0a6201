//! Conversions between messages of other daemons and the world's types.

use std::sync::Arc;

use shardkeep_rpc::{Malformed, common, dbcache, session_id, world as proto};
use shardkeep_types::{
    AccountId, CellId, CharacterId, DaemonKind, Epoch, Generation, InstanceId, Position, SessionId, SpaceId,
    WorldId,
};

use crate::domain::{
    players::SessionActivity,
    presence::Avatar,
    sessions::{Claim, Key, Session},
};

/// Length limit of resume keys, which have 32 bytes.
const KEY_BYTES: usize = 32;

pub(crate) fn presented(
    gateway: &Arc<str>,
    opening: proto::Opening,
) -> Result<(SessionId, Session, SessionActivity), Malformed> {
    let activity = match (opening.character, opening.queue_place) {
        (0, 0) => SessionActivity::Unknown,
        (0, place) => SessionActivity::Queued(place),
        (character, _) => SessionActivity::Inside(CharacterId(character)),
    };
    let id = session_id(&opening.session)?;
    let session = Session::presented(
        Epoch(opening.session_epoch),
        AccountId(opening.account),
        opening.account_name,
        Generation(opening.generation),
        gateway.clone(),
        key("resume_key", opening.resume_key)?,
    );
    Ok((id, session, activity))
}

pub(crate) fn claim(request: proto::ClaimSessionRequest) -> Result<(SessionId, Claim), Malformed> {
    let session = session_id(&request.session)?;
    let (used, next) = (key("used_key", request.used_key)?, key("next_key", request.next_key)?);
    Ok((session, Claim::new(Epoch(request.from_epoch), request.gateway.into(), used, next)))
}

/// The gateways that a claiming gateway asks for the session's state.
pub(crate) fn holders(session: &Session) -> Vec<proto::Holder> {
    let holders = session.holders().iter();
    let holders = holders
        .map(|(gateway, epoch)| proto::Holder { gateway: gateway.to_string(), session_epoch: epoch.0 });
    holders.collect()
}

fn key(field: &'static str, bytes: Vec<u8>) -> Result<Key, Malformed> {
    if bytes.len() != KEY_BYTES {
        return Err(Malformed::new(field, format!("expected {KEY_BYTES} bytes, got {}", bytes.len())));
    }
    Ok(bytes.into())
}

/// A zone's report of one avatar, which is in the reporting zone.
pub(crate) fn avatar(zone: &InstanceId, present: proto::Presence) -> Result<Avatar, Malformed> {
    let side = |field, value: u32| u16::try_from(value).map_err(|error| Malformed::new(field, error));
    Ok(Avatar::new(
        CharacterId(present.character),
        present.name,
        session_id(&present.session)?,
        AccountId(present.account),
        CellId {
            space: SpaceId(present.space),
            x: side("cell_x", present.cell_x)?,
            y: side("cell_y", present.cell_y)?,
        },
        zone.clone(),
        Epoch(present.epoch),
    ))
}

/// A newly admitted avatar of this session.
pub(crate) fn admitted(
    character: dbcache::Character,
    session: SessionId,
    zone: &InstanceId,
    at: Option<common::Position>,
) -> Result<Avatar, Malformed> {
    let at = at.or(character.position).ok_or_else(|| Malformed::missing("position"))?;
    Ok(Avatar::new(
        CharacterId(character.id),
        character.name,
        session,
        AccountId(character.account),
        Position::try_from(at)?.cell(),
        zone.clone(),
        Epoch(character.epoch),
    ))
}

pub(crate) fn zone(id: Option<common::InstanceId>) -> Result<InstanceId, Malformed> {
    let id: InstanceId = id.ok_or_else(|| Malformed::missing("zone"))?.try_into()?;
    Ok(InstanceId { kind: DaemonKind::Zone, ..id })
}

/// A change of presence, for watchers.
pub(crate) fn report(present: &[Avatar], gone: &[CharacterId]) -> proto::PresenceReport {
    proto::PresenceReport {
        present: present.iter().map(presence).collect(),
        gone: gone.iter().map(|character| character.0).collect(),
        ..proto::PresenceReport::default()
    }
}

pub(crate) fn presence(avatar: &Avatar) -> proto::Presence {
    let cell = avatar.cell();
    proto::Presence {
        character: avatar.character().0,
        name: avatar.name().to_owned(),
        session: avatar.session().as_bytes().to_vec(),
        account: avatar.account().0,
        space: cell.space.0,
        cell_x: cell.x.into(),
        cell_y: cell.y.into(),
        zone: avatar.zone().name.clone(),
        epoch: avatar.epoch().0,
    }
}

/// Whether the character belongs to this account and this world.
pub(crate) fn belongs_to(character: &dbcache::Character, account: AccountId, world: WorldId) -> bool {
    character.account == account.0 && character.world == world.0
}

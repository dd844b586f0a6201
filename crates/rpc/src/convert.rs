//! Bytes and strings of messages become types here, and nowhere later.

use shardkeep_types::{
    CellId, CellRect, CharacterId, GroupKey, InstanceId, Layer, Position, SessionId, SpaceId, WorldId,
};
use tonic::Status;

use crate::{common, dbcache, link};

/// A field of a peer's message is missing or not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("field `{field}`: {reason}")]
pub struct Malformed {
    field: &'static str,
    reason: String,
}

impl Malformed {
    #[expect(clippy::needless_pass_by_value, reason = "errors and texts are passed as they come")]
    pub fn new(field: &'static str, reason: impl ToString) -> Self {
        Self { field, reason: reason.to_string() }
    }

    pub fn missing(field: &'static str) -> Self {
        Self::new(field, "missing")
    }
}

impl From<Malformed> for Status {
    fn from(error: Malformed) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

impl From<&InstanceId> for common::InstanceId {
    fn from(id: &InstanceId) -> Self {
        Self { kind: id.kind.to_string(), name: id.name.clone(), incarnation: id.incarnation }
    }
}

impl TryFrom<common::InstanceId> for InstanceId {
    type Error = Malformed;

    fn try_from(id: common::InstanceId) -> Result<Self, Malformed> {
        let kind = id.kind.parse().map_err(|error| Malformed::new("kind", error))?;
        if id.name.is_empty() {
            return Err(Malformed::missing("name"));
        }
        Ok(Self { kind, name: id.name, incarnation: id.incarnation })
    }
}

impl From<Position> for common::Position {
    fn from(at: Position) -> Self {
        let Position { space, layer, x_mm, y_mm, z_mm } = at;
        Self { space: space.0, layer: layer.0.into(), x_mm, y_mm, z_mm }
    }
}

impl TryFrom<common::Position> for Position {
    type Error = Malformed;

    fn try_from(at: common::Position) -> Result<Self, Malformed> {
        let layer = u16::try_from(at.layer).map_err(|error| Malformed::new("layer", error))?;
        let common::Position { space, x_mm, y_mm, z_mm, .. } = at;
        Ok(Self { space: SpaceId(space), layer: Layer(layer), x_mm, y_mm, z_mm })
    }
}

impl From<CellRect> for common::CellRect {
    fn from(rect: CellRect) -> Self {
        Self {
            space: rect.space.0,
            x0: rect.x0.into(),
            y0: rect.y0.into(),
            x1: rect.x1.into(),
            y1: rect.y1.into(),
        }
    }
}

impl TryFrom<common::CellRect> for CellRect {
    type Error = Malformed;

    fn try_from(rect: common::CellRect) -> Result<Self, Malformed> {
        let side = |field, value: u32| u16::try_from(value).map_err(|error| Malformed::new(field, error));
        let (x0, y0, x1, y1) =
            (side("x0", rect.x0)?, side("y0", rect.y0)?, side("x1", rect.x1)?, side("y1", rect.y1)?);
        if x0 > x1 || y0 > y1 {
            return Err(Malformed::new("rect", "the first corner lies behind the second"));
        }
        Ok(Self { space: SpaceId(rect.space), x0, y0, x1, y1 })
    }
}

impl From<GroupKey> for link::Group {
    fn from(key: GroupKey) -> Self {
        Self { kind: key.kind().into(), namespace: key.namespace(), number: key.number() }
    }
}

impl TryFrom<link::Group> for GroupKey {
    type Error = Malformed;

    fn try_from(group: link::Group) -> Result<Self, Malformed> {
        let kind = u16::try_from(group.kind).map_err(|error| Malformed::new("group.kind", error))?;
        if group.namespace >> 48 != 0 {
            return Err(Malformed::new("group.namespace", "more than 48 bits"));
        }
        Ok(GroupKey::new(kind, group.namespace, group.number))
    }
}

impl From<CharacterId> for dbcache::LedgerAccount {
    fn from(character: CharacterId) -> Self {
        Self { account: Some(dbcache::ledger_account::Account::Character(character.0)) }
    }
}

impl From<(WorldId, CellId)> for dbcache::LedgerAccount {
    fn from((world, cell): (WorldId, CellId)) -> Self {
        let ground =
            dbcache::GroundCell { world: world.0, space: cell.space.0, x: cell.x.into(), y: cell.y.into() };
        Self { account: Some(dbcache::ledger_account::Account::Ground(ground)) }
    }
}

/// The session id of a message field.
///
/// # Errors
/// When the field does not hold 16 bytes.
pub fn session_id(bytes: &[u8]) -> Result<SessionId, Malformed> {
    SessionId::try_from(bytes).map_err(|error| Malformed::new("session", error))
}

//! The types that every crate shares: identifiers, versions, positions, secrets and rate limits. Each kind of number has
//! its own type, so that the compiler refuses a session where an account is expected, or an epoch where a tick is.

mod group;
mod id;
mod kind;
mod lock;
mod mask_url;
mod position;
mod random;
mod rate_limit;
mod secret;
mod store;
mod utc;
mod version;

pub use group::{GroupKey, group_kind};
pub use id::{
    AccountId, CharacterId, EntityId, InstanceId, ItemId, ParseIdError, SectorId, SessionId, SpawnId,
    TicketId, WorldId,
};
pub use kind::{BackendKind, DaemonKind, UnknownKind};
pub use lock::FileLock;
pub use mask_url::mask_url;
pub use position::{CELL_MM, CellId, CellRect, Layer, Point, Position, SpaceId};
pub use random::Random;
pub use rate_limit::{KeyedLimiter, TokenBucket, evict_expired};
pub use secret::Secret;
pub use store::{InvalidStoreIdentity, StoreIdentity};
pub use utc::{parse_utc, utc_millisecond, utc_minute, utc_second};
pub use version::{Epoch, Generation, Term};

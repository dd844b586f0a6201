//! The words of the cluster as types: who, where, which version. Every crate and every message uses these, so
//! that a session is never mistaken for an account, nor an epoch for a tick.

mod group;
mod id;
mod kind;
mod lock;
mod position;
mod rate_limit;
mod secret;
mod store;
mod utc;
mod version;

pub use group::{GroupKey, group_kind};
pub use id::{
    AccountId, CharacterId, EntityId, InstanceId, ItemId, ParseIdError, SessionId, TicketId, WorldId,
};
pub use kind::{BackendKind, DaemonKind, UnknownKind};
pub use lock::FileLock;
pub use position::{CELL_MM, CellId, CellRect, MapId, Position};
pub use rate_limit::{KeyedLimiter, TokenBucket, evict_expired};
pub use secret::Secret;
pub use store::{InvalidStoreIdentity, StoreIdentity};
pub use utc::{utc_minute, utc_second};
pub use version::{Epoch, Generation, Term};

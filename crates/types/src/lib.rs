//! The words of the cluster as types: who, where, which version. Every crate and every message uses these, so
//! that a session is never mistaken for an account, nor an epoch for a tick.

mod civil;
mod group;
mod id;
mod kind;
mod lock;
mod place;
mod secret;
mod store;
mod version;

pub use civil::Civil;
pub use group::{GroupKey, group_kind};
pub use id::{
    AccountId, CharacterId, EntityId, InstanceId, ItemId, ParseIdError, SessionId, TicketId, WorldId,
};
pub use kind::{BackendKind, DaemonKind, UnknownKind};
pub use lock::FileLock;
pub use place::{CELL_MM, CellId, CellRect, MapId, Position};
pub use secret::Secret;
pub use store::{NotAStoreMark, StoreMark};
pub use version::{Epoch, Generation, Term};

//! A session as it goes from one gateway to another.

use std::sync::Arc;

use bytes::Bytes;
use shardkeep_auth::Key;
use shardkeep_link::ClientMessage;
use shardkeep_types::{BackendKind, Epoch, GroupKey};

/// Everything that the next gateway needs beside what the world tells it.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) received_from_client: u64,
    pub(crate) sent_to_client: u64,
    pub(crate) unacknowledged: Vec<Bytes>,
    pub(crate) bindings: Vec<HeldBinding>,
    pub(crate) groups: Vec<GroupKey>,
    /// Backends that keep what they say to the session.
    pub(crate) fenced: Vec<Arc<str>>,
    /// Requests that backends have not answered.
    pub(crate) pending: Vec<(u32, BackendKind)>,
    pub(crate) character: u64,
    pub(crate) queue_place: u32,
    /// The key that the client proved when its log was last begun anew.
    pub(crate) restart_key: Option<Key>,
}

/// A binding, and the client messages that wait for its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldBinding {
    pub(crate) kind: BackendKind,
    pub(crate) instance: Arc<str>,
    pub(crate) epoch: Epoch,
    pub(crate) held: Vec<ClientMessage>,
}

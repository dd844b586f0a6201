//! Changes of a session that backends have to be told.

use std::sync::Arc;

use shardkeep_link::{ClientMessage, SessionChange};
use shardkeep_types::Epoch;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BackendEffect {
    Changed(SessionChange),
    /// The session is bound to the instance with this bind epoch.
    Bound(Epoch),
    /// Client messages that were held for the instance.
    Deliver(Vec<ClientMessage>),
    /// The session leaves this gateway: the instance has to keep what it says to the session.
    Fence,
    /// The session has arrived: the instance has to send what it kept.
    Lift,
}

/// Effects in order, each with the backend instance that has to be told. Apply them under the session's lock, so that
/// a backend receives changes in the order in which they happened.
pub(crate) type Effects = Vec<(Arc<str>, BackendEffect)>;

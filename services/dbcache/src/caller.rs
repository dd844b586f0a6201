//! Turns the certificate of a peer into a caller of the store, and refuses requests that the certificate does not allow.

use std::sync::Arc;

use shardkeep_cluster::Peer;
use shardkeep_store::game::Caller;
use shardkeep_types::{DaemonKind, WorldId};

use crate::error::CallError;

/// The caller behind a certificate of a world or a zone.
///
/// # Errors
/// [`CallError::Forbidden`] for other kinds, and for a certificate that names no world.
pub(crate) fn caller_of(peer: &Peer) -> Result<Arc<Caller>, CallError> {
    if peer.world.0 == 0 {
        return Err(CallError::Forbidden(format!("the certificate of {peer} names no world")));
    }
    match peer.kind {
        DaemonKind::Zone => Ok(Arc::new(Caller::Zone { world: peer.world, name: peer.name.clone() })),
        DaemonKind::World => Ok(Arc::new(Caller::World(peer.world))),
        _ => Err(CallError::Forbidden(format!("{peer} is neither a world nor a zone"))),
    }
}

/// A daemon acts for the world in its certificate only.
pub(crate) fn check_world(peer: &Peer, world: u32) -> Result<WorldId, CallError> {
    if peer.world.0 == 0 || peer.world.0 != world {
        let own = peer.world;
        return Err(CallError::Forbidden(format!(
            "{peer} has a certificate for world {own}, not for world {world}"
        )));
    }
    Ok(peer.world)
}

/// A daemon acts under the name in its certificate only.
pub(crate) fn check_name(peer: &Peer, name: &str) -> Result<(), CallError> {
    if peer.name == name { Ok(()) } else { Err(CallError::Forbidden(format!("{peer} is not {name:?}"))) }
}

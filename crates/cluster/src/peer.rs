//! Who calls: the identity in a peer's certificate.

use shardkeep_types::{DaemonKind, WorldId};
use tonic::{Request, Status};

/// The caller, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub kind: DaemonKind,
    pub name: String,
    /// 0: of the whole region.
    pub world: WorldId,
}

impl Peer {
    /// The caller of this request.
    ///
    /// # Errors
    /// `Unauthenticated` when the request did not come through [`crate::Node::serve`].
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| Status::unauthenticated("no peer certificate"))
    }
}

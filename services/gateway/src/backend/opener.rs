//! Opening sessions at their worlds. One call carries as many as have gathered: in a storm a call for each would cost
//! more than everything else about an attach.

use std::time::Duration;

use shardkeep_cluster::{Gather, Instance, Node, Pace};
use shardkeep_rpc::{
    many::outcome,
    world::{OpenSessionsRequest, Opened, Opening, world_client::WorldClient},
};
use shardkeep_types::{DaemonKind, Epoch};
use tonic::Status;

use super::world::{DEADLINE, deadline};

const PACE: Pace = Pace {
    most: 256,
    interval: Duration::from_millis(5),
    // Each belongs to a connection in its handshake or to a session that is presented, and both are bounded.
    waiting: usize::MAX,
    deadline: DEADLINE,
};

/// Clones share their calls.
#[derive(Clone)]
pub(super) struct Opener(Gather<String, Opening, Opened, Status>);

impl Opener {
    pub(super) fn new(node: &Node) -> Self {
        let node = node.clone();
        Self(Gather::new("open_sessions", PACE, move |address: String, openings| {
            let mut client = WorldClient::new(node.channel(DaemonKind::World, &address));
            let request = OpenSessionsRequest { gateway: node.id().name.clone(), openings };
            Box::pin(async move { Ok(client.open_sessions(deadline(request)).await?.into_inner().opened) })
        }))
    }

    /// The session's epoch, once the leader knows it.
    pub(super) async fn open(&self, leader: &Instance, opening: Opening) -> Result<Epoch, Status> {
        let opened = self.0.ask(&leader.grpc_address, opening).await?;
        outcome(opened.code, &opened.detail)?;
        Ok(Epoch(opened.session_epoch))
    }
}

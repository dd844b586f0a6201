//! Opens sessions at their worlds. One call carries all sessions that came meanwhile: in a login storm, a call for each
//! would cost more than everything else about an attach.

use std::time::Duration;

use shardkeep_cluster::{BatchPolicy, Instance, Node, RequestBatcher};
use shardkeep_rpc::{
    batched_call::outcome,
    world::{OpenSessionsRequest, Opened, Opening, world_client::WorldClient},
};
use shardkeep_types::{DaemonKind, Epoch};
use tonic::Status;

use super::deadline::{self, DEADLINE};

const BATCH_POLICY: BatchPolicy = BatchPolicy {
    max_requests: 256,
    interval: Duration::from_millis(5),
    // Connections in their handshake and sessions that are presented are bounded already.
    waiting: usize::MAX,
    deadline: DEADLINE,
};

/// Clones share their calls.
#[derive(Clone)]
pub(super) struct SessionOpener(RequestBatcher<String, Opening, Opened, Status>);

impl SessionOpener {
    pub(super) fn new(node: &Node) -> Self {
        let node = node.clone();
        Self(RequestBatcher::new("open_sessions", BATCH_POLICY, move |address: String, openings| {
            let mut client = WorldClient::new(node.channel(DaemonKind::World, &address));
            let request = OpenSessionsRequest { gateway: node.id().name.clone(), openings };
            Box::pin(async move {
                Ok(client.open_sessions(deadline::request(request)).await?.into_inner().opened)
            })
        }))
    }

    /// The session's epoch, once the leader knows it.
    pub(super) async fn open_session(&self, leader: &Instance, opening: Opening) -> Result<Epoch, Status> {
        let opened = self.0.submit(&leader.grpc_address, opening).await?;
        outcome(opened.code, &opened.detail)?;
        Ok(Epoch(opened.session_epoch))
    }
}

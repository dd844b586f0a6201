//! The gRPC service `Control`, which every daemon serves. It carries the order to drain.

use shardkeep_daemon::Daemon;
use shardkeep_rpc::control::{DrainReply, DrainRequest, control_server::Control};
use tonic::{Request, Response, Status};
use tracing::info;

use crate::Peer;

pub(crate) struct ControlService {
    pub(crate) daemon: Daemon,
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let peer = Peer::of(&request)?;
        let reason = request.into_inner().reason;
        info!(%peer, reason, "told to drain");
        self.daemon.drain(&reason);
        Ok(Response::new(DrainReply {}))
    }
}

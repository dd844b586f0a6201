//! A world that reports where each avatar is, and does nothing else.

use std::pin::Pin;

use futures::{Stream, stream};
use shardkeep_rpc::world::*;
use tonic::{Request, Response, Status, Streaming};

/// Hero`number` with session `number`, in a cell of zone-1.
pub(crate) fn hero(number: u8, cell_x: u32) -> Presence {
    Presence {
        character: number.into(),
        name: format!("Hero{number}"),
        session: vec![number; 16],
        account: number.into(),
        map: 1,
        cell_x,
        cell_y: 5,
        zone: "zone-1".into(),
        epoch: 1,
    }
}

/// Hero1 and Hero2 are in one cell, and Hero3 is far away.
pub(crate) struct FakeWorld;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl world_server::World for FakeWorld {
    async fn open_sessions(
        &self,
        _: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        Err(Status::unimplemented("open_sessions"))
    }

    async fn find_session(
        &self,
        _: Request<FindSessionRequest>,
    ) -> Result<Response<FindSessionReply>, Status> {
        Err(Status::unimplemented("find_session"))
    }

    async fn claim_session(
        &self,
        _: Request<ClaimSessionRequest>,
    ) -> Result<Response<ClaimSessionReply>, Status> {
        Err(Status::unimplemented("claim_session"))
    }

    type WatchPartitionStream = Answers<Partition>;

    async fn watch_partition(
        &self,
        _: Request<WatchPartitionRequest>,
    ) -> Result<Response<Self::WatchPartitionStream>, Status> {
        Err(Status::unimplemented("watch_partition"))
    }

    async fn report_presence(
        &self,
        _: Request<Streaming<PresenceReport>>,
    ) -> Result<Response<ReportPresenceReply>, Status> {
        Err(Status::unimplemented("report_presence"))
    }

    type WatchPresenceStream = Answers<PresenceReport>;

    async fn watch_presence(
        &self,
        _: Request<WatchPresenceRequest>,
    ) -> Result<Response<Self::WatchPresenceStream>, Status> {
        let everybody = vec![hero(1, 5), hero(2, 6), hero(3, 20)];
        let report = PresenceReport { zone: None, complete: true, present: everybody, gone: vec![] };
        let forever = stream::pending();
        Ok(Response::new(Box::pin(stream::StreamExt::chain(stream::iter([Ok(report)]), forever))))
    }

    async fn kick(&self, _: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        Err(Status::unimplemented("kick"))
    }

    async fn teleport(&self, _: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        Err(Status::unimplemented("teleport"))
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        Err(Status::unimplemented("announce"))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Err(Status::unimplemented("status"))
    }
}

//! A zone that admits all avatars and records them.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use shardkeep_rpc::zone::*;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::database::StandInDatabase;

#[derive(Clone)]
pub(crate) struct StandInZone {
    database: StandInDatabase,
    pub(crate) admitted: Arc<watch::Sender<Vec<AdmitRequest>>>,
    pub(crate) evicted: Arc<watch::Sender<Vec<EvictRequest>>>,
}

impl StandInZone {
    pub(crate) fn new(database: StandInDatabase) -> Self {
        Self {
            database,
            admitted: Arc::new(watch::Sender::new(Vec::new())),
            evicted: Arc::new(watch::Sender::new(Vec::new())),
        }
    }
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl zone_server::Zone for StandInZone {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        let request = request.into_inner();
        let position = request.character.as_ref().unwrap().position;
        self.admitted.send_modify(|admitted| admitted.push(request));
        Ok(Response::new(AdmitReply { entity: 1, position }))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictReply>, Status> {
        let request = request.into_inner();
        self.database.release_character(request.character, request.epoch);
        self.evicted.send_modify(|evicted| evicted.push(request));
        Ok(Response::new(EvictReply {}))
    }

    async fn teleport(&self, _: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        Ok(Response::new(TeleportReply {}))
    }

    async fn offer(&self, _: Request<OfferRequest>) -> Result<Response<OfferReply>, Status> {
        Err(Status::unimplemented("offer"))
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleReply>, Status> {
        Err(Status::unimplemented("settle"))
    }

    async fn take_snapshot(
        &self,
        _: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotReply>, Status> {
        Err(Status::unimplemented("take_snapshot"))
    }

    async fn mirror(&self, _: Request<MirrorRequest>) -> Result<Response<MirrorReply>, Status> {
        Err(Status::unimplemented("mirror"))
    }

    type PeerStream = ResponseStream<PeerFrame>;

    async fn peer(&self, _: Request<Streaming<PeerFrame>>) -> Result<Response<Self::PeerStream>, Status> {
        Err(Status::unimplemented("peer"))
    }

    type ObserveStream = ResponseStream<MapSnapshot>;

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("observe"))
    }
}

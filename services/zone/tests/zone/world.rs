//! A stand-in for the world. It publishes a given table and stores the reported presences.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use shardkeep_rpc::world::*;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Default)]
pub(crate) struct StandInWorld {
    table: watch::Sender<Partition>,
    /// All reported presences, by character.
    present: Arc<watch::Sender<BTreeMap<u64, Presence>>>,
}

impl StandInWorld {
    pub(crate) fn publish(&self, table: Partition) {
        self.table.send_replace(table);
    }

    /// Waits until the reported presences satisfy `is`.
    pub(crate) async fn wait_for_presence(&self, is: impl FnMut(&BTreeMap<u64, Presence>) -> bool) {
        let mut present = self.present.subscribe();
        let seen = present.wait_for(is);
        tokio::time::timeout(crate::cluster::TIMEOUT, seen).await.expect("it is reported").unwrap();
    }

    fn report(&self, report: PresenceReport) {
        let zone = report.zone.unwrap().name;
        self.present.send_modify(|present| {
            if report.complete {
                present.retain(|_, presence| presence.zone != zone);
            }
            for presence in report.present {
                present.insert(presence.character, presence);
            }
            for character in report.gone {
                if present.get(&character).is_some_and(|presence| presence.zone == zone) {
                    present.remove(&character);
                }
            }
        });
    }
}

type Reports<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_implemented<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl world_server::World for StandInWorld {
    type WatchPartitionStream = Reports<Partition>;
    type WatchPresenceStream = Reports<PresenceReport>;

    async fn watch_partition(
        &self,
        _: Request<WatchPartitionRequest>,
    ) -> Result<Response<Self::WatchPartitionStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.table.subscribe()).map(Ok))))
    }

    async fn report_presence(
        &self,
        request: Request<Streaming<PresenceReport>>,
    ) -> Result<Response<ReportPresenceReply>, Status> {
        let mut reports = request.into_inner();
        while let Some(report) = reports.message().await? {
            self.report(report);
        }
        Ok(Response::new(ReportPresenceReply {}))
    }

    async fn open_sessions(
        &self,
        _: Request<OpenSessionsRequest>,
    ) -> Result<Response<OpenSessionsReply>, Status> {
        not_implemented()
    }
    async fn find_session(
        &self,
        _: Request<FindSessionRequest>,
    ) -> Result<Response<FindSessionReply>, Status> {
        not_implemented()
    }
    async fn claim_session(
        &self,
        _: Request<ClaimSessionRequest>,
    ) -> Result<Response<ClaimSessionReply>, Status> {
        not_implemented()
    }
    async fn watch_presence(
        &self,
        _: Request<WatchPresenceRequest>,
    ) -> Result<Response<Self::WatchPresenceStream>, Status> {
        not_implemented()
    }
    async fn kick(&self, _: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        not_implemented()
    }
    async fn teleport(&self, _: Request<TeleportRequest>) -> Result<Response<TeleportReply>, Status> {
        not_implemented()
    }
    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        not_implemented()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        not_implemented()
    }
}

//! The OTLP/gRPC log service: every record is flattened and queued, and the sender is told how many did not fit.

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
    logs_service_server::{LogsService, LogsServiceServer},
};
use shardkeep_cluster::{MESSAGE_LIMIT, Peer};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::{
    Clock, ForwardHandle,
    day::micros,
    metrics,
    record::{Record, Sender},
};

#[derive(Clone)]
pub struct Receiver {
    queue: mpsc::Sender<Record>,
    clock: Clock,
    forward: Option<ForwardHandle>,
}

impl Receiver {
    pub fn new(queue: mpsc::Sender<Record>, clock: Clock, forward: Option<ForwardHandle>) -> Self {
        Self { queue, clock, forward }
    }

    pub fn into_server(self) -> LogsServiceServer<Self> {
        LogsServiceServer::new(self).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Queues what fits; returns how many records were dropped.
    fn take(&self, request: ExportLogsServiceRequest, peer: Option<&Sender>) -> usize {
        let now = micros((self.clock)());
        let mut dropped = 0;
        for resource in request.resource_logs {
            let sender = peer.cloned().unwrap_or_else(|| Sender::of(resource.resource.as_ref()));
            for scope in resource.scope_logs {
                let target = scope.scope.map(|scope| scope.name).unwrap_or_default();
                metrics::received(&sender.daemon, scope.log_records.len());
                let records = scope.log_records.into_iter().map(|it| Record::new(it, &sender, &target, now));
                dropped += records.filter_map(|record| self.queue.try_send(record).err()).count();
            }
        }
        dropped
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if self.queue.is_closed() {
            return Err(Status::unavailable("the logs daemon is stopping"));
        }
        if let Some(forward) = &self.forward {
            forward.enqueue(request.get_ref());
        }
        let peer =
            Peer::of(&request).ok().map(|peer| Sender { daemon: peer.kind.to_string(), instance: peer.name });
        let dropped = self.take(request.into_inner(), peer.as_ref());
        let partial_success = (dropped > 0).then(|| {
            metrics::lost("queue", dropped);
            ExportLogsPartialSuccess {
                rejected_log_records: i64::try_from(dropped).unwrap_or(i64::MAX),
                error_message: "the queue is full".into(),
            }
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

//! Sends log records to a collector by OTLP/gRPC. Records wait in a bounded queue; what does not fit is counted and
//! dropped, so that logging never slows the daemon.

mod queue;
mod record;
mod request;

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

pub(crate) use record::resource;

use queue::{Batch, Queue};
use request::ExportRequest;

/// A batch is sent when it is full, or this long after its first record.
const LINGER: Duration = Duration::from_millis(500);
/// How often the queue is checked meanwhile. A wake-up per record would cost more than the record. With the queue's
/// bound, this interval allows 160,000 records per second.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(3);
const RETRY_DELAY: Duration = Duration::from_secs(1);
const DROPPED: &str = "shardkeep_log_dropped_records_total";
const FAILURES: &str = "shardkeep_log_export_failures_total";
/// Crates that the exporter itself uses. Exporting their records would produce new records without end.
const EXPORTER_CRATES: [&str; 6] = ["h2", "hyper", "tonic", "tower", "rustls", "opentelemetry"];

/// Puts every event's record into the exporter's queue.
pub(crate) struct ExportLayer(Arc<Queue>);

/// The receiving side of the queue, until [`run`] takes it.
pub(crate) struct Exporter(Arc<Queue>);

pub(crate) fn pair() -> (ExportLayer, Exporter) {
    let queue = Arc::new(Queue::default());
    (ExportLayer(queue.clone()), Exporter(queue))
}

impl<S: Subscriber> Layer<S> for ExportLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        if !EXPORTER_CRATES.contains(&crate_name) {
            record::with_encoded(event, |record| self.0.push(record));
        }
    }
}

/// Sends batches to the current collector until the daemon has finished, then sends the rest once.
pub(crate) async fn run(
    Exporter(queue): Exporter,
    resource: Resource,
    mut collector: watch::Receiver<Option<Channel>>,
    finished: CancellationToken,
) {
    describe_counter!(DROPPED, "Log records dropped because the collector did not keep up");
    describe_counter!(
        FAILURES,
        "Batches of log records that the collector did not take; they are sent again"
    );
    let export = ExportRequest::of(&resource);
    let mut pending = None;
    while !finished.is_cancelled() {
        let batch = tokio::select! {
            batch = next(&queue) => batch,
            () = finished.cancelled() => break,
        };
        counter!(DROPPED).increment(queue.take_dropped());
        let request = pending.insert(export.with(batch));
        tokio::select! {
            () = send_until_accepted(&mut collector, request) => pending = None,
            () = finished.cancelled() => {}
        }
    }
    queue.close();
    let Some(channel) = collector.borrow().clone() else { return };
    if let Some(request) = pending {
        send(channel.clone(), request).await;
    }
    while let Some(batch) = queue.take_any() {
        send(channel.clone(), export.with(batch)).await;
    }
}

/// Waits a short time for more records, so that a quiet daemon does not send each line alone. The batch leaves the
/// queue without a later `await`, so dropping this future loses no record.
async fn next(queue: &Queue) -> Batch {
    queue.wait_until_filled().await;
    loop {
        if let Some(batch) = queue.take(LINGER) {
            return batch;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Sends a batch until a collector accepts it, or rejects it for good.
async fn send_until_accepted(collector: &mut watch::Receiver<Option<Channel>>, request: &ExportRequest) {
    loop {
        let named = collector.wait_for(Option::is_some).await.ok().and_then(|channel| channel.clone());
        // The daemon was dropped, so no collector will be set. The caller ends the export.
        let Some(channel) = named else { return std::future::pending().await };
        match send(channel, request.clone()).await {
            SendOutcome::Accepted => return,
            SendOutcome::Rejected => return counter!(DROPPED).increment(request.batch.count),
            SendOutcome::Retry => {
                counter!(FAILURES).increment(1);
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

enum SendOutcome {
    Accepted,
    Retry,
    /// Sending the batch again would only delay the others.
    Rejected,
}

async fn send(channel: Channel, request: ExportRequest) -> SendOutcome {
    match tokio::time::timeout(DEADLINE, request.send(channel)).await {
        Ok(Ok(())) => SendOutcome::Accepted,
        // A message that is too long is answered with OUT_OF_RANGE.
        Ok(Err(status)) => match status.code() {
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => SendOutcome::Rejected,
            _ => SendOutcome::Retry,
        },
        Err(_) => SendOutcome::Retry,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        common::v1::any_value::Value,
        logs::v1::LogRecord,
    };
    use tokio::sync::mpsc;
    use tonic::{Request, Response, Status, transport::Server};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A collector that forwards each request to a channel.
    struct Collector(mpsc::UnboundedSender<ExportLogsServiceRequest>);

    #[tonic::async_trait]
    impl LogsService for Collector {
        async fn export(
            &self,
            request: Request<ExportLogsServiceRequest>,
        ) -> Result<Response<ExportLogsServiceResponse>, Status> {
            let _ = self.0.send(request.into_inner());
            Ok(Response::new(ExportLogsServiceResponse::default()))
        }
    }

    async fn collector() -> (Channel, mpsc::UnboundedReceiver<ExportLogsServiceRequest>) {
        let (sender, received) = mpsc::unbounded_channel();
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        tokio::spawn(
            Server::builder()
                .add_service(LogsServiceServer::new(Collector(sender)))
                .serve_with_incoming(incoming),
        );
        (Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy(), received)
    }

    fn attribute(record: &LogRecord, key: &str) -> Option<Value> {
        record.attributes.iter().find(|pair| pair.key == key)?.value.clone()?.value
    }

    #[tokio::test]
    async fn player_events_reach_a_collector_named_later() {
        let (layer, exporter) = pair();
        let (named, names) = watch::channel(None);
        let finished = CancellationToken::new();
        let export = tokio::spawn(run(exporter, resource("zone", "zone-1"), names, finished.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            crate::event!("trade", account = 7u64, character = "Ada", gold = -3);
            tracing::warn!(target: "h2::codec", "the export's own machinery is not exported");
        });
        let (channel, mut received) = collector().await;
        named.send_replace(Some(channel));
        let request = received.recv().await.unwrap();
        let logs = &request.resource_logs[0];
        let record = &logs.scope_logs[0].log_records[0];
        assert_eq!(logs.scope_logs[0].log_records.len(), 1);
        assert_eq!(attribute(record, "event"), Some(Value::StringValue("trade".into())));
        assert_eq!(attribute(record, "target"), Some(Value::StringValue("event".into())));
        assert_eq!(attribute(record, "account"), Some(Value::IntValue(7)));
        assert_eq!(attribute(record, "gold"), Some(Value::IntValue(-3)));
        assert_eq!(logs.scope_logs[0].scope.as_ref().unwrap().name, "shardkeep");
        let names = &logs.resource.as_ref().unwrap().attributes;
        assert!(names.iter().any(|pair| pair.key == "service.instance.id"));
        finished.cancel();
        export.await.unwrap();
    }

    #[tokio::test]
    async fn last_records_are_sent_at_shutdown() {
        let (layer, exporter) = pair();
        let (channel, mut received) = collector().await;
        let (_named, names) = watch::channel(Some(channel));
        let finished = CancellationToken::new();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!("stopped");
        });
        finished.cancel();
        run(exporter, resource("zone", "zone-1"), names, finished).await;
        assert!(received.try_recv().is_ok());
    }
}

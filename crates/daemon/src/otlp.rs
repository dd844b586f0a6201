//! Sends log records to a collector by OTLP/gRPC. Records wait in a bounded queue; what does not fit is counted and
//! dropped, so that logging never slows the daemon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use metrics::{counter, describe_counter};
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Records that wait for the collector; further ones are dropped.
const QUEUE: usize = 8192;
const BATCH: usize = 512;
/// A batch is sent when it is full, or so long after its first record.
const LINGER: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(1);
const DROPPED: &str = "shardkeep_log_dropped_records_total";
const FAILURES: &str = "shardkeep_log_export_failures_total";
/// Targets of the export's own machinery: sending their records would make new ones.
const OWN: [&str; 6] = ["h2", "hyper", "tonic", "tower", "rustls", "opentelemetry"];

/// Hands every event to the exporter.
pub(crate) struct ExportLayer {
    queue: mpsc::Sender<LogRecord>,
    dropped: Arc<AtomicU64>,
}

/// The receiving end of the queue, before [`run`] takes it.
pub(crate) struct Exporter {
    queue: mpsc::Receiver<LogRecord>,
    dropped: Arc<AtomicU64>,
}

pub(crate) fn pair() -> (ExportLayer, Exporter) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    (ExportLayer { queue: sender, dropped: dropped.clone() }, Exporter { queue: receiver, dropped })
}

impl<S: Subscriber> Layer<S> for ExportLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let crate_name = metadata.target().split("::").next().unwrap_or_default();
        if OWN.contains(&crate_name) {
            return;
        }
        let (severity, text) = severity(*metadata.level());
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.attributes.push(pair_of("target", text_value(metadata.target())));
        let record = LogRecord {
            time_unix_nano: unix_nanos(),
            observed_time_unix_nano: unix_nanos(),
            severity_number: severity.into(),
            severity_text: text.into(),
            body: Some(text_value(&fields.message)),
            attributes: fields.attributes,
            ..LogRecord::default()
        };
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends batches to whatever collector is named at the moment, until the daemon has finished; then what is left,
/// once.
pub(crate) async fn run(
    mut exporter: Exporter,
    resource: Resource,
    mut collector: watch::Receiver<Option<Channel>>,
    finished: CancellationToken,
) {
    describe_counter!(DROPPED, "Log records dropped because the collector did not keep up");
    describe_counter!(
        FAILURES,
        "Batches of log records that the collector did not take; they are sent again"
    );
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            received = exporter.queue.recv_many(&mut batch, BATCH) => if received == 0 { return },
            () = finished.cancelled() => break,
        }
        fill(&mut exporter.queue, &mut batch, &finished).await;
        let mut request = request(&resource, std::mem::take(&mut batch));
        loop {
            counter!(DROPPED).increment(exporter.dropped.swap(0, Ordering::Relaxed));
            let sent = tokio::select! {
                sent = send(&mut collector, &mut request) => sent,
                () = finished.cancelled() => break,
            };
            if sent {
                break;
            }
            counter!(FAILURES).increment(1);
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = finished.cancelled() => break,
            }
        }
    }
    exporter.queue.close();
    while exporter.queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut last = request(&resource, std::mem::take(&mut batch));
        if collector.borrow().is_none() || !send(&mut collector, &mut last).await {
            break;
        }
    }
}

/// Waits a little for more records, so that a quiet daemon does not send each line by itself.
async fn fill(
    queue: &mut mpsc::Receiver<LogRecord>,
    batch: &mut Vec<LogRecord>,
    finished: &CancellationToken,
) {
    let linger = tokio::time::sleep(LINGER);
    tokio::pin!(linger);
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        tokio::select! {
            _ = queue.recv_many(batch, room) => {}
            () = &mut linger => return,
            () = finished.cancelled() => return,
        }
    }
}

async fn send(
    collector: &mut watch::Receiver<Option<Channel>>,
    batch: &mut ExportLogsServiceRequest,
) -> bool {
    let Ok(channel) = collector.wait_for(Option::is_some).await.map(|channel| channel.clone()) else {
        return std::future::pending().await;
    };
    let Some(channel) = channel else { return false };
    let mut request = tonic::Request::new(batch.clone());
    request.set_timeout(DEADLINE);
    let mut client = LogsServiceClient::new(channel);
    matches!(tokio::time::timeout(DEADLINE, client.export(request)).await, Ok(Ok(_)))
}

fn request(resource: &Resource, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "shardkeep".into(),
                    ..InstrumentationScope::default()
                }),
                log_records: records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// Names the daemon in the words of OpenTelemetry's resource conventions.
pub(crate) fn resource(kind: &str, name: &str) -> Resource {
    Resource {
        attributes: vec![
            pair_of("service.namespace", text_value("shardkeep")),
            pair_of("service.name", text_value(kind)),
            pair_of("service.instance.id", text_value(name)),
            pair_of("service.version", text_value(env!("CARGO_PKG_VERSION"))),
        ],
        ..Resource::default()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        self.attributes.push(pair_of(field.name(), AnyValue { value: Some(value) }));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Value::StringValue(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.push(field, Value::IntValue(value)),
            Err(_) => self.push(field, Value::StringValue(value.to_string())),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::BoolValue(value));
    }
}

fn pair_of(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn text_value(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}

fn severity(level: Level) -> (SeverityNumber, &'static str) {
    match level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

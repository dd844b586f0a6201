//! Passes everything on to a collector outside of the cluster, as it came: for those who keep logs in a larger engine
//! too. The files here do not depend on it.

use std::time::Duration;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
};
use shardkeep_cluster::Backoff;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};
use tracing::{debug, warn};

use crate::metrics;

/// Batches waiting for the outside collector. Full: new ones are not forwarded, and counted.
const QUEUE_BATCHES: usize = 256;
const DEADLINE: Duration = Duration::from_secs(5);

/// The sending end, held by the receiver.
#[derive(Clone)]
pub struct ForwardHandle(mpsc::Sender<ExportLogsServiceRequest>);

impl ForwardHandle {
    /// Forwarding to `http://host:port`, and the task that does it.
    ///
    /// # Errors
    /// When that is no address.
    pub fn to(url: &str) -> anyhow::Result<(Self, Forwarder)> {
        let endpoint =
            Endpoint::from_shared(url.to_owned()).with_context(|| format!("logs.forward: {url}"))?;
        let channel = endpoint.connect_timeout(DEADLINE).connect_lazy();
        let (sender, batches) = mpsc::channel(QUEUE_BATCHES);
        Ok((Self(sender), Forwarder { batches, channel }))
    }

    pub(crate) fn enqueue(&self, request: &ExportLogsServiceRequest) {
        match self.0.try_reserve() {
            Ok(permit) => permit.send(request.clone()),
            Err(_) => metrics::lost("forward", records(request)),
        }
    }
}

pub struct Forwarder {
    batches: mpsc::Receiver<ExportLogsServiceRequest>,
    channel: Channel,
}

impl Forwarder {
    /// Sends batch after batch, each until it is taken, until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(batch)) = stop.run_until_cancelled(self.batches.recv()).await {
            if stop.run_until_cancelled(self.send(batch)).await.is_none() {
                debug!(left = self.batches.len(), "stopped forwarding");
                return;
            }
        }
    }

    async fn send(&self, batch: ExportLogsServiceRequest) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let mut request = Request::new(batch.clone());
            request.set_timeout(DEADLINE);
            match LogsServiceClient::new(self.channel.clone()).export(request).await {
                Ok(_) => return metrics::forwarded(records(&batch)),
                // Debug, not more: this line goes the same way.
                Err(status) if may_be_repeated(status.code()) => debug!(%status, "forwarding waits"),
                Err(status) => {
                    warn!(%status, "the outside collector refuses a batch");
                    return metrics::lost("refused", records(&batch));
                }
            }
            backoff.wait().await;
        }
    }
}

/// Whether a client tries again (OTLP 1.x, section "Failures" of OTLP/gRPC).
fn may_be_repeated(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

fn records(request: &ExportLogsServiceRequest) -> usize {
    let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

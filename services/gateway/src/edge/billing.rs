//! Reports the play time of each session to billing, at intervals and at the session's end.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use shardkeep_cluster::{Directory, Node};
use shardkeep_rpc::billing::{ReportRequest, SessionReport, billing_client::BillingClient};
use shardkeep_types::DaemonKind;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tracing::warn;

use super::deadline;
use crate::{app::App, domain::play_time::report, metrics::BILLING};

/// Reports per call.
const CHUNK: usize = 500;
const DEADLINE: Duration = Duration::from_secs(5);

/// Reports every interval until `stop`, and once more then.
pub(crate) async fn run(app: Arc<App>, node: Node, stop: CancellationToken) {
    let directory = node.directory(DaemonKind::Billing);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(app.config().billing_interval) => false,
        };
        let live = app.sessions().all().into_iter().map(|session| report(&session, false));
        let reports: Vec<_> = app.play_time().waiting().into_iter().chain(live).collect();
        for chunk in reports.chunks(CHUNK) {
            match send(&node, &directory, chunk).await {
                Ok(()) => {
                    counter!(BILLING).increment(chunk.len() as u64);
                    app.play_time().acknowledged(chunk);
                }
                Err(status) => {
                    warn!(%status, "billing did not take the play time; it is reported again at the next interval");
                    break;
                }
            }
        }
        if last {
            return;
        }
    }
}

async fn send(node: &Node, directory: &Directory, reports: &[SessionReport]) -> Result<(), Status> {
    let billing = directory.least_loaded().ok_or_else(|| Status::unavailable("no billing daemon is up"))?;
    let mut client = BillingClient::new(node.channel(DaemonKind::Billing, &billing.grpc_address));
    let mut request =
        Request::new(ReportRequest { gateway: node.id().name.clone(), reports: reports.to_vec() });
    request.set_timeout(DEADLINE);
    deadline::within(DEADLINE, client.report(request)).await.map(drop)
}

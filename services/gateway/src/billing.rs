//! Play time for billing: the clock of each session, reported now and then and at its end. A report is a state, not
//! a difference, so losing or repeating one changes nothing; ended sessions are kept until billing has them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use shardkeep_cluster::{Directory, Node};
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::billing::{ReportRequest, SessionReport, billing_client::BillingClient};
use shardkeep_types::{DaemonKind, SessionId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use tracing::warn;

use crate::{
    core::Core,
    metrics::{BILLING, BILLING_SPOOL},
    session::Session,
};

/// Bound of the ended sessions kept while billing is away; beyond it the newest are lost, each with a log line.
const MAX_SPOOLED: usize = 100_000;
/// Reports per call.
const CHUNK: usize = 500;
const DEADLINE: Duration = Duration::from_secs(5);

/// Ended sessions whose last report billing has not acknowledged.
#[derive(Default)]
pub(crate) struct Spool(Mutex<HashMap<SessionId, SessionReport>>);

impl Spool {
    pub(crate) fn ended(&self, session: &Session) {
        let mut spool = self.0.lock();
        if spool.len() >= MAX_SPOOLED {
            warn!(session = %session.id, account = session.account.0, "play time lost: billing is away for too long");
            return;
        }
        spool.insert(session.id, report(session, true));
        gauge!(BILLING_SPOOL).set(spool.len() as f64);
    }

    fn waiting(&self) -> Vec<SessionReport> {
        self.0.lock().values().cloned().collect()
    }

    fn acknowledged(&self, reports: &[SessionReport]) {
        let mut spool = self.0.lock();
        for report in reports.iter().filter(|report| report.ended) {
            // The session may have come back meanwhile, and ended again.
            if let Ok(id) = SessionId::try_from(&*report.session)
                && spool.get(&id) == Some(report)
            {
                spool.remove(&id);
            }
        }
        gauge!(BILLING_SPOOL).set(spool.len() as f64);
    }
}

fn report(session: &Session, ended: bool) -> SessionReport {
    SessionReport {
        session: session.id.as_bytes().to_vec(),
        account: session.account.0,
        world: session.world.0,
        started_ms: session.started_ms(),
        played_ms: unix_millis().saturating_sub(session.started_ms()),
        ended,
        session_epoch: session.lock().epoch.0,
    }
}

/// Reports every interval until `stop`, and once more then.
pub(crate) async fn run(core: Arc<Core>, node: Node, stop: CancellationToken) {
    let directory = node.directory(DaemonKind::Billing);
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(core.config.billing_interval) => false,
        };
        let live = core.sessions.all().into_iter().map(|session| report(&session, false));
        let reports: Vec<_> = core.billing.waiting().into_iter().chain(live).collect();
        for chunk in reports.chunks(CHUNK) {
            match send(&node, &directory, chunk).await {
                Ok(()) => {
                    counter!(BILLING).increment(chunk.len() as u64);
                    core.billing.acknowledged(chunk);
                }
                Err(status) => {
                    warn!(%status, "billing does not take play time; it is kept");
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
    let call = tokio::time::timeout(DEADLINE, client.report(request));
    call.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))).map(drop)
}

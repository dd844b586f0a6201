//! The gRPC interface.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use shardkeep_rpc::{
    batched_call::check_request_count,
    billing::{
        CreditReply, CreditRequest, FollowPrepaidRequest, ReportReply, ReportRequest, SessionReport,
        ShowReply, ShowRequest, TimeLeftReply, TimeLeftRequest, billing_server::Billing,
    },
    session_id,
};
use shardkeep_store::billing::{Billing as Ledger, ClockReport};
use shardkeep_types::{AccountId, Epoch, WorldId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    error::CallError,
    metrics::{CALL_SECONDS, CALLS, CREDITED, MALFORMED, REPORTS},
    prepaid::{self, PrepaidStream},
};

/// Later times are malformed: 31 December 9999.
const LATEST_MS: u64 = 253_402_300_799_999;

#[derive(Clone)]
pub(crate) struct BillingService {
    ledger: Ledger,
    database_timeout: Duration,
    draining: CancellationToken,
}

impl BillingService {
    pub(crate) fn new(ledger: Ledger, database_timeout: Duration, draining: CancellationToken) -> Self {
        Self { ledger, database_timeout, draining }
    }

    /// Counts and measures a call. All calls are safe to repeat, so a late one is cancelled.
    async fn call<R>(
        &self,
        name: &'static str,
        answer: impl Future<Output = Result<R, CallError>>,
    ) -> Result<Response<R>, Status> {
        let begin = Instant::now();
        let result = timeout(self.database_timeout, answer).await.unwrap_or(Err(CallError::Timeout));
        let outcome = result.as_ref().map_or_else(CallError::label, |_| "ok");
        metrics::counter!(CALLS, "call" => name, "outcome" => outcome).increment(1);
        metrics::histogram!(CALL_SECONDS, "call" => name).record(begin.elapsed());
        Ok(Response::new(result?))
    }
}

/// `None` for a malformed report. An error would make the gateway repeat it forever.
fn clock(report: &SessionReport) -> Option<ClockReport> {
    let valid = report.account > 0
        && report.started_ms <= LATEST_MS
        && report.played_ms <= LATEST_MS
        && i64::try_from(report.session_epoch).is_ok();
    Some(ClockReport {
        session: session_id(&report.session).ok().filter(|_| valid)?,
        account: AccountId(report.account),
        world: WorldId(report.world),
        started_ms: report.started_ms,
        played_ms: report.played_ms,
        ended: report.ended,
        epoch: Epoch(report.session_epoch),
    })
}

#[tonic::async_trait]
impl Billing for BillingService {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        let ReportRequest { gateway, reports } = request.into_inner();
        self.call("report", async {
            let clocks: Vec<ClockReport> = reports.iter().filter_map(clock).collect();
            let malformed = reports.len() - clocks.len();
            if malformed > 0 {
                tracing::warn!(gateway, malformed, "malformed reports were dropped");
                metrics::counter!(MALFORMED).increment(malformed as u64);
            }
            self.ledger.report(&clocks).await?;
            metrics::counter!(REPORTS).increment(clocks.len() as u64);
            Ok(ReportReply {})
        })
        .await
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowReply>, Status> {
        let account = AccountId(request.into_inner().account);
        self.call("show", async {
            let standing = self.ledger.show(account).await?;
            let plan = if standing.left_ms.is_some() { "prepaid" } else { "free" };
            Ok(ShowReply { plan: plan.to_owned(), left_ms: standing.left_ms, played_ms: standing.played_ms })
        })
        .await
    }

    async fn time_left(&self, request: Request<TimeLeftRequest>) -> Result<Response<TimeLeftReply>, Status> {
        let TimeLeftRequest { accounts } = request.into_inner();
        check_request_count("accounts", &accounts)?;
        self.call("time_left", async {
            let accounts: Vec<_> = accounts.into_iter().map(AccountId).collect();
            let time_left = self.ledger.time_left(&accounts).await?;
            Ok(TimeLeftReply {
                left_ms: time_left.into_iter().map(|(account, time_left)| (account.0, time_left)).collect(),
            })
        })
        .await
    }

    type FollowPrepaidStream = PrepaidStream;

    async fn follow_prepaid(
        &self,
        _: Request<FollowPrepaidRequest>,
    ) -> Result<Response<PrepaidStream>, Status> {
        Ok(Response::new(prepaid::follow(self.ledger.clone(), self.draining.clone())))
    }

    async fn credit(&self, request: Request<CreditRequest>) -> Result<Response<CreditReply>, Status> {
        let CreditRequest { account, hours, key, reason } = request.into_inner();
        self.call("credit", async {
            let left_ms = self.ledger.credit(AccountId(account), hours, &key, &reason).await?;
            metrics::counter!(CREDITED).increment(hours);
            shardkeep_daemon::event!("credit", account, hours, reason = reason.as_str());
            Ok(CreditReply { left_ms })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_session_report_is_dropped() {
        let valid = SessionReport { session: vec![1; 16], account: 1, ..SessionReport::default() };
        assert!(clock(&valid).is_some());
        assert!(clock(&SessionReport { session: vec![1; 15], ..valid.clone() }).is_none());
        assert!(clock(&SessionReport { played_ms: u64::MAX, ..valid.clone() }).is_none());
        assert!(clock(&SessionReport { session_epoch: u64::MAX, ..valid.clone() }).is_none());
        assert!(clock(&SessionReport { account: 0, ..valid }).is_none());
    }
}

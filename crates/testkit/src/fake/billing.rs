//! A billing daemon that records reports and gives every account an hour.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use shardkeep_rpc::billing::{
    CreditReply, CreditRequest, FollowPrepaidRequest, PrepaidAccounts, ReportReply, ReportRequest,
    SessionReport, ShowReply, ShowRequest, TimeLeftReply, TimeLeftRequest, billing_server::Billing,
};
use tokio::{
    sync::watch,
    time::{Instant, interval_at},
};
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::unimplemented_calls;

/// The play time that every account has.
pub const PLAY_TIME_LEFT_MS: u64 = 3_600_000;

const HEARTBEAT: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub struct FakeBilling {
    pub reports: watch::Sender<Vec<SessionReport>>,
    /// The accounts whose play time was asked for.
    pub asked: watch::Sender<Vec<u64>>,
    prepaid: Option<Vec<u64>>,
}

impl FakeBilling {
    /// Streams these prepaid accounts. The default refuses the stream.
    pub fn with_prepaid(accounts: Vec<u64>) -> Self {
        Self { prepaid: Some(accounts), ..Self::default() }
    }
}

#[tonic::async_trait]
impl Billing for FakeBilling {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        self.reports.send_modify(|reports| reports.extend(request.into_inner().reports));
        Ok(Response::new(ReportReply {}))
    }

    async fn time_left(&self, request: Request<TimeLeftRequest>) -> Result<Response<TimeLeftReply>, Status> {
        let accounts = request.into_inner().accounts;
        self.asked.send_modify(|asked| asked.extend(&accounts));
        let left_ms = accounts.into_iter().map(|account| (account, PLAY_TIME_LEFT_MS)).collect();
        Ok(Response::new(TimeLeftReply { left_ms }))
    }

    type FollowPrepaidStream = BoxStream<PrepaidAccounts>;

    async fn follow_prepaid(
        &self,
        _: Request<FollowPrepaidRequest>,
    ) -> Result<Response<Self::FollowPrepaidStream>, Status> {
        let accounts = self.prepaid.clone().ok_or_else(|| Status::unimplemented("follow_prepaid"))?;
        let message = |accounts| Ok(PrepaidAccounts { accounts, complete: true });
        let heartbeats = IntervalStream::new(interval_at(Instant::now() + HEARTBEAT, HEARTBEAT));
        let heartbeats = heartbeats.map(move |_| message(Vec::new()));
        Ok(Response::new(Box::pin(stream::iter([message(accounts)]).chain(heartbeats))))
    }

    unimplemented_calls! {
        show(ShowRequest) -> ShowReply;
        credit(CreditRequest) -> CreditReply;
    }
}

//! Stand-ins for the daemons that login calls: a gateway that records its calls, and billing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use shardkeep_rpc::{
    billing::{self, billing_server::Billing},
    gateway::{self, gateway_server::Gateway},
};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

/// Gateways refuse the tickets of this account.
pub(crate) const REFUSED: &str = "refused";
/// Gateways know a higher generation of this account.
pub(crate) const OUTDATED: &str = "outdated";

/// A call to a gateway.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum GatewayCall {
    Admit(gateway::Admission),
    RevokeTicket(Vec<u8>),
    RevokeAccount(gateway::RevokeAccountRequest),
}

#[derive(Clone)]
pub(crate) struct StandInGateway {
    asked: Arc<watch::Sender<Vec<GatewayCall>>>,
    refuses: Arc<AtomicBool>,
    holds: Arc<Mutex<gateway::ListSessionsReply>>,
}

impl Default for StandInGateway {
    fn default() -> Self {
        Self {
            asked: Arc::new(watch::Sender::new(Vec::new())),
            refuses: Arc::default(),
            holds: Arc::default(),
        }
    }
}

impl StandInGateway {
    pub(crate) fn asked(&self) -> Vec<GatewayCall> {
        self.asked.borrow().clone()
    }

    pub(crate) fn admitted(&self) -> Vec<gateway::Admission> {
        let admits = self.asked().into_iter().filter_map(|asked| match asked {
            GatewayCall::Admit(admission) => Some(admission),
            _ => None,
        });
        admits.collect()
    }

    /// Waits for the first call that `pick` accepts.
    pub(crate) async fn wait_for_call<T>(&self, pick: impl Fn(&GatewayCall) -> Option<T>) -> T {
        let mut asked = self.asked.subscribe();
        let seen = asked.wait_for(|all| all.iter().any(|one| pick(one).is_some())).await.unwrap();
        seen.iter().find_map(&pick).unwrap()
    }

    /// Sets the sessions and tickets that the gateway lists from now on, for every account.
    pub(crate) fn hold(&self, sessions: &[gateway::SessionInfo], tickets: &[u64]) {
        let (sessions, tickets) = (sessions.to_vec(), tickets.to_vec());
        *self.holds.lock().unwrap() = gateway::ListSessionsReply { sessions, tickets, ..Default::default() };
    }

    pub(crate) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    fn note(&self, asked: GatewayCall) {
        self.asked.send_modify(|all| all.push(asked));
    }
}

#[tonic::async_trait]
impl Gateway for StandInGateway {
    async fn admit(
        &self,
        request: Request<gateway::AdmitRequest>,
    ) -> Result<Response<gateway::AdmitReply>, Status> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Status::unavailable("draining"));
        }
        let mut admitted = Vec::new();
        for admission in request.into_inner().admissions {
            // One ticket of a batch may be refused.
            let code = match admission.account_name.as_str() {
                REFUSED => Code::ResourceExhausted,
                OUTDATED => Code::FailedPrecondition,
                _ => Code::Ok,
            };
            admitted.push(gateway::Admitted { code: code as u32, detail: String::new() });
            if code == Code::Ok {
                self.note(GatewayCall::Admit(admission));
            }
        }
        Ok(Response::new(gateway::AdmitReply { admitted }))
    }

    async fn revoke_ticket(
        &self,
        request: Request<gateway::RevokeTicketRequest>,
    ) -> Result<Response<gateway::RevokeTicketReply>, Status> {
        self.note(GatewayCall::RevokeTicket(request.into_inner().ticket_id));
        Ok(Response::new(gateway::RevokeTicketReply {}))
    }

    async fn revoke_account(
        &self,
        request: Request<gateway::RevokeAccountRequest>,
    ) -> Result<Response<gateway::RevokeAccountReply>, Status> {
        self.note(GatewayCall::RevokeAccount(request.into_inner()));
        Ok(Response::new(gateway::RevokeAccountReply { ended: 1 }))
    }

    async fn move_session(
        &self,
        _: Request<gateway::MoveSessionRequest>,
    ) -> Result<Response<gateway::MoveSessionReply>, Status> {
        Err(Status::unimplemented("move_session"))
    }

    async fn list_costs(
        &self,
        _: Request<gateway::ListCostsRequest>,
    ) -> Result<Response<gateway::ListCostsReply>, Status> {
        Err(Status::unimplemented("stand-in"))
    }

    async fn list_sessions(
        &self,
        _: Request<gateway::ListSessionsRequest>,
    ) -> Result<Response<gateway::ListSessionsReply>, Status> {
        Ok(Response::new(self.holds.lock().unwrap().clone()))
    }

    async fn kick(&self, _: Request<gateway::KickRequest>) -> Result<Response<gateway::KickReply>, Status> {
        Err(Status::unimplemented("kick"))
    }

    async fn announce(
        &self,
        _: Request<gateway::AnnounceRequest>,
    ) -> Result<Response<gateway::AnnounceReply>, Status> {
        Err(Status::unimplemented("announce"))
    }
}

/// Billing that gives every account an hour. It streams `prepaid`, if it is set.
#[derive(Clone, Default)]
pub(crate) struct StandInBilling {
    pub(crate) prepaid: Option<Vec<u64>>,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl StandInBilling {
    /// A billing service that reports these prepaid accounts.
    pub(crate) fn with_prepaid(accounts: Vec<u64>) -> Self {
        Self { prepaid: Some(accounts), ..Self::default() }
    }

    /// The accounts whose play time login has asked for.
    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }
}

pub(crate) const PLAY_TIME_LEFT_MS: u64 = 3_600_000;

#[tonic::async_trait]
impl Billing for StandInBilling {
    async fn report(
        &self,
        _: Request<billing::ReportRequest>,
    ) -> Result<Response<billing::ReportReply>, Status> {
        Err(Status::unimplemented("report"))
    }

    async fn show(&self, _: Request<billing::ShowRequest>) -> Result<Response<billing::ShowReply>, Status> {
        Err(Status::unimplemented("show"))
    }

    async fn time_left(
        &self,
        request: Request<billing::TimeLeftRequest>,
    ) -> Result<Response<billing::TimeLeftReply>, Status> {
        let accounts = request.into_inner().accounts;
        self.asked.lock().unwrap().extend(&accounts);
        let left_ms = accounts.into_iter().map(|account| (account, PLAY_TIME_LEFT_MS));
        Ok(Response::new(billing::TimeLeftReply { left_ms: left_ms.collect() }))
    }

    type FollowPrepaidStream = tonic::codegen::BoxStream<billing::PrepaidAccounts>;

    async fn follow_prepaid(
        &self,
        _: Request<billing::FollowPrepaidRequest>,
    ) -> Result<Response<Self::FollowPrepaidStream>, Status> {
        let accounts = self.prepaid.clone().ok_or_else(|| Status::unimplemented("follow_prepaid"))?;
        let first = stream::iter([Ok(billing::PrepaidAccounts { accounts, complete: true })]);
        let heartbeats = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok(billing::PrepaidAccounts { accounts: Vec::new(), complete: true }), ()))
        });
        Ok(Response::new(Box::pin(first.chain(heartbeats))))
    }

    async fn credit(
        &self,
        _: Request<billing::CreditRequest>,
    ) -> Result<Response<billing::CreditReply>, Status> {
        Err(Status::unimplemented("credit"))
    }
}

//! A gateway that records the calls of other daemons.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use shardkeep_rpc::gateway::{
    Admission, AdmitReply, AdmitRequest, Admitted, AnnounceReply, AnnounceRequest, KickReply, KickRequest,
    ListCostsReply, ListCostsRequest, ListSessionsReply, ListSessionsRequest, MoveSessionReply,
    MoveSessionRequest, RevokeAccountReply, RevokeAccountRequest, RevokeTicketReply, RevokeTicketRequest,
    SessionInfo, gateway_server::Gateway,
};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Request, Response, Status};

use super::unimplemented_calls;
use crate::wait::TIMEOUT;

/// A call that the gateway accepted.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewayCall {
    Admit(Admission),
    RevokeTicket(Vec<u8>),
    RevokeAccount(RevokeAccountRequest),
    Kick(KickRequest),
    Announce(AnnounceRequest),
}

#[derive(Clone, Default)]
pub struct FakeGateway {
    calls: watch::Sender<Vec<GatewayCall>>,
    refuses: Arc<AtomicBool>,
    holds: Arc<Mutex<ListSessionsReply>>,
}

impl FakeGateway {
    /// The gateway has no room for the tickets of this account.
    pub const REFUSED: &str = "refused";
    /// The gateway knows a higher generation of this account.
    pub const OUTDATED: &str = "outdated";

    pub fn calls(&self) -> Vec<GatewayCall> {
        self.calls.borrow().clone()
    }

    pub fn admitted(&self) -> Vec<Admission> {
        let admits = self.calls().into_iter().filter_map(|call| match call {
            GatewayCall::Admit(admission) => Some(admission),
            _ => None,
        });
        admits.collect()
    }

    /// Waits for the first call that `pick` accepts.
    pub async fn wait_for_call<T>(&self, pick: impl Fn(&GatewayCall) -> Option<T>) -> T {
        let mut calls = self.calls.subscribe();
        let made = calls.wait_for(|calls| calls.iter().any(|call| pick(call).is_some()));
        let calls = timeout(TIMEOUT, made).await.expect("the gateway is called").expect("the gateway lives");
        calls.iter().find_map(&pick).expect("it was just there")
    }

    /// Sets the sessions and tickets that the gateway lists from now on, for every account.
    pub fn hold(&self, sessions: &[SessionInfo], tickets: &[u64]) {
        let mut holds = self.holds.lock();
        (holds.sessions, holds.tickets) = (sessions.to_vec(), tickets.to_vec());
    }

    /// Whether the gateway refuses all tickets.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    fn record(&self, call: GatewayCall) {
        self.calls.send_modify(|calls| calls.push(call));
    }
}

#[tonic::async_trait]
impl Gateway for FakeGateway {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Status::unavailable("draining"));
        }
        let mut admitted = Vec::new();
        for admission in request.into_inner().admissions {
            // One ticket of a batch may be refused.
            let code = match admission.account_name.as_str() {
                Self::REFUSED => Code::ResourceExhausted,
                Self::OUTDATED => Code::FailedPrecondition,
                _ => Code::Ok,
            };
            admitted.push(Admitted { code: code as u32, detail: String::new() });
            if code == Code::Ok {
                self.record(GatewayCall::Admit(admission));
            }
        }
        Ok(Response::new(AdmitReply { admitted }))
    }

    async fn revoke_ticket(
        &self,
        request: Request<RevokeTicketRequest>,
    ) -> Result<Response<RevokeTicketReply>, Status> {
        self.record(GatewayCall::RevokeTicket(request.into_inner().ticket_id));
        Ok(Response::new(RevokeTicketReply {}))
    }

    async fn revoke_account(
        &self,
        request: Request<RevokeAccountRequest>,
    ) -> Result<Response<RevokeAccountReply>, Status> {
        self.record(GatewayCall::RevokeAccount(request.into_inner()));
        Ok(Response::new(RevokeAccountReply { ended: 1 }))
    }

    async fn list_sessions(
        &self,
        _: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsReply>, Status> {
        Ok(Response::new(self.holds.lock().clone()))
    }

    async fn kick(&self, request: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        self.record(GatewayCall::Kick(request.into_inner()));
        Ok(Response::new(KickReply { ended: 1 }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        self.record(GatewayCall::Announce(request.into_inner()));
        Ok(Response::new(AnnounceReply { reached: 1 }))
    }

    unimplemented_calls! {
        move_session(MoveSessionRequest) -> MoveSessionReply;
        list_costs(ListCostsRequest) -> ListCostsReply;
    }
}

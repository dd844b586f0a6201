//! What login asks of gateways: to expect a ticket, to forget one, and to end what an account runs under an old
//! generation.

use std::time::Duration;

use futures::future::join_all;
use shardkeep_cluster::{Directory, Instance, Node};
use shardkeep_rpc::gateway::{
    AdmitRequest, RevokeAccountRequest, RevokeTicketRequest, gateway_client::GatewayClient,
};
use shardkeep_store::accounts::Raised;
use shardkeep_types::{DaemonKind, TicketId};
use shardkeep_wire::payload::ErrorCode;
use tonic::{Request, Response, Status, transport::Channel};
use tracing::warn;

use crate::metrics;

/// How long a gateway may take to answer. One that is gone is noticed by the registry in a few seconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// Gateways tried for one ticket.
const CANDIDATES: usize = 3;

#[derive(Clone)]
pub(crate) struct Gateways {
    node: Node,
    directory: Directory,
}

impl Gateways {
    pub(crate) fn new(node: &Node) -> Self {
        Self { node: node.clone(), directory: node.directory(DaemonKind::Gateway) }
    }

    /// Gateways to offer, the best first: the lightest by turns, then whoever else takes players.
    pub(crate) fn candidates(&self) -> Vec<Instance> {
        let mut others = self.directory.up();
        others.retain(|gateway| !gateway.client_address.is_empty());
        others.sort_by(|a, b| a.load.total_cmp(&b.load));
        let lightest = self.directory.lightest().filter(|gateway| !gateway.client_address.is_empty());
        if let Some(first) = &lightest {
            others.retain(|gateway| gateway.id != first.id);
        }
        lightest.into_iter().chain(others).take(CANDIDATES).collect()
    }

    /// Moves a ticket to the gateway.
    pub(crate) async fn admit(&self, gateway: &Instance, ticket: AdmitRequest) -> Result<(), Status> {
        self.call("admit", gateway, ticket, |mut client, request| async move { client.admit(request).await })
            .await
            .map(drop)
    }

    /// Voids a ticket. If the gateway cannot be asked the ticket ends by its age.
    pub(crate) async fn revoke_ticket(&self, gateway: &Instance, ticket: TicketId) {
        let request = RevokeTicketRequest { ticket_id: ticket.as_bytes().to_vec() };
        let call =
            |mut client: GatewayClient<Channel>, request| async move { client.revoke_ticket(request).await };
        // The outcome is counted; there is nothing else to do about a failure.
        let _ = self.call("revoke_ticket", gateway, request, call).await;
    }

    /// Ends the account's sessions and tickets below the generation, on every gateway. Returns how many sessions
    /// ended. A gateway that fails is asked once more; `world` refuses old generations in any case.
    pub(crate) async fn revoke_account(&self, account: Raised, code: ErrorCode, detail: &str) -> u32 {
        let request = RevokeAccountRequest {
            account: account.id.0,
            below_generation: account.generation.0,
            code: code as u32,
            detail: detail.to_owned(),
        };
        let gateways = self.directory.all();
        let alive = gateways.iter().filter(|gateway| gateway.state != shardkeep_cluster::State::Offline);
        join_all(alive.map(|gateway| self.revoke_at(gateway, &request))).await.into_iter().sum()
    }

    async fn revoke_at(&self, gateway: &Instance, request: &RevokeAccountRequest) -> u32 {
        for _ in 0..2 {
            let call = |mut client: GatewayClient<Channel>, request| async move {
                client.revoke_account(request).await
            };
            match self.call("revoke_account", gateway, request.clone(), call).await {
                Ok(reply) => return reply.ended,
                Err(status) => {
                    warn!(gateway = gateway.id.name, account = request.account, %status, "not revoked");
                }
            }
        }
        0
    }

    async fn call<Q, R, F>(
        &self,
        name: &'static str,
        gateway: &Instance,
        message: Q,
        call: impl FnOnce(GatewayClient<Channel>, Request<Q>) -> F,
    ) -> Result<R, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let client = GatewayClient::new(self.node.channel(DaemonKind::Gateway, &gateway.grpc_address));
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        let answer = tokio::time::timeout(DEADLINE, call(client, request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        metrics::gateway_call(name, answer.is_ok());
        answer.map(Response::into_inner)
    }
}

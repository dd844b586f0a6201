//! Calls to gateways: to admit a ticket, to revoke one, to end an account's sessions, and to list them.

use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use shardkeep_cluster::{BatchPolicy, Directory, Instance, Node, RequestBatcher};
use shardkeep_rpc::batched_call::outcome;
use shardkeep_rpc::gateway::{
    Admission, AdmitRequest, Admitted, ListSessionsReply, ListSessionsRequest, RevokeAccountRequest,
    RevokeTicketRequest, gateway_client::GatewayClient,
};
use shardkeep_store::{
    self as store, Database,
    accounts::{AccountGeneration, RevocationCause, generations},
};
use shardkeep_types::{AccountId, DaemonKind, Generation, TicketId};
use tonic::{Code, Request, Response, Status, transport::Channel};
use tracing::warn;

use crate::{accounts::queries::BatchError, metrics};

/// How long a gateway may take to answer. The registry reports a dead gateway within a few seconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// Each connection moves one ticket at a time, so the bound of connections is never exceeded.
fn batch_policy(connections: usize) -> BatchPolicy {
    BatchPolicy {
        max_requests: 256,
        interval: Duration::from_millis(20),
        waiting: connections,
        // For the gateway's answer and then the store's.
        deadline: Duration::from_secs(5),
    }
}

/// How long one gateway stays the first candidate.
const OFFER_ROTATION: Duration = Duration::from_millis(20);
/// How long a gateway may take to list sessions, because a player waits.
const LIST_DEADLINE: Duration = Duration::from_secs(1);
/// Gateways tried for one ticket.
const CANDIDATES: usize = 3;

pub(crate) struct Gateways {
    node: Node,
    directory: Directory,
    /// Keyed by the gateway's address.
    admissions: RequestBatcher<String, Admission, AdmitAnswer, Status>,
    offered: Mutex<Option<OfferedGateways>>,
}

/// The candidates of the current rotation.
struct OfferedGateways {
    since: Instant,
    candidates: Vec<Instance>,
}

/// A gateway's answer to a ticket, and the generation of the account after that.
#[derive(Clone)]
struct AdmitAnswer {
    admitted: Admitted,
    generation: Result<Option<Generation>, BatchError>,
}

/// Why a gateway did not take a ticket.
pub(crate) enum AdmitError {
    /// It knows a higher generation of the account.
    Outdated,
    /// It has no room or does not answer; another gateway may take the ticket.
    Unavailable(Status),
}

/// An account's sessions at all gateways.
pub(crate) struct AccountSessions {
    /// Name of the gateway, and its reply.
    pub(crate) answers: Vec<(String, ListSessionsReply)>,
    /// Names of the gateways that did not answer.
    pub(crate) unreachable: Vec<String>,
}

impl Gateways {
    pub(crate) fn new(node: &Node, database: &Database, connections: usize) -> Self {
        Self {
            node: node.clone(),
            directory: node.directory(DaemonKind::Gateway),
            admissions: admissions(node.clone(), database.clone(), batch_policy(connections)),
            offered: Mutex::default(),
        }
    }

    /// Gateways to offer, the best first: one of the least loaded, then others. Players that come at the same time are sent
    /// to the same gateway, so that their tickets go into one call.
    pub(crate) fn candidates(&self) -> Vec<Instance> {
        let (now, mut offered) = (Instant::now(), self.offered.lock());
        let is_recent = |it: &&OfferedGateways| {
            now.saturating_duration_since(it.since) < OFFER_ROTATION && !it.candidates.is_empty()
        };
        if let Some(recent) = offered.as_ref().filter(is_recent) {
            return recent.candidates.clone();
        }
        offered.insert(OfferedGateways { since: now, candidates: self.lightest_first() }).candidates.clone()
    }

    fn lightest_first(&self) -> Vec<Instance> {
        let mut others = self.directory.up();
        others.retain(|gateway| !gateway.client_address.is_empty());
        others.sort_by(|a, b| a.load.total_cmp(&b.load));
        let least_loaded = self.directory.least_loaded().filter(|gateway| !gateway.client_address.is_empty());
        if let Some(first) = &least_loaded {
            others.retain(|gateway| gateway.id != first.id);
        }
        least_loaded.into_iter().chain(others).take(CANDIDATES).collect()
    }

    /// Moves a ticket to the gateway, in one call with other tickets. Returns the generation that the account had after the
    /// ticket arrived.
    pub(crate) async fn admit(
        &self,
        gateway: &Instance,
        ticket: Admission,
    ) -> Result<Result<Option<Generation>, BatchError>, AdmitError> {
        let asked = self.admissions.submit(&gateway.grpc_address, ticket).await;
        let AdmitAnswer { admitted, generation } = asked.map_err(AdmitError::Unavailable)?;
        match outcome(admitted.code, &admitted.detail) {
            Ok(()) => Ok(generation),
            Err(status) if status.code() == Code::FailedPrecondition => Err(AdmitError::Outdated),
            Err(status) => Err(AdmitError::Unavailable(status)),
        }
    }

    /// Revokes a ticket. If the gateway does not answer, the ticket expires.
    pub(crate) async fn revoke_ticket(&self, gateway: &Instance, ticket: TicketId) {
        let request = RevokeTicketRequest { ticket_id: ticket.as_bytes().to_vec() };
        let call =
            |mut client: GatewayClient<Channel>, request| async move { client.revoke_ticket(request).await };
        // A failure is counted, and nothing else can be done about it.
        let _ = self.call("revoke_ticket", gateway, request, call).await;
    }

    /// Ends the account's sessions and tickets below the generation on every gateway, and returns how many sessions ended.
    /// A gateway that fails is called once more; `world` refuses old generations in any case.
    pub(crate) async fn revoke_account(&self, account: AccountGeneration, cause: &RevocationCause) -> u32 {
        let request = RevokeAccountRequest {
            account: account.id.0,
            below_generation: account.generation.0,
            code: cause.code,
            detail: cause.detail.clone(),
        };
        let alive = self.alive();
        join_all(alive.iter().map(|gateway| self.revoke_at(gateway, &request))).await.into_iter().sum()
    }

    fn alive(&self) -> Vec<Instance> {
        let mut gateways = self.directory.all();
        gateways.retain(|gateway| !gateway.state.is_down());
        gateways
    }

    /// The account's sessions, as far as the gateways answer.
    pub(crate) async fn sessions_of(&self, account: AccountId) -> AccountSessions {
        let alive = self.alive();
        let asked = alive.iter().map(|gateway| async move {
            let request = ListSessionsRequest { account: Some(account.0), ..ListSessionsRequest::default() };
            let call = |mut client: GatewayClient<Channel>, request| async move {
                client.list_sessions(request).await
            };
            let answer = self.call("list_sessions", gateway, request, call);
            tokio::time::timeout(LIST_DEADLINE, answer).await.ok().and_then(Result::ok)
        });
        let mut found = AccountSessions { answers: Vec::new(), unreachable: Vec::new() };
        for (gateway, answer) in alive.iter().zip(join_all(asked).await) {
            match answer {
                Some(reply) => found.answers.push((gateway.id.name.clone(), reply)),
                None => found.unreachable.push(gateway.id.name.clone()),
            }
        }
        found
    }

    async fn revoke_at(&self, gateway: &Instance, request: &RevokeAccountRequest) -> u32 {
        for _ in 0..2 {
            let call = |mut client: GatewayClient<Channel>, request| async move {
                client.revoke_account(request).await
            };
            match self.call("revoke_account", gateway, request.clone(), call).await {
                Ok(reply) => return reply.ended,
                Err(status) => {
                    warn!(gateway = gateway.id.name, account = request.account, %status, "a gateway did not end an account's sessions");
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
        timed_call(name, call(client, with_deadline(message))).await
    }
}

fn admissions(
    node: Node,
    database: Database,
    batch_policy: BatchPolicy,
) -> RequestBatcher<String, Admission, AdmitAnswer, Status> {
    RequestBatcher::new("admit", batch_policy, move |address: String, admissions: Vec<Admission>| {
        let mut client = GatewayClient::new(node.channel(DaemonKind::Gateway, &address));
        let database = database.clone();
        Box::pin(async move {
            let accounts: Vec<_> = admissions.iter().map(|ticket| AccountId(ticket.account)).collect();
            let admit = client.admit(with_deadline(AdmitRequest { admissions }));
            let admitted = timed_call("admit", admit).await?.admitted;
            let found = tokio::time::timeout(DEADLINE, generations(&database, &accounts)).await;
            let found = found.unwrap_or_else(|_| Err(store::Error::timed_out())).map_err(BatchError::from);
            let answered = admitted.into_iter().enumerate().map(|(index, admitted)| {
                let at_index = |found: &Vec<_>| found.get(index).copied().flatten();
                let generation = found.as_ref().map(at_index).map_err(Clone::clone);
                AdmitAnswer { admitted, generation }
            });
            Ok(answered.collect())
        })
    })
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Awaits the call within the deadline, and counts it.
async fn timed_call<R>(
    name: &'static str,
    call: impl Future<Output = Result<Response<R>, Status>>,
) -> Result<R, Status> {
    let answer = tokio::time::timeout(DEADLINE, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    metrics::gateway_call(name, answer.is_ok());
    answer.map(Response::into_inner)
}

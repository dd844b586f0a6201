//! What login asks of gateways: to expect a ticket, to forget one, and to end what an account runs under an old
//! generation.

use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use shardkeep_cluster::{Directory, Gather, Instance, Node, Pace};
use shardkeep_rpc::gateway::{
    Admission, AdmitRequest, Admitted, ListSessionsReply, ListSessionsRequest, RevokeAccountRequest,
    RevokeTicketRequest, gateway_client::GatewayClient,
};
use shardkeep_rpc::many::outcome;
use shardkeep_store::{
    self as store, Database,
    accounts::{Cause, Raised, generations},
};
use shardkeep_types::{AccountId, DaemonKind, Generation, TicketId};
use tonic::{Code, Request, Response, Status, transport::Channel};
use tracing::warn;

use crate::{gathered::Failed, metrics};

/// How long a gateway may take to answer. One that is gone is noticed by the registry in a few seconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// Every ticket is of a connection, and so many there are at most: nothing is refused here.
fn pace(connections: usize) -> Pace {
    Pace {
        most: 256,
        interval: Duration::from_millis(20),
        waiting: connections,
        // The gateway's time, and the store's.
        deadline: Duration::from_secs(5),
    }
}

/// How long one gateway has its turn to be offered first.
const TURN: Duration = Duration::from_millis(20);
/// How long a player waits for a gateway that was asked for sessions.
const LIST_DEADLINE: Duration = Duration::from_secs(1);
/// Gateways tried for one ticket.
const CANDIDATES: usize = 3;

pub(crate) struct Gateways {
    node: Node,
    directory: Directory,
    /// By the gateway's address.
    admissions: Gather<String, Admission, Answered, Status>,
    offered: Mutex<Option<Offered>>,
}

/// Who is offered to players, and since when.
struct Offered {
    since: Instant,
    candidates: Vec<Instance>,
}

/// A gateway's answer to a ticket, and the generation that its account had afterwards.
#[derive(Clone)]
struct Answered {
    admitted: Admitted,
    generation: Result<Option<Generation>, Failed>,
}

/// Why a gateway does not take a ticket.
pub(crate) enum Refused {
    /// It knows of a higher generation of the account.
    Outdated,
    /// It has no room, or does not answer: another one may.
    Away(Status),
}

/// What the gateways know of an account.
pub(crate) struct Found {
    /// By the name of the gateway.
    pub(crate) answers: Vec<(String, ListSessionsReply)>,
    /// Those that did not answer.
    pub(crate) silent: Vec<String>,
}

impl Gateways {
    pub(crate) fn new(node: &Node, database: &Database, connections: usize) -> Self {
        Self {
            node: node.clone(),
            directory: node.directory(DaemonKind::Gateway),
            admissions: admissions(node.clone(), database.clone(), pace(connections)),
            offered: Mutex::default(),
        }
    }

    /// Gateways to offer, the best first: the lightest by turns, then whoever else takes players. Those who come at the
    /// same time are sent to the same one, so that their tickets go together.
    pub(crate) fn candidates(&self) -> Vec<Instance> {
        let (now, mut offered) = (Instant::now(), self.offered.lock());
        let lasts =
            |it: &&Offered| now.saturating_duration_since(it.since) < TURN && !it.candidates.is_empty();
        if let Some(lasting) = offered.as_ref().filter(lasts) {
            return lasting.candidates.clone();
        }
        offered.insert(Offered { since: now, candidates: self.lightest_first() }).candidates.clone()
    }

    fn lightest_first(&self) -> Vec<Instance> {
        let mut others = self.directory.up();
        others.retain(|gateway| !gateway.client_address.is_empty());
        others.sort_by(|a, b| a.load.total_cmp(&b.load));
        let lightest = self.directory.lightest().filter(|gateway| !gateway.client_address.is_empty());
        if let Some(first) = &lightest {
            others.retain(|gateway| gateway.id != first.id);
        }
        lightest.into_iter().chain(others).take(CANDIDATES).collect()
    }

    /// Moves a ticket to the gateway, in one call with those of others. Says which generation the account had once the
    /// ticket was there.
    pub(crate) async fn admit(
        &self,
        gateway: &Instance,
        ticket: Admission,
    ) -> Result<Result<Option<Generation>, Failed>, Refused> {
        let asked = self.admissions.ask(&gateway.grpc_address, ticket).await;
        let Answered { admitted, generation } = asked.map_err(Refused::Away)?;
        match outcome(admitted.code, &admitted.detail) {
            Ok(()) => Ok(generation),
            Err(status) if status.code() == Code::FailedPrecondition => Err(Refused::Outdated),
            Err(status) => Err(Refused::Away(status)),
        }
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
    pub(crate) async fn revoke_account(&self, account: Raised, cause: &Cause) -> u32 {
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
        gateways.retain(|gateway| !gateway.state.is_gone());
        gateways
    }

    /// Where the account is logged in, as far as the gateways answer.
    pub(crate) async fn sessions_of(&self, account: AccountId) -> Found {
        let alive = self.alive();
        let asked = alive.iter().map(|gateway| async move {
            let request = ListSessionsRequest { account: Some(account.0) };
            let call = |mut client: GatewayClient<Channel>, request| async move {
                client.list_sessions(request).await
            };
            let answer = self.call("list_sessions", gateway, request, call);
            tokio::time::timeout(LIST_DEADLINE, answer).await.ok().and_then(Result::ok)
        });
        let mut found = Found { answers: Vec::new(), silent: Vec::new() };
        for (gateway, answer) in alive.iter().zip(join_all(asked).await) {
            match answer {
                Some(reply) => found.answers.push((gateway.id.name.clone(), reply)),
                None => found.silent.push(gateway.id.name.clone()),
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
        called(name, call(client, in_time(message))).await
    }
}

fn admissions(node: Node, database: Database, pace: Pace) -> Gather<String, Admission, Answered, Status> {
    Gather::new("admit", pace, move |address: String, admissions: Vec<Admission>| {
        let mut client = GatewayClient::new(node.channel(DaemonKind::Gateway, &address));
        let database = database.clone();
        Box::pin(async move {
            let accounts: Vec<_> = admissions.iter().map(|ticket| AccountId(ticket.account)).collect();
            let admit = client.admit(in_time(AdmitRequest { admissions }));
            let admitted = called("admit", admit).await?.admitted;
            let found = tokio::time::timeout(DEADLINE, generations(&database, &accounts)).await;
            let found = found.unwrap_or_else(|_| Err(store::Error::away())).map_err(Failed::from);
            let answered = admitted.into_iter().enumerate().map(|(place, admitted)| {
                let of_place = |found: &Vec<_>| found.get(place).copied().flatten();
                let generation = found.as_ref().map(of_place).map_err(Clone::clone);
                Answered { admitted, generation }
            });
            Ok(answered.collect())
        })
    })
}

fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Counts the call.
async fn called<R>(
    name: &'static str,
    call: impl Future<Output = Result<Response<R>, Status>>,
) -> Result<R, Status> {
    let answer = tokio::time::timeout(DEADLINE, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    metrics::gateway_call(name, answer.is_ok());
    answer.map(Response::into_inner)
}

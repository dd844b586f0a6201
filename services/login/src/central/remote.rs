//! Calls from another region to the centre: the home region's login servers are called in turn until one answers.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use shardkeep_cluster::{MESSAGE_LIMIT, Node};
use shardkeep_rpc::central::{
    self as wire, ActivateRequest, CreateRequest, FindRequest, FollowRequest, GroupsRequest, SetBanRequest,
    SetProofRequest, SetSecondFactorRequest, ShowRequest, central_client::CentralClient, show_request,
};
use shardkeep_store::{
    accounts::{Ban, Proof},
    central::Account,
};
use shardkeep_types::{AccountId, DaemonKind, Secret};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::central::{
    convert,
    error::CentralError,
    overview::{AccountOverview, Selector},
};

/// How long one server may take before the next is called. Every call may be repeated.
const DEADLINE: Duration = Duration::from_secs(2);

type Client = CentralClient<Channel>;

pub(super) struct Remote {
    node: Node,
    addresses: Vec<String>,
    /// Index of the server to call first.
    preferred: AtomicUsize,
}

impl Remote {
    pub(super) fn new(addresses: &[String], node: &Node) -> Self {
        Self { node: node.clone(), addresses: addresses.to_vec(), preferred: AtomicUsize::new(0) }
    }

    pub(super) async fn find(&self, name: &str, until: Instant) -> Result<Option<Account>, CentralError> {
        let request = FindRequest { name: name.to_owned() };
        let find = |mut client: Client, request| async move { client.find(request).await };
        let reply = self.ask(until, request, find).await?;
        reply.account.map(convert::from_wire).transpose()
    }

    pub(super) async fn activate(&self, id: AccountId, region: &str) -> Result<Account, CentralError> {
        let request = ActivateRequest { account: id.0, region: region.to_owned() };
        self.call_for_account(
            request,
            |mut client: Client, request| async move { client.activate(request).await },
        )
        .await
    }

    pub(super) async fn create(
        &self,
        name: &str,
        proof: &Proof,
        region: &str,
    ) -> Result<Account, CentralError> {
        let request = CreateRequest {
            name: name.to_owned(),
            group: proof.group,
            salt: proof.salt.clone(),
            verifier: proof.verifier.expose().clone(),
            region: region.to_owned(),
        };
        self.call_for_account(
            request,
            |mut client: Client, request| async move { client.create(request).await },
        )
        .await
    }

    pub(super) async fn set_proof(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        let request = SetProofRequest {
            account: id.0,
            known_version: expected_version.unwrap_or_default(),
            group: proof.group,
            salt: proof.salt.clone(),
            verifier: proof.verifier.expose().clone(),
        };
        self.call_for_account(request, |mut client: Client, request| async move {
            client.set_proof(request).await
        })
        .await
    }

    pub(super) async fn set_factor(
        &self,
        id: AccountId,
        expected_version: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        let request = SetSecondFactorRequest {
            account: id.0,
            known_version: expected_version.unwrap_or_default(),
            second_factor: factor.map(|secret| secret.expose().clone()).unwrap_or_default(),
        };
        let set = |mut client: Client, request| async move { client.set_second_factor(request).await };
        self.call_for_account(request, set).await
    }

    pub(super) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        let request = SetBanRequest { account: id.0, until_ms: ban.until_ms, reason: ban.reason.clone() };
        self.call_for_account(
            request,
            |mut client: Client, request| async move { client.set_ban(request).await },
        )
        .await
    }

    pub(super) async fn show(&self, selector: Selector) -> Result<AccountOverview, CentralError> {
        let selector = match selector {
            Selector::Name(name) => show_request::Selector::Name(name),
            Selector::Id(id) => show_request::Selector::Id(id.0),
        };
        let show = |mut client: Client, request| async move { client.show(request).await };
        self.ask(self.deadline_for_all(), ShowRequest { selector: Some(selector) }, show)
            .await
            .map(convert::overview_from_wire)
    }

    pub(super) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        let groups = |mut client: Client, request| async move { client.groups(request).await };
        let reply = self.ask(self.deadline_for_all(), GroupsRequest {}, groups).await?;
        Ok(reply.groups.into_iter().map(|it| (it.group, it.accounts)).collect())
    }

    pub(super) async fn follow(
        &self,
        region: &str,
        after: u64,
    ) -> Result<(usize, Streaming<wire::Changes>), CentralError> {
        let request = FollowRequest { region: region.to_owned(), after_version: after };
        // A deadline in the request would end the stream, so only the call has one.
        let follow = |mut client: Client, _| {
            let request = request.clone();
            async move { client.follow(request).await }
        };
        self.attempt(self.deadline_for_all(), follow).await
    }

    async fn call_for_account<Q: Clone, F>(
        &self,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<Account, CentralError>
    where
        F: Future<Output = Result<Response<wire::Account>, Status>>,
    {
        self.ask(self.deadline_for_all(), message, call).await.and_then(convert::from_wire)
    }

    async fn ask<Q: Clone, R, F>(
        &self,
        until: Instant,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<R, CentralError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let one = |client, within| {
            let mut request = Request::new(message.clone());
            request.set_timeout(within);
            call(client, request)
        };
        self.attempt(until, one).await.map(|(_, answer)| answer)
    }

    /// Calls the servers in turn until one answers or the time is over, and returns which one answered. A server that does
    /// not answer or refuses is called last the next time.
    async fn attempt<R, F>(
        &self,
        until: Instant,
        call: impl Fn(Client, Duration) -> F,
    ) -> Result<(usize, R), CentralError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (mut away, mut refused) = (None, None);
        let (first, all) = (self.preferred.load(Ordering::Relaxed), self.addresses.len());
        for asked in (first..first + all).map(|turn| turn % all) {
            let within = until.saturating_duration_since(Instant::now()).min(DEADLINE);
            if within.is_zero() {
                break;
            }
            let answer = timeout(within, call(self.client(asked), within)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            match answer.map_err(CentralError::from) {
                Ok(reply) => return Ok((asked, reply.into_inner())),
                Err(error @ CentralError::Unavailable(_)) => away = Some(error),
                Err(error @ CentralError::Refused(_)) => refused = Some(error),
                Err(error) => return Err(error),
            }
            self.demote(asked);
        }
        // A server that did not answer may have made the change, whatever the others say.
        let none = || CentralError::Unavailable("there was no time for a call".to_owned());
        Err(away.or(refused).unwrap_or_else(none))
    }

    /// Calls the next server first from now on.
    pub(super) fn demote(&self, at: usize) {
        let next = (at + 1) % self.addresses.len();
        // Another call may have moved on already.
        let _ = self.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Time to call every server.
    fn deadline_for_all(&self) -> Instant {
        Instant::now() + DEADLINE * u32::try_from(self.addresses.len()).unwrap_or(1)
    }

    fn client(&self, at: usize) -> Client {
        CentralClient::new(self.node.channel(DaemonKind::Login, &self.addresses[at]))
            .max_decoding_message_size(MESSAGE_LIMIT)
    }
}

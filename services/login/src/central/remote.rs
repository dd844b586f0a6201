//! The centre as another region reaches it: the home region's login servers, one after the other until one answers.

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
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::{CentralError, Shown, Who, convert};

/// How long one server may take; then the next is asked. Everything that is asked may be asked twice.
const DEADLINE: Duration = Duration::from_secs(2);

type Client = CentralClient<Channel>;

pub(super) struct Remote {
    node: Node,
    addresses: Vec<String>,
    /// The one that answered last.
    preferred: AtomicUsize,
}

impl Remote {
    pub(super) fn new(addresses: &[String], node: &Node) -> Self {
        Self { node: node.clone(), addresses: addresses.to_vec(), preferred: AtomicUsize::new(0) }
    }

    pub(super) async fn find(&self, name: &str, within: Duration) -> Result<Option<Account>, CentralError> {
        let request = FindRequest { name: name.to_owned() };
        let find = |mut client: Client, request| async move { client.find(request).await };
        let reply = self.ask(within.min(DEADLINE), request, find).await?;
        reply.account.map(convert::from_wire).transpose()
    }

    pub(super) async fn activate(&self, id: AccountId, region: &str) -> Result<Account, CentralError> {
        let request = ActivateRequest { account: id.0, region: region.to_owned() };
        self.change(request, |mut client: Client, request| async move { client.activate(request).await })
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
        self.change(request, |mut client: Client, request| async move { client.create(request).await }).await
    }

    pub(super) async fn set_proof(
        &self,
        id: AccountId,
        known: Option<u64>,
        proof: &Proof,
    ) -> Result<Account, CentralError> {
        let request = SetProofRequest {
            account: id.0,
            known_version: known.unwrap_or_default(),
            group: proof.group,
            salt: proof.salt.clone(),
            verifier: proof.verifier.expose().clone(),
        };
        self.change(request, |mut client: Client, request| async move { client.set_proof(request).await })
            .await
    }

    pub(super) async fn set_factor(
        &self,
        id: AccountId,
        known: Option<u64>,
        factor: Option<&Secret<Vec<u8>>>,
    ) -> Result<Account, CentralError> {
        let request = SetSecondFactorRequest {
            account: id.0,
            known_version: known.unwrap_or_default(),
            second_factor: factor.map(|secret| secret.expose().clone()).unwrap_or_default(),
        };
        let set = |mut client: Client, request| async move { client.set_second_factor(request).await };
        self.change(request, set).await
    }

    pub(super) async fn set_ban(&self, id: AccountId, ban: &Ban) -> Result<Account, CentralError> {
        let request = SetBanRequest { account: id.0, until_ms: ban.until_ms, reason: ban.reason.clone() };
        self.change(request, |mut client: Client, request| async move { client.set_ban(request).await }).await
    }

    pub(super) async fn show(&self, who: Who) -> Result<Shown, CentralError> {
        let who = match who {
            Who::Name(name) => show_request::Who::Name(name),
            Who::Id(id) => show_request::Who::Id(id.0),
        };
        let show = |mut client: Client, request| async move { client.show(request).await };
        self.ask(DEADLINE, ShowRequest { who: Some(who) }, show).await.map(convert::shown_from_wire)
    }

    pub(super) async fn groups(&self) -> Result<Vec<(u32, u64)>, CentralError> {
        let groups = |mut client: Client, request| async move { client.groups(request).await };
        let reply = self.ask(DEADLINE, GroupsRequest {}, groups).await?;
        Ok(reply.groups.into_iter().map(|it| (it.group, it.accounts)).collect())
    }

    pub(super) async fn follow(
        &self,
        region: &str,
        after: u64,
    ) -> Result<Streaming<wire::Changes>, CentralError> {
        let request = FollowRequest { region: region.to_owned(), after_version: after };
        let mut turns = self.turns();
        self.attempt(&mut turns, || async {
            // Its deadline would be the stream's: only the beginning has one.
            let mut client = self.client(self.preferred());
            timeout(DEADLINE, client.follow(request.clone())).await
        })
        .await
    }

    async fn change<Q: Clone, F>(
        &self,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<Account, CentralError>
    where
        F: Future<Output = Result<Response<wire::Account>, Status>>,
    {
        self.ask(DEADLINE, message, call).await.and_then(convert::from_wire)
    }

    async fn ask<Q: Clone, R, F>(
        &self,
        within: Duration,
        message: Q,
        call: impl Fn(Client, Request<Q>) -> F,
    ) -> Result<R, CentralError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut turns = self.turns();
        self.attempt(&mut turns, || {
            let mut request = Request::new(message.clone());
            request.set_timeout(within);
            timeout(within, call(self.client(self.preferred()), request))
        })
        .await
    }

    /// Asks one server after the other; the one that answers is asked first the next time.
    async fn attempt<R, F>(&self, turns: &mut usize, call: impl Fn() -> F) -> Result<R, CentralError>
    where
        F: Future<Output = Result<Result<Response<R>, Status>, tokio::time::error::Elapsed>>,
    {
        loop {
            let asked = self.preferred();
            let late = || Status::deadline_exceeded("no answer in time");
            let error = match call().await.unwrap_or_else(|_| Err(late())) {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => CentralError::from(status),
            };
            *turns -= 1;
            match error {
                CentralError::Away(_) => {
                    let next = (asked + 1) % self.addresses.len();
                    // Others may have moved on already.
                    let _ =
                        self.preferred.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
                    if *turns == 0 {
                        return Err(error);
                    }
                }
                error => return Err(error),
            }
        }
    }

    fn turns(&self) -> usize {
        self.addresses.len()
    }

    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    fn client(&self, at: usize) -> Client {
        CentralClient::new(self.node.channel(DaemonKind::Login, &self.addresses[at]))
            .max_decoding_message_size(MESSAGE_LIMIT)
    }
}

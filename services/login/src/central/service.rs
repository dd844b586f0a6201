//! The gRPC service of the centre. The access table admits only login servers.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use shardkeep_rpc::central::{
    Account, ActivateRequest, Changes, CreateRequest, FindReply, FindRequest, FollowRequest, GroupCount,
    GroupsReply, GroupsRequest, SetBanRequest, SetProofRequest, SetSecondFactorRequest, ShowReply,
    ShowRequest,
    central_server::{Central, CentralServer},
    show_request,
};
use shardkeep_store::accounts::Ban;
use shardkeep_types::{AccountId, Secret};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    central::{convert, error::CentralError, overview::Selector, store::Store},
    metrics,
};

pub(crate) struct CentralService {
    store: Arc<Store>,
    draining: CancellationToken,
}

impl CentralService {
    pub(crate) fn server(store: Arc<Store>, draining: CancellationToken) -> CentralServer<Self> {
        CentralServer::new(Self { store, draining })
    }
}

#[tonic::async_trait]
impl Central for CentralService {
    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindReply>, Status> {
        let FindRequest { name } = begin_request("find", request);
        let account = self.store.find(&name).await?;
        Ok(Response::new(FindReply { account: account.as_ref().map(convert::to_wire) }))
    }

    async fn activate(&self, request: Request<ActivateRequest>) -> Result<Response<Account>, Status> {
        let ActivateRequest { account, region } = begin_request("activate", request);
        account_reply(self.store.activate(AccountId(account), checked_region(&region)?).await)
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Account>, Status> {
        let CreateRequest { name, group, salt, verifier, region } = begin_request("create", request);
        let proof = convert::proof(&name, group, salt, verifier)?;
        account_reply(self.store.create(&name, &proof, checked_region(&region)?).await)
    }

    async fn set_proof(&self, request: Request<SetProofRequest>) -> Result<Response<Account>, Status> {
        let SetProofRequest { account, known_version, group, salt, verifier } =
            begin_request("set_proof", request);
        let id = AccountId(account);
        // Any name serves to check the numbers.
        let proof = convert::proof("anybody", group, salt, verifier)?;
        account_reply(self.store.set_proof(id, nonzero_version(known_version), &proof).await)
    }

    async fn set_second_factor(
        &self,
        request: Request<SetSecondFactorRequest>,
    ) -> Result<Response<Account>, Status> {
        let SetSecondFactorRequest { account, known_version, second_factor } =
            begin_request("set_second_factor", request);
        let factor = Some(second_factor).filter(|secret| !secret.is_empty()).map(Secret::new);
        account_reply(
            self.store.set_factor(AccountId(account), nonzero_version(known_version), factor.as_ref()).await,
        )
    }

    async fn set_ban(&self, request: Request<SetBanRequest>) -> Result<Response<Account>, Status> {
        let SetBanRequest { account, until_ms, reason } = begin_request("set_ban", request);
        account_reply(self.store.set_ban(AccountId(account), &Ban { until_ms, reason }).await)
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<ShowReply>, Status> {
        let selector = match begin_request("show", request).selector {
            Some(show_request::Selector::Name(name)) => Selector::Name(name),
            Some(show_request::Selector::Id(id)) => Selector::Id(AccountId(id)),
            None => return Err(Status::invalid_argument("the request needs a name or an id")),
        };
        Ok(Response::new(convert::overview_to_wire(self.store.show(selector).await?)))
    }

    async fn groups(&self, request: Request<GroupsRequest>) -> Result<Response<GroupsReply>, Status> {
        begin_request("groups", request);
        let counts = self.store.groups().await?.into_iter();
        let groups = counts.map(|(group, accounts)| GroupCount { group, accounts }).collect();
        Ok(Response::new(GroupsReply { groups }))
    }

    type FollowStream = Pin<Box<dyn Stream<Item = Result<Changes, Status>> + Send>>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let FollowRequest { region, after_version } = begin_request("follow", request);
        checked_region(&region)?;
        let changes = ReceiverStream::new(self.store.clone().changes(region, after_version)?);
        let messages = changes.map(|batch| Ok(batch?.to_wire()));
        let draining = self.draining.clone();
        Ok(Response::new(Box::pin(messages.take_until(draining.cancelled_owned()))))
    }
}

fn begin_request<T>(command: &'static str, request: Request<T>) -> T {
    metrics::central_request(command);
    request.into_inner()
}

fn nonzero_version(version: u64) -> Option<u64> {
    (version > 0).then_some(version)
}

fn checked_region(region: &str) -> Result<&str, Status> {
    if region.is_empty() || region.len() > 63 {
        return Err(Status::invalid_argument("the name of a region must have 1 to 63 bytes"));
    }
    Ok(region)
}

fn account_reply(
    outcome: Result<shardkeep_store::central::Account, CentralError>,
) -> Result<Response<Account>, Status> {
    Ok(Response::new(convert::to_wire(&outcome?)))
}

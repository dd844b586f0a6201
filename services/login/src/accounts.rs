//! Operators' view of accounts over gRPC. A password never comes here: whoever makes an account sends its verifier.
//! What ends sessions is pushed to the gateways before it is answered.

use std::sync::Arc;

use shardkeep_auth::{AccountName, srp::Verifier};
use shardkeep_cluster::Peer;
use shardkeep_rpc::accounts::{
    Account, BanReply, BanRequest, CreateReply, CreateRequest, ListReply, ListRequest, LogOutReply,
    LogOutRequest, SetVerifierReply, SetVerifierRequest, ShowRequest, UnbanReply, UnbanRequest,
    accounts_server::{Accounts, AccountsServer},
    show_request::Who,
};
use shardkeep_store::{
    self as store,
    accounts::{self as table, Ban, Proof, Raised},
};
use shardkeep_types::{AccountId, Secret};
use shardkeep_wire::payload::ErrorCode;
use tonic::{Request, Response, Status};

use crate::{door::Door, error::ban_detail, metrics, random};

/// Accounts in one answer to List: by default, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
/// Bytes of a ban's reason, which the player sees.
const MAX_REASON: usize = 256;

pub(crate) struct AccountsService {
    door: Arc<Door>,
}

impl AccountsService {
    pub(crate) fn server(door: Arc<Door>) -> AccountsServer<Self> {
        AccountsServer::new(Self { door })
    }

    async fn end_sessions(&self, account: Raised, code: ErrorCode, detail: &str) -> u32 {
        self.door.gateways.revoke_account(account, code, detail).await
    }
}

#[tonic::async_trait]
impl Accounts for AccountsService {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        let (operator, CreateRequest { name, group, salt, verifier }) = begin("create", request)?;
        let name = account_name(&name)?;
        let proof = proof(&name, group, salt, verifier)?;
        let id = table::create(&self.door.database, name.as_str(), &proof).await.map_err(away)?;
        let id = id.ok_or_else(|| Status::already_exists(format!("there is an account {name}")))?;
        shardkeep_daemon::event!("account_created", account = id.0, name = name.as_str(), operator);
        Ok(Response::new(CreateReply { account: id.0 }))
    }

    async fn set_verifier(
        &self,
        request: Request<SetVerifierRequest>,
    ) -> Result<Response<SetVerifierReply>, Status> {
        let (operator, SetVerifierRequest { name, group, salt, verifier }) = begin("set_verifier", request)?;
        let name = account_name(&name)?;
        let proof = proof(&name, group, salt, verifier)?;
        let raised = table::set_proof(&self.door.database, name.as_str(), &proof).await.map_err(away)?;
        let raised = raised.ok_or_else(|| unknown(&name))?;
        shardkeep_daemon::event!("password_changed", account = raised.id.0, operator);
        self.end_sessions(raised, ErrorCode::Kicked, "the password was changed").await;
        Ok(Response::new(SetVerifierReply {}))
    }

    async fn ban(&self, request: Request<BanRequest>) -> Result<Response<BanReply>, Status> {
        let (operator, BanRequest { name, until_ms, reason }) = begin("ban", request)?;
        let name = account_name(&name)?;
        if until_ms <= random::unix_millis() {
            return Err(Status::invalid_argument("until_ms is in the past"));
        }
        if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
            return Err(Status::invalid_argument("a reason has at most 256 bytes and no control characters"));
        }
        let ban = Ban { until_ms, reason };
        let raised = table::ban(&self.door.database, name.as_str(), &ban).await.map_err(away)?;
        let raised = raised.ok_or_else(|| unknown(&name))?;
        shardkeep_daemon::event!("banned", account = raised.id.0, until_ms, reason = ban.reason, operator);
        let detail = ban_detail(until_ms, &ban.reason);
        let sessions_ended = self.end_sessions(raised, ErrorCode::Banned, &detail).await;
        Ok(Response::new(BanReply { sessions_ended }))
    }

    async fn unban(&self, request: Request<UnbanRequest>) -> Result<Response<UnbanReply>, Status> {
        let (operator, UnbanRequest { name }) = begin("unban", request)?;
        let name = account_name(&name)?;
        if !table::unban(&self.door.database, name.as_str()).await.map_err(away)? {
            return Err(unknown(&name));
        }
        shardkeep_daemon::event!("unbanned", name = name.as_str(), operator);
        Ok(Response::new(UnbanReply {}))
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<Account>, Status> {
        let (_, ShowRequest { who }) = begin("show", request)?;
        let database = &self.door.database;
        let found = match who.ok_or_else(|| Status::invalid_argument("a name or an id is needed"))? {
            Who::Name(name) => table::by_name(database, account_name(&name)?.as_str()).await,
            Who::Id(id) => table::by_id(database, AccountId(id)).await,
        };
        let found = found.map_err(away)?.ok_or_else(|| Status::not_found("there is no such account"))?;
        Ok(Response::new(shown(found)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let (_, ListRequest { prefix, after, limit }) = begin("list", request)?;
        let (prefix, after) = (prefix.trim().to_ascii_lowercase(), after.trim().to_ascii_lowercase());
        let limit = if limit == 0 { PAGE } else { limit.min(MAX_PAGE) };
        let accounts = table::list(&self.door.database, &prefix, &after, limit).await.map_err(away)?;
        Ok(Response::new(ListReply { accounts: accounts.into_iter().map(shown).collect() }))
    }

    async fn log_out_everywhere(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutReply>, Status> {
        let (operator, LogOutRequest { name }) = begin("log_out_everywhere", request)?;
        let name = account_name(&name)?;
        let raised = table::raise(&self.door.database, name.as_str()).await.map_err(away)?;
        let raised = raised.ok_or_else(|| unknown(&name))?;
        shardkeep_daemon::event!("logged_out_everywhere", account = raised.id.0, operator);
        let sessions_ended = self.end_sessions(raised, ErrorCode::Kicked, "logged out everywhere").await;
        Ok(Response::new(LogOutReply { sessions_ended }))
    }
}

/// Counts the command; says who gives it.
fn begin<T>(command: &'static str, request: Request<T>) -> Result<(String, T), Status> {
    metrics::command(command);
    let peer = Peer::of(&request)?;
    Ok((format!("{}/{}", peer.kind, peer.name), request.into_inner()))
}

fn account_name(typed: &str) -> Result<AccountName, Status> {
    AccountName::normalise(typed).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Refuses what could never log in.
fn proof(name: &AccountName, group: u32, salt: Vec<u8>, verifier: Vec<u8>) -> Result<Proof, Status> {
    let verifier = Secret::new(verifier);
    Verifier::stored(name.clone(), group, salt.clone(), verifier.clone())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Proof { group, salt, verifier })
}

fn unknown(name: &AccountName) -> Status {
    Status::not_found(format!("there is no account {name}"))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn away(error: store::Error) -> Status {
    tracing::error!(%error, "the account store fails");
    if error.retryable() {
        Status::unavailable("the account store is away")
    } else {
        Status::internal("the account store fails")
    }
}

fn shown(account: table::Account) -> Account {
    Account {
        id: account.id.0,
        name: account.name,
        generation: account.generation.0,
        created_ms: account.created_ms,
        last_login_ms: account.last_login_ms,
        banned_until_ms: account.ban.until_ms,
        ban_reason: account.ban.reason,
    }
}

//! The console for programs and the command line. Every call but SignIn and OneTimeLink carries a token.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use shardkeep_cluster::Peer;
use shardkeep_rpc::gm::{self, gm_server};
use shardkeep_store::audit;
use shardkeep_types::{DaemonKind, Secret};
use tonic::{Code, Request, Response, Status};

use crate::{
    clock::now_ms,
    console::Console,
    role::{Right, Role},
    sessions::OperatorSession,
    signin::{Origin, SignInError},
    token::Token,
};

const AUDIT_PAGE: u32 = 100;
const MAX_AUDIT_PAGE: u32 = 1_000;

pub(crate) struct GmService {
    console: Arc<Console>,
}

impl GmService {
    pub(crate) fn new(console: Arc<Console>) -> Self {
        Self { console }
    }

    pub(crate) fn into_server(self) -> gm_server::GmServer<Self> {
        gm_server::GmServer::new(self)
    }

    async fn session<T>(&self, request: &Request<T>) -> Result<OperatorSession, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer ")).and_then(Token::parse);
        let token = token.ok_or_else(|| Status::unauthenticated("sign in first"))?;
        let session = self.console.sessions.find(token, true, now_ms()).await.map_err(internal)?;
        session.ok_or_else(|| Status::unauthenticated("the session is over; sign in again"))
    }
}

impl GmService {
    fn signed_in(&self, token: &Token, operator: String, role: Role) -> gm::SignInReply {
        let sessions = &self.console.sessions;
        gm::SignInReply {
            token: token.expose().to_owned(),
            role: role.to_string(),
            expires_in_s: sessions.lifetime_s(),
            operator,
            idle_s: sessions.idle_s(),
        }
    }
}

fn origin<T>(request: &Request<T>) -> Origin {
    let address = request.remote_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let interface = Peer::of(request).map_or("grpc".into(), |peer| format!("grpc {}", peer.name).into());
    Origin { interface, address }
}

fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "the operators' store fails");
    Status::internal("the operators' store fails")
}

impl From<SignInError> for Status {
    fn from(error: SignInError) -> Self {
        let code = match &error {
            SignInError::WrongCredentials | SignInError::LinkUsed => Code::Unauthenticated,
            SignInError::Throttled(_) => Code::ResourceExhausted,
            SignInError::Password(_) => Code::InvalidArgument,
            SignInError::Session(_) | SignInError::Store(_) => return internal(error),
        };
        Status::new(code, error.to_string())
    }
}

#[tonic::async_trait]
impl gm_server::Gm for GmService {
    async fn sign_in(
        &self,
        request: Request<gm::SignInRequest>,
    ) -> Result<Response<gm::SignInReply>, Status> {
        let from = origin(&request);
        let gm::SignInRequest { operator, password } = request.into_inner();
        let (token, role) = self.console.sign_in(&operator, Secret::new(password), from).await?;
        Ok(Response::new(self.signed_in(&token, operator, role)))
    }

    async fn sign_out(
        &self,
        request: Request<gm::SignOutRequest>,
    ) -> Result<Response<gm::SignOutReply>, Status> {
        let session = self.session(&request).await?;
        self.console.sessions.close(&session).await.map_err(internal)?;
        Ok(Response::new(gm::SignOutReply {}))
    }

    async fn execute(&self, request: Request<gm::Command>) -> Result<Response<gm::CommandReply>, Status> {
        let session = self.session(&request).await?;
        let from = origin(&request);
        let done = self.console.execute(&session, request.into_inner(), from).await;
        let outcome = done.map_err(|refused| Status::from(refused.error))?.outcome;
        Ok(Response::new(gm::CommandReply { text: outcome.text, json: outcome.json.to_string() }))
    }

    async fn audit(&self, request: Request<gm::AuditRequest>) -> Result<Response<gm::AuditReply>, Status> {
        let session = self.session(&request).await?;
        if !session.role.may(Right::SeeAudit) {
            return Err(Status::permission_denied(format!(
                "this needs the role {}",
                Right::SeeAudit.minimum_role()
            )));
        }
        let gm::AuditRequest { before_id, limit } = request.into_inner();
        let limit = if limit == 0 { AUDIT_PAGE } else { limit.min(MAX_AUDIT_PAGE) };
        let page = audit::page(&self.console.database, before_id, "", limit).await.map_err(internal)?;
        Ok(Response::new(gm::AuditReply { entries: page.into_iter().map(entry).collect() }))
    }

    async fn one_time_link(
        &self,
        request: Request<gm::OneTimeLinkRequest>,
    ) -> Result<Response<gm::OneTimeLinkReply>, Status> {
        if Peer::of(&request)?.kind != DaemonKind::Cli {
            return Err(Status::permission_denied(
                "only the command line on this machine makes one-time links",
            ));
        }
        let url = self.console.admin_link(&origin(&request)).await?;
        Ok(Response::new(gm::OneTimeLinkReply { url }))
    }

    async fn use_link(
        &self,
        request: Request<gm::UseLinkRequest>,
    ) -> Result<Response<gm::SignInReply>, Status> {
        let from = origin(&request);
        let gm::UseLinkRequest { link, password } = request.into_inner();
        let token = link.rsplit('/').next().unwrap_or_default();
        let password = Secret::new(password);
        let (token, operator, role) = self.console.set_first_password(token, password, from).await?;
        Ok(Response::new(self.signed_in(&token, operator, role)))
    }
}

fn entry(entry: audit::Entry) -> gm::AuditEntry {
    gm::AuditEntry {
        id: entry.id,
        at_ms: entry.invocation.at_ms,
        operator: entry.invocation.operator,
        command: entry.invocation.command,
        reason: entry.invocation.reason,
        result: entry.result,
        outcome: entry.outcome,
        origin: entry.invocation.origin,
    }
}

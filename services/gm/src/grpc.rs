//! The console's gRPC interface for programs and the command line. Calls carry the token of a session, except those
//! that open one: SignIn, OneTimeLink and UseLink.

use std::sync::Arc;

use shardkeep_cluster::{Peer, caller_name};
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::gm::{self, gm_server};
use shardkeep_store::audit::Entry;
use shardkeep_types::{DaemonKind, Secret};
use tonic::{Code, Request, Response, Status};

use crate::{
    console::Console,
    origin::Origin,
    role::Right,
    sessions::OperatorSession,
    sign_in::{SignInError, SignedIn},
    token::Token,
};

/// Entries in one answer to Audit: the default and the maximum, which fits one message.
const AUDIT_PAGE: u32 = 100;
const MAX_AUDIT_PAGE: u32 = 500;

pub(crate) struct GmService {
    console: Arc<Console>,
}

impl GmService {
    pub(crate) fn server(console: Arc<Console>) -> gm_server::GmServer<Self> {
        gm_server::GmServer::new(Self { console })
    }

    async fn session<T>(&self, request: &Request<T>) -> Result<OperatorSession, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer ")).and_then(Token::parse);
        let token = token.ok_or_else(|| Status::unauthenticated("not signed in; sign in first"))?;
        let session = self.console.sessions().find(token, true, unix_millis()).await.map_err(internal)?;
        session.ok_or_else(|| Status::unauthenticated("the session has ended; sign in again"))
    }

    fn sign_in_reply(&self, signed_in: SignedIn) -> gm::SignInReply {
        let sessions = self.console.sessions();
        gm::SignInReply {
            token: signed_in.token.expose().to_owned(),
            role: signed_in.role.to_string(),
            expires_in_s: sessions.lifetime_s(),
            operator: signed_in.operator,
            idle_s: sessions.idle_s(),
        }
    }
}

fn origin<T>(request: &Request<T>) -> Origin {
    let address = request.remote_addr().map(|address| address.ip());
    Origin::grpc(caller_name(request).ok().as_deref(), address)
}

fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "the operators' store failed");
    Status::internal("the operators' store failed; the log of gm has the cause")
}

impl From<SignInError> for Status {
    fn from(error: SignInError) -> Self {
        let code = match &error {
            SignInError::WrongCredentials | SignInError::WrongCurrentPassword | SignInError::LinkUsed => {
                Code::Unauthenticated
            }
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
        let signed_in = self.console.sign_in().by_password(&operator, Secret::new(password), &from).await?;
        Ok(Response::new(self.sign_in_reply(signed_in)))
    }

    async fn sign_out(
        &self,
        request: Request<gm::SignOutRequest>,
    ) -> Result<Response<gm::SignOutReply>, Status> {
        let session = self.session(&request).await?;
        self.console.sessions().close(&session).await.map_err(internal)?;
        Ok(Response::new(gm::SignOutReply {}))
    }

    async fn execute(&self, request: Request<gm::Command>) -> Result<Response<gm::CommandReply>, Status> {
        let session = self.session(&request).await?;
        let from = origin(&request);
        let executed = self.console.execute(&session, request.into_inner(), &from).await;
        let outcome = executed.map_err(|failed| Status::from(failed.error))?.outcome;
        let (text, json) = (outcome.text().to_owned(), outcome.json().to_string());
        Ok(Response::new(gm::CommandReply { text, json }))
    }

    async fn audit(&self, request: Request<gm::AuditRequest>) -> Result<Response<gm::AuditReply>, Status> {
        let session = self.session(&request).await?;
        if !session.role().may(Right::SeeAudit) {
            let minimum_role = Right::SeeAudit.minimum_role();
            return Err(Status::permission_denied(format!("this needs the role {minimum_role}")));
        }
        let gm::AuditRequest { before_id, limit } = request.into_inner();
        let limit = if limit == 0 { AUDIT_PAGE } else { limit.min(MAX_AUDIT_PAGE) };
        let page = self.console.audit().page(before_id, "", limit).await.map_err(internal)?;
        Ok(Response::new(gm::AuditReply { entries: page.into_iter().map(audit_entry).collect() }))
    }

    async fn one_time_link(
        &self,
        request: Request<gm::OneTimeLinkRequest>,
    ) -> Result<Response<gm::OneTimeLinkReply>, Status> {
        if Peer::of(&request)?.kind != DaemonKind::Cli {
            return Err(Status::permission_denied("only a certificate of kind cli can make one-time links"));
        }
        let url = self.console.sign_in().admin_link(&origin(&request)).await?;
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
        let signed_in = self.console.sign_in().by_link_with_password(token, password, &from).await?;
        Ok(Response::new(self.sign_in_reply(signed_in)))
    }
}

fn audit_entry(entry: Entry) -> gm::AuditEntry {
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

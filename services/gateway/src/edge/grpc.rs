//! The gRPC service of a gateway. Login admits and voids tickets, other gateways ask for sessions, operators list, kick and
//! announce.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_cluster::Peer;
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::{
    batched_call::{check_request_count, refusal},
    gateway::{
        Admission, AdmitReply, AdmitRequest, Admitted, AnnounceReply, AnnounceRequest, KickReply,
        KickRequest, ListCostsReply, ListCostsRequest, ListSessionsReply, ListSessionsRequest,
        MoveSessionReply, MoveSessionRequest, RevokeAccountReply, RevokeAccountRequest, RevokeTicketReply,
        RevokeTicketRequest, SessionInfo, announce_request::To, gateway_server::Gateway,
        kick_request::Selector,
    },
    session_id,
};
use shardkeep_types::{AccountId, DaemonKind, Epoch, Generation, TicketId, WorldId};
use shardkeep_wire::{Message, opcode, payload::Announcement};
use tonic::{Request, Response, Status};

use super::{moves, revocations::client_error_code};
use crate::{
    app::App,
    domain::{
        costs::COSTS,
        session::{Ending, Session},
        tickets::{AdmitError, Ticket, Tickets},
    },
    metrics::HOT,
};

/// Longest life of a ticket, whatever login asks.
const MAX_TICKET_LIFETIME: Duration = Duration::from_secs(120);
/// Longest announcement, in bytes.
const ANNOUNCEMENT: usize = 1_024;
/// Sessions in one page. A session has less than 200 bytes, so a page fits a message.
const SESSIONS_PAGE: usize = 10_000;

pub(crate) struct Service {
    app: Arc<App>,
}

impl Service {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Admits a ticket.
    fn admit_one(&self, tickets: &mut Tickets, admission: Admission, now: Instant) -> Result<(), Status> {
        let key = <[u8; 32]>::try_from(admission.ticket_key)
            .map_err(|_| Status::invalid_argument("field `ticket_key`: expected 32 bytes"))?;
        let ticket = Ticket {
            key: key.into(),
            account: AccountId(admission.account),
            account_name: admission.account_name,
            generation: Generation(admission.generation),
            world: WorldId(admission.world),
            expires: now + Duration::from_millis(admission.lifetime_ms.into()).min(MAX_TICKET_LIFETIME),
        };
        if self.app.sessions().len() + tickets.len() >= self.app.config().capacity {
            return Err(Status::resource_exhausted("the gateway is full"));
        }
        Ok(tickets.admit(ticket_id(&admission.ticket_id)?, ticket, now)?)
    }

    fn end_all(&self, sessions: &[Arc<Session>], code: u32, detail: &str) -> u32 {
        for session in sessions {
            self.app.end(session, Ending::new(client_error_code(code), detail));
        }
        count(sessions)
    }
}

fn info(session: &Session, now_ms: u64) -> SessionInfo {
    let state = session.lock();
    SessionInfo {
        session: session.id().as_bytes().to_vec(),
        account: session.account().0,
        account_name: session.account_name().to_owned(),
        world: session.world().0,
        address: state.address().to_string(),
        link_dead: !state.is_connected(),
        age_ms: now_ms.saturating_sub(session.started_ms()),
        generation: session.generation().0,
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

fn ticket_id(bytes: &[u8]) -> Result<TicketId, Status> {
    TicketId::try_from(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn missing(field: &'static str) -> Status {
    Status::invalid_argument(format!("field `{field}`: missing"))
}

#[tonic::async_trait]
impl Gateway for Service {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        if self.app.draining().is_cancelled() {
            return Err(Status::unavailable("the gateway is leaving"));
        }
        let AdmitRequest { admissions } = request.into_inner();
        check_request_count("admissions", &admissions)?;
        let now = Instant::now();
        let mut tickets = self.app.tickets();
        let admitted =
            admissions.into_iter().map(|admission| match self.admit_one(&mut tickets, admission, now) {
                Ok(()) => Admitted::default(),
                Err(refused) => {
                    let (code, detail) = refusal(&refused);
                    Admitted { code, detail }
                }
            });
        let admitted = admitted.collect();
        HOT.tickets.set(tickets.len() as f64);
        Ok(Response::new(AdmitReply { admitted }))
    }

    async fn revoke_ticket(
        &self,
        request: Request<RevokeTicketRequest>,
    ) -> Result<Response<RevokeTicketReply>, Status> {
        let id = ticket_id(&request.into_inner().ticket_id)?;
        self.app.tickets().revoke(id);
        Ok(Response::new(RevokeTicketReply {}))
    }

    async fn revoke_account(
        &self,
        request: Request<RevokeAccountRequest>,
    ) -> Result<Response<RevokeAccountReply>, Status> {
        let RevokeAccountRequest { account, below_generation, code, detail } = request.into_inner();
        let ended = self.app.revoke(
            AccountId(account),
            Generation(below_generation),
            &Ending::new(client_error_code(code), detail),
        );
        Ok(Response::new(RevokeAccountReply { ended }))
    }

    async fn move_session(
        &self,
        request: Request<MoveSessionRequest>,
    ) -> Result<Response<MoveSessionReply>, Status> {
        if Peer::of(&request)?.kind != DaemonKind::Gateway {
            return Err(Status::permission_denied("only gateways move sessions"));
        }
        let request = request.into_inner();
        let id = session_id(&request.session)?;
        self.app.incoming_sessions().wait_until_arrived(id).await;
        let session = self.app.sessions().get(id);
        let session = session.ok_or_else(|| Status::not_found("no such session"))?;
        let (app, epoch) = (self.app.clone(), Epoch(request.session_epoch));
        // A task, so that a hand-over that has begun is finished even if its caller gives up.
        let handing = async move { moves::hand_over(&app, &session, epoch).await };
        let handed = self.app.daemon().spawn_work("session hand-over", handing);
        let reply = handed.await.map_err(|_| Status::internal("the session was not handed over"))??;
        Ok(Response::new(reply))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsReply>, Status> {
        let ListSessionsRequest { account, sessions, after } = request.into_inner();
        check_request_count("sessions", &sessions)?;
        let (table, mut reply) = (self.app.sessions(), ListSessionsReply::default());
        let found = if let Some(account) = account.map(AccountId) {
            // Tickets first: a ticket that becomes a session meanwhile is listed twice, and never missed.
            let tickets = self.app.tickets().of_account(account, Instant::now());
            reply.tickets = tickets.into_iter().map(|generation| generation.0).collect();
            table.of_account(account)
        } else if sessions.is_empty() {
            let after = (!after.is_empty()).then(|| session_id(&after)).transpose()?;
            let (page, next) = table.page(after, SESSIONS_PAGE);
            reply.next = next.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
            page
        } else {
            let ids = sessions.iter().map(|id| session_id(id)).collect::<Result<Vec<_>, _>>()?;
            ids.into_iter().filter_map(|id| table.get(id)).collect()
        };
        let now = unix_millis();
        reply.sessions = found.iter().map(|session| info(session, now)).collect();
        Ok(Response::new(reply))
    }

    async fn list_costs(&self, _: Request<ListCostsRequest>) -> Result<Response<ListCostsReply>, Status> {
        Ok(Response::new(ListCostsReply { costs: COSTS.list() }))
    }

    async fn kick(&self, request: Request<KickRequest>) -> Result<Response<KickReply>, Status> {
        let KickRequest { selector, code, detail } = request.into_inner();
        let sessions = match selector.ok_or_else(|| missing("selector"))? {
            Selector::Session(id) => Vec::from_iter(self.app.sessions().get(session_id(&id)?)),
            Selector::Account(account) => self.app.sessions().of_account(AccountId(account)),
        };
        Ok(Response::new(KickReply { ended: self.end_all(&sessions, code, &detail) }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let AnnounceRequest { text, to } = request.into_inner();
        if text.is_empty() || text.len() > ANNOUNCEMENT {
            return Err(Status::invalid_argument(format!("field `text`: must be 1 to {ANNOUNCEMENT} bytes")));
        }
        let table = self.app.sessions();
        let sessions: Vec<_> = match to.ok_or_else(|| missing("to"))? {
            To::Session(id) => table.get(session_id(&id)?).into_iter().collect(),
            To::Account(account) => table.of_account(AccountId(account)),
            To::World(world) => {
                table.all().into_iter().filter(|session| session.world().0 == world).collect()
            }
            To::Everyone(_) => table.all(),
        };
        let message = Message::event(opcode::ANNOUNCEMENT, &Announcement { text }).to_bytes();
        for session in &sessions {
            session.lock().reliable(message.clone());
        }
        let reached = count(&sessions);
        self.app.wake(sessions.into_iter().filter(|session| session.waker().set_pending()).collect());
        Ok(Response::new(AnnounceReply { reached }))
    }
}

/// Login tells these apart: it looks for another gateway, or ends the connection.
impl From<AdmitError> for Status {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::Full => Self::resource_exhausted(error.to_string()),
            AdmitError::Outdated => Self::failed_precondition(error.to_string()),
        }
    }
}

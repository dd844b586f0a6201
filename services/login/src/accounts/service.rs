//! The gRPC service by which operators manage accounts. Passwords never arrive here: the caller sends a verifier. A command
//! that ends sessions is pushed to the gateways before its reply.

use std::{borrow::Borrow, fmt::Write as _, sync::Arc, time::Duration};

use shardkeep_auth::AccountName;
use shardkeep_cluster::caller_name;
use shardkeep_rpc::accounts::{
    Account, AccountSession, ActiveIn, BanReply, BanRequest, Closure, Closures, CreateReply, CreateRequest,
    InviteReply, InviteRequest, ListClosuresRequest, ListReply, ListRequest, LogOutReply, LogOutRequest,
    RegionReply, RegionRequest, SessionsReply, SessionsRequest, SetMaintenanceReply, SetMaintenanceRequest,
    SetSecondFactorReply, SetSecondFactorRequest, SetStaffReply, SetStaffRequest, SetVerifierReply,
    SetVerifierRequest, ShowRequest, UnbanReply, UnbanRequest,
    accounts_server::{Accounts, AccountsServer},
    show_request::Selector,
};
use shardkeep_store::{
    self as store, Database,
    accounts::{self as table, AccountGeneration, Ban, Proof, RevocationCause, closed_worlds, invitations},
};
use shardkeep_types::{AccountId, Secret, WorldId};
use tonic::{Request, Response, Status};

use crate::{
    accounts::{
        authority::{AccountChange, Authority},
        causes,
        registration::{Registrations, token_hash},
        second_factor::SecondFactors,
        session_ender::SessionEnder,
        verifiers::{NewVerifier, Requester, prepare_proof},
    },
    central::{
        accounts::CentralAccounts,
        error::CentralError,
        overview::{AccountOverview, Selector as CentralSelector},
    },
    error::LoginError,
    logon::pool::Pool,
    metrics, random,
    worlds::gateways::Gateways,
};

/// Accounts in one reply to `List`: the default, and the maximum.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;
/// Bytes of a ban's reason, which the player reads.
const MAX_REASON: usize = 256;
/// Most uses of an invitation.
const MOST_USES: u32 = 1_000_000;
/// Longest time that players may stay in a closed world.
const LONGEST_STAY: Duration = Duration::from_hours(24);
/// Longest lifetime of an invitation.
const LONGEST_INVITATION: Duration = Duration::from_secs(366 * 24 * 3_600);

/// For commands that act in one region only.
const REGION_ONLY_HINT: &str = "sessions and the staff flag belong to one region";

pub(crate) struct AccountsService {
    database: Database,
    access: OperatorAccess,
}

/// The parts of login that operators' commands use.
pub(crate) struct OperatorAccess {
    pub(crate) authority: Arc<Authority>,
    pub(crate) factors: Arc<SecondFactors>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) registrations: Arc<Registrations>,
    pub(crate) central: Option<Arc<CentralAccounts>>,
    pub(crate) pool: Pool,
    pub(crate) ender: SessionEnder,
}

impl AccountsService {
    pub(crate) fn server(database: Database, access: OperatorAccess) -> AccountsServer<Self> {
        AccountsServer::new(Self { database, access })
    }

    async fn account(&self, name: &AccountName) -> Result<table::Account, Status> {
        let found = table::by_name(&self.database, name.as_str()).await.map_err(store_status)?;
        found.ok_or_else(|| self.not_active_here(name, REGION_ONLY_HINT))
    }

    /// Refuses a verifier with which no client could log in.
    async fn proof(
        &self,
        name: &AccountName,
        group: u32,
        salt: Vec<u8>,
        verifier: Vec<u8>,
    ) -> Result<Proof, Status> {
        let new_verifier = NewVerifier { name: name.clone(), group, salt, verifier };
        prepare_proof(&self.access.pool, Requester::Operator, new_verifier).await.map_err(|error| match error
        {
            LoginError::PoolBusy { .. } => Status::unavailable("too many logins are waiting; try again"),
            LoginError::Malformed(_) | LoginError::NoneSupported(_) => {
                Status::invalid_argument(error.to_string())
            }
            error => internal(error),
        })
    }

    /// The error for an account that is not in this region's store.
    fn not_active_here(&self, name: &AccountName, hint: &str) -> Status {
        match &self.access.central {
            None => unknown_account(name),
            Some(central) => Status::not_found(format!(
                "there is no account {name} active in this region ({}); {hint}",
                central.region()
            )),
        }
    }

    /// Ends the sessions of an account that may be active here, and returns how many ended.
    async fn end_sessions(&self, local: Option<AccountGeneration>, cause: &RevocationCause) -> u32 {
        match local {
            Some(raised) => self.access.ender.end_sessions(raised, cause).await,
            None => 0,
        }
    }
}

#[tonic::async_trait]
impl Accounts for AccountsService {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateReply>, Status> {
        let (operator, CreateRequest { name, group, salt, verifier }) = begin_command("create", request)?;
        let name = account_name(&name)?;
        let proof = self.proof(&name, group, salt, verifier).await?;
        let id = self.access.authority.create(&name, &proof).await.map_err(login_status)?;
        let id = id.ok_or_else(|| Status::already_exists(format!("there is an account {name}")))?;
        shardkeep_daemon::event!("account_created", account = id.0, name = name.as_str(), operator);
        Ok(Response::new(CreateReply { account: id.0 }))
    }

    async fn set_verifier(
        &self,
        request: Request<SetVerifierRequest>,
    ) -> Result<Response<SetVerifierReply>, Status> {
        let (operator, SetVerifierRequest { name, group, salt, verifier }) =
            begin_command("set_verifier", request)?;
        let name = account_name(&name)?;
        let proof = self.proof(&name, group, salt, verifier).await?;
        let cause = causes::password_changed();
        let change = self.access.authority.set_proof(&name, &proof, &cause).await.map_err(login_status)?;
        let change = change.ok_or_else(|| unknown_account(&name))?;
        shardkeep_daemon::event!("password_changed", account = change.id.0, operator);
        self.end_sessions(change.local, &cause).await;
        Ok(Response::new(SetVerifierReply {}))
    }

    async fn ban(&self, request: Request<BanRequest>) -> Result<Response<BanReply>, Status> {
        let (operator, BanRequest { name, until_ms, reason, everywhere }) = begin_command("ban", request)?;
        let name = account_name(&name)?;
        if until_ms <= random::unix_millis() {
            return Err(Status::invalid_argument("the end of the ban (until_ms) is in the past"));
        }
        let ban = Ban { until_ms, reason: checked_reason(&reason)? };
        let cause = causes::banned(&ban);
        let change = if everywhere {
            let change = self.access.authority.ban_everywhere(&name, &ban).await.map_err(login_status)?;
            change.ok_or_else(|| unknown_account(&name))?
        } else {
            let raised =
                table::ban(&self.database, name.as_str(), &ban, &cause).await.map_err(store_status)?;
            let raised =
                raised.ok_or_else(|| self.not_active_here(&name, "`--everywhere` bans it in all regions"))?;
            AccountChange { id: raised.id, local: Some(raised) }
        };
        let id = change.id.0;
        shardkeep_daemon::event!("banned", account = id, until_ms, reason = ban.reason, everywhere, operator);
        let sessions_ended = self.end_sessions(change.local, &cause).await;
        Ok(Response::new(BanReply { sessions_ended }))
    }

    async fn unban(&self, request: Request<UnbanRequest>) -> Result<Response<UnbanReply>, Status> {
        let (operator, UnbanRequest { name, everywhere, reason }) = begin_command("unban", request)?;
        let (name, reason) = (account_name(&name)?, checked_reason(&reason)?);
        if everywhere {
            let change = self.access.authority.ban_everywhere(&name, &Ban::default()).await;
            let change = change.map_err(login_status)?;
            change.ok_or_else(|| unknown_account(&name))?;
        } else if !table::unban(&self.database, name.as_str()).await.map_err(store_status)? {
            return Err(self.not_active_here(&name, "`--everywhere` ends a ban in all regions"));
        }
        shardkeep_daemon::event!("unbanned", name = name.as_str(), reason, everywhere, operator);
        Ok(Response::new(UnbanReply {}))
    }

    async fn show(&self, request: Request<ShowRequest>) -> Result<Response<Account>, Status> {
        let (_, ShowRequest { selector }) = begin_command("show", request)?;
        let selector =
            match selector.ok_or_else(|| Status::invalid_argument("the request needs a name or an id"))? {
                Selector::Name(name) => CentralSelector::Name(account_name(&name)?.to_string()),
                Selector::Id(id) => CentralSelector::Id(AccountId(id)),
            };
        let database = &self.database;
        let found = match &selector {
            CentralSelector::Name(name) => table::by_name(database, name).await,
            CentralSelector::Id(id) => table::by_id(database, *id).await,
        };
        let local = found.map_err(store_status)?.map(account_to_proto);
        let Some(central) = &self.access.central else {
            return local.map(Response::new).ok_or_else(no_such_account);
        };
        match (central.show(selector).await, local) {
            (Ok(overview), local) => {
                let account = local.unwrap_or_else(|| account_from_overview(&overview));
                let active_in = overview.active_in.into_iter();
                let active_in = active_in.map(|it| ActiveIn { region: it.region, since_ms: it.since_ms });
                Ok(Response::new(Account { active_in: active_in.collect(), ..account }))
            }
            (Err(error), Some(local)) => {
                let central_unavailable = error != CentralError::Unknown;
                Ok(Response::new(Account { central_unavailable, ..local }))
            }
            (Err(CentralError::Unknown), None) => Err(no_such_account()),
            (Err(error), None) => Err(login_status(error.into())),
        }
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let (_, ListRequest { prefix, after, limit }) = begin_command("list", request)?;
        let (prefix, after) = (prefix.trim().to_ascii_lowercase(), after.trim().to_ascii_lowercase());
        let limit = if limit == 0 { PAGE } else { limit.min(MAX_PAGE) };
        let accounts = table::list(&self.database, &prefix, &after, limit).await.map_err(store_status)?;
        Ok(Response::new(ListReply { accounts: accounts.into_iter().map(account_to_proto).collect() }))
    }

    async fn log_out_everywhere(
        &self,
        request: Request<LogOutRequest>,
    ) -> Result<Response<LogOutReply>, Status> {
        let (operator, LogOutRequest { name }) = begin_command("log_out_everywhere", request)?;
        let name = account_name(&name)?;
        let cause = causes::logged_out_everywhere();
        let raised =
            table::raise_generation(&self.database, name.as_str(), &cause).await.map_err(store_status)?;
        let raised = raised.ok_or_else(|| self.not_active_here(&name, REGION_ONLY_HINT))?;
        shardkeep_daemon::event!("logged_out_everywhere", account = raised.id.0, operator);
        let sessions_ended = self.access.ender.end_sessions(raised, &cause).await;
        Ok(Response::new(LogOutReply { sessions_ended }))
    }

    async fn sessions(&self, request: Request<SessionsRequest>) -> Result<Response<SessionsReply>, Status> {
        let (_, SessionsRequest { name }) = begin_command("sessions", request)?;
        let account = self.account(&account_name(&name)?).await?;
        let found = self.access.gateways.sessions_of(account.id).await;
        let mut sessions = Vec::new();
        for (gateway, reply) in found.answers {
            sessions.extend(reply.sessions.into_iter().map(|session| AccountSession {
                gateway: gateway.clone(),
                session: session.session,
                world: session.world,
                address: session.address,
                link_dead: session.link_dead,
                age_ms: session.age_ms,
            }));
        }
        Ok(Response::new(SessionsReply { sessions, unreachable_gateways: found.unreachable }))
    }

    async fn set_staff(&self, request: Request<SetStaffRequest>) -> Result<Response<SetStaffReply>, Status> {
        let (operator, SetStaffRequest { name, staff }) = begin_command("set_staff", request)?;
        let name = account_name(&name)?;
        if !table::set_staff(&self.database, name.as_str(), staff).await.map_err(store_status)? {
            return Err(self.not_active_here(&name, REGION_ONLY_HINT));
        }
        shardkeep_daemon::event!("staff_changed", name = name.as_str(), staff, operator);
        Ok(Response::new(SetStaffReply {}))
    }

    async fn set_second_factor(
        &self,
        request: Request<SetSecondFactorRequest>,
    ) -> Result<Response<SetSecondFactorReply>, Status> {
        let (operator, SetSecondFactorRequest { name, on }) = begin_command("set_second_factor", request)?;
        let name = account_name(&name)?;
        let cause = causes::factor_added();
        if !on {
            let change = self.access.authority.set_factor(&name, None, &cause).await.map_err(login_status)?;
            let id = change.ok_or_else(|| unknown_account(&name))?.id;
            shardkeep_daemon::event!("second_factor_removed", account = id.0, operator);
            return Ok(Response::new(SetSecondFactorReply::default()));
        }
        let enrolment = self.access.factors.enrol(name.as_str()).map_err(internal)?;
        let secret = Secret::new(enrolment.secret().to_vec());
        let change =
            self.access.authority.set_factor(&name, Some(&secret), &cause).await.map_err(login_status)?;
        let change = change.ok_or_else(|| unknown_account(&name))?;
        shardkeep_daemon::event!("second_factor_added", account = change.id.0, operator);
        self.end_sessions(change.local, &cause).await;
        Ok(Response::new(SetSecondFactorReply { uri: enrolment.uri().to_owned() }))
    }

    async fn set_maintenance(
        &self,
        request: Request<SetMaintenanceRequest>,
    ) -> Result<Response<SetMaintenanceReply>, Status> {
        let (operator, request) = begin_command("set_maintenance", request)?;
        let SetMaintenanceRequest { world, closed, note, grace_ms } = request;
        let stay = Duration::from_millis(grace_ms);
        if world == 0 {
            return Err(Status::invalid_argument("the world must be 1 or higher"));
        }
        if stay > LONGEST_STAY {
            return Err(Status::invalid_argument("players may stay for at most a day"));
        }
        let database = &self.database;
        let changed = if closed {
            closed_worlds::close(database, WorldId(world), &checked_reason(&note)?, stay).await
        } else {
            closed_worlds::open(database, WorldId(world)).await.map(drop)
        };
        changed.map_err(store_status)?;
        shardkeep_daemon::event!("maintenance", world, closed, operator);
        Ok(Response::new(SetMaintenanceReply {}))
    }

    async fn list_closures(
        &self,
        request: Request<ListClosuresRequest>,
    ) -> Result<Response<Closures>, Status> {
        begin_command("list_closures", request)?;
        let worlds = closed_worlds::list(&self.database).await.map_err(store_status)?;
        let worlds = worlds.into_iter().map(|closed| Closure {
            world: closed.world.0,
            note: closed.note,
            ends_ms: closed.ends_ms,
            left_ms: u64::try_from(closed.left.as_millis()).unwrap_or(u64::MAX),
        });
        Ok(Response::new(Closures { worlds: worlds.collect(), staff: Vec::new() }))
    }

    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteReply>, Status> {
        let (operator, InviteRequest { uses, lifetime_ms }) = begin_command("invite", request)?;
        let lasts = Duration::from_millis(lifetime_ms);
        if !(1..=MOST_USES).contains(&uses) || lasts.is_zero() || lasts > LONGEST_INVITATION {
            return Err(Status::invalid_argument(
                "an invitation must have 1 to 1,000,000 uses and last at most a year",
            ));
        }
        let random: [u8; 16] = random::bytes().map_err(internal)?;
        let token = random.iter().fold(String::new(), |mut token, byte| {
            // Writing to a String cannot fail.
            let _ = write!(token, "{byte:02x}");
            token
        });
        let database = &self.database;
        invitations::invite(database, &token_hash(&token), uses, lasts).await.map_err(store_status)?;
        shardkeep_daemon::event!("invited", uses, operator);
        Ok(Response::new(InviteReply { token }))
    }

    async fn region(&self, request: Request<RegionRequest>) -> Result<Response<RegionReply>, Status> {
        begin_command("region", request)?;
        let registration = self.access.registrations.mode().as_str().to_owned();
        let region =
            self.access.central.as_ref().map(|central| central.region().to_owned()).unwrap_or_default();
        let public_key = self.access.registrations.region_key();
        Ok(Response::new(RegionReply { public_key, registration, region }))
    }
}

/// Counts the command, and returns the caller's name for the audit log.
fn begin_command<T>(command: &'static str, request: Request<T>) -> Result<(String, T), Status> {
    metrics::command(command);
    Ok((caller_name(&request)?, request.into_inner()))
}

fn account_name(typed: &str) -> Result<AccountName, Status> {
    AccountName::normalise(typed).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Checks a reason. It is mandatory, because players read it and operators look it up later.
fn checked_reason(text: &str) -> Result<String, Status> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_REASON || !shardkeep_names::is_plain_line(text) {
        return Err(Status::invalid_argument(
            "the reason must have 1 to 256 bytes, in one line and without bidirectional controls",
        ));
    }
    Ok(text.to_owned())
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: LoginError) -> Status {
    tracing::error!(%error, "an operator's command failed");
    Status::internal("login cannot do this now; its log has the cause")
}

/// The error for an operator, which says what is missing.
fn login_status(error: LoginError) -> Status {
    match error {
        LoginError::Store(error) => store_status(error),
        LoginError::Central(CentralError::Unavailable(reason)) => Status::unavailable(format!(
            "the central account store does not answer ({reason}); if the change has reached it, repeating the command \
             changes nothing more"
        )),
        LoginError::Central(error) => Status::from(error),
        LoginError::Refused(reason) => Status::failed_precondition(reason),
        error => internal(error),
    }
}

fn no_such_account() -> Status {
    Status::not_found("there is no such account")
}

fn unknown_account(name: &AccountName) -> Status {
    Status::not_found(format!("there is no account {name}"))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn store_status(error: impl Borrow<store::Error>) -> Status {
    let error = error.borrow();
    tracing::error!(%error, "the account store failed");
    if error.retryable() {
        Status::unavailable("the account store does not answer; try again")
    } else {
        Status::internal("the account store failed; the log of login has the cause")
    }
}

fn account_to_proto(account: table::Account) -> Account {
    Account {
        id: account.id.0,
        name: account.name,
        generation: account.generation.0,
        created_ms: account.created_ms,
        last_login_ms: account.last_login_ms,
        banned_until_ms: account.ban.until_ms,
        ban_reason: account.ban.reason,
        staff: account.staff,
        second_factor: account.second_factor,
        banned_everywhere_until_ms: account.ban_everywhere.until_ms,
        ban_everywhere_reason: account.ban_everywhere.reason,
        active_in: Vec::new(),
        central_unavailable: false,
    }
}

/// An account that is not active in this region.
fn account_from_overview(account: &AccountOverview) -> Account {
    Account {
        id: account.id.0,
        name: account.name.clone(),
        created_ms: account.created_ms,
        second_factor: account.second_factor,
        banned_everywhere_until_ms: account.ban.until_ms,
        ban_everywhere_reason: account.ban.reason.clone(),
        ..Account::default()
    }
}

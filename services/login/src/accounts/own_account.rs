//! Requests of a logged-in player about the account: list and end its sessions, change the password, and manage the
//! second factor. The connection that asks stays open.

use std::sync::Arc;

use shardkeep_rpc::gateway::SessionInfo;
use shardkeep_store::{
    Database,
    accounts::{self, AccountGeneration, second_factor::FactorUpdate},
};
use shardkeep_wire::{
    Message, opcode,
    payload::{
        AccountSession, ChangePassword, ConfirmSecondFactor, LoggedOutEverywhere, PasswordChanged,
        RemoveSecondFactor, SecondFactorBegun, SecondFactorConfirmed, SecondFactorRemoved, SessionList,
    },
};

use crate::{
    accounts::{
        authority::Authority,
        causes,
        second_factor::SecondFactors,
        session::LoginSession,
        session_ender::SessionEnder,
        verifiers::{NewVerifier, Requester, prepare_proof},
    },
    error::LoginError,
    logon::pool::Pool,
    replies::{decode, reply},
    worlds::gateways::Gateways,
};

pub(crate) struct OwnAccount {
    database: Database,
    authority: Arc<Authority>,
    factors: Arc<SecondFactors>,
    gateways: Arc<Gateways>,
    pool: Pool,
    ender: SessionEnder,
}

impl OwnAccount {
    pub(crate) fn new(
        database: Database,
        authority: Arc<Authority>,
        factors: Arc<SecondFactors>,
        gateways: Arc<Gateways>,
        pool: Pool,
        ender: SessionEnder,
    ) -> Self {
        Self { database, authority, factors, gateways, pool, ender }
    }

    /// The reply to a request. [`LoginError::Displaced`]: the session is no longer the account's last one.
    pub(crate) async fn answer(
        &self,
        session: &mut LoginSession,
        message: &Message,
    ) -> Result<Message, LoginError> {
        // This check serves requests that only read; a change compares the generation in its own statement.
        if !session.is_current(&self.database).await? {
            return Err(LoginError::Displaced);
        }
        match message.opcode {
            opcode::LIST_SESSIONS => reply(message, &self.sessions(session).await),
            opcode::LOG_OUT_EVERYWHERE => reply(message, &self.log_out(session).await?),
            opcode::CHANGE_PASSWORD => {
                reply(message, &self.change_password(session, decode(message)?).await?)
            }
            opcode::BEGIN_SECOND_FACTOR => reply(message, &self.begin_factor(session).await?),
            opcode::CONFIRM_SECOND_FACTOR => {
                reply(message, &self.confirm_factor(session, decode(message)?).await?)
            }
            opcode::REMOVE_SECOND_FACTOR => {
                reply(message, &self.remove_factor(session, decode(message)?).await?)
            }
            _ => Err(LoginError::Internal("the opcode table allows a request that login does not answer")),
        }
    }

    async fn sessions(&self, session: &LoginSession) -> SessionList {
        let found = self.gateways.sessions_of(session.id()).await;
        let sessions = found.answers.into_iter().flat_map(|(_, reply)| reply.sessions);
        let to_payload = |session: SessionInfo| AccountSession {
            world_id: session.world,
            address: session.address,
            link_lost: session.link_dead,
            age_ms: session.age_ms,
        };
        SessionList { sessions: sessions.map(to_payload).collect() }
    }

    async fn log_out(&self, session: &mut LoginSession) -> Result<LoggedOutEverywhere, LoginError> {
        let cause = causes::logged_out_everywhere();
        let AccountGeneration { id, generation } = session.generation();
        let raised = accounts::raise_generation_if_current(&self.database, id, generation, &cause).await?;
        let raised = session.adopt(raised)?;
        shardkeep_daemon::event!("logged_out_everywhere", account = id.0, operator = "the player");
        Ok(LoggedOutEverywhere { sessions_ended: self.ender.end_sessions(raised, &cause).await })
    }

    async fn change_password(
        &self,
        session: &mut LoginSession,
        change: ChangePassword,
    ) -> Result<PasswordChanged, LoginError> {
        let ChangePassword { group, salt, verifier } = change;
        let new_verifier = NewVerifier { name: session.name().clone(), group, salt, verifier };
        let proof = prepare_proof(&self.pool, Requester::Owner(session.address()), new_verifier).await?;
        let cause = causes::password_changed();
        let raised = self.authority.change_proof(session.generation(), &proof, &cause).await?;
        let raised = session.adopt(raised)?;
        shardkeep_daemon::event!("password_changed", account = raised.id.0, operator = "the player");
        Ok(PasswordChanged { sessions_ended: self.ender.end_sessions(raised, &cause).await })
    }

    async fn begin_factor(&self, session: &LoginSession) -> Result<SecondFactorBegun, LoginError> {
        let enrolment = self.factors.enrol(session.name().as_str())?;
        match self.factors.begin(session.generation(), &enrolment).await? {
            FactorUpdate::Done(()) => {
                Ok(SecondFactorBegun { secret: enrolment.secret().to_vec(), uri: enrolment.uri().to_owned() })
            }
            FactorUpdate::SessionOutdated => Err(LoginError::Displaced),
            FactorUpdate::FactorMismatch => {
                Err(LoginError::Refused("a second factor is in force; remove it first"))
            }
        }
    }

    async fn confirm_factor(
        &self,
        session: &mut LoginSession,
        ConfirmSecondFactor { code }: ConfirmSecondFactor,
    ) -> Result<SecondFactorConfirmed, LoginError> {
        let cause = causes::factor_added();
        let raised = self.factors.confirm(session.generation(), &code, &cause).await?;
        let raised = session.adopt(raised)?;
        shardkeep_daemon::event!("second_factor_added", account = raised.id.0, operator = "the player");
        Ok(SecondFactorConfirmed { sessions_ended: self.ender.end_sessions(raised, &cause).await })
    }

    async fn remove_factor(
        &self,
        session: &LoginSession,
        RemoveSecondFactor { code }: RemoveSecondFactor,
    ) -> Result<SecondFactorRemoved, LoginError> {
        if self.factors.remove(session.generation(), &code).await?.is_none() {
            return Err(LoginError::Displaced);
        }
        shardkeep_daemon::event!("second_factor_removed", account = session.id().0, operator = "the player");
        Ok(SecondFactorRemoved {})
    }
}

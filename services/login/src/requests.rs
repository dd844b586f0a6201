//! What a player may ask about the own account while the world list is open: where it is logged in, to end that, a
//! new password, a second factor. The connection that asks goes on.

use shardkeep_store::accounts::{
    self, AccountGeneration,
    second_factor::{self as factors, FactorUpdate},
};
use shardkeep_wire::{
    Message, opcode,
    payload::{
        AccountSession, ChangePassword, ConfirmSecondFactor, ErrorCode, LoggedOutEverywhere, PasswordChanged,
        RemoveSecondFactor, SecondFactorBegun, SecondFactorConfirmed, SecondFactorRemoved, SessionList,
    },
};

use crate::{
    LoginError, authority,
    context::{LoginContext, cause},
    logon::{self, decode},
    second_factor::{self, Enrolment},
    select::WorldSelect,
    verifiers::{NewVerifier, Requester, prepare_proof},
};

/// What those are told who came by the password alone.
pub(crate) const FACTOR_ADDED: &str = "a second factor was added";

pub(crate) async fn answer(
    context: &LoginContext,
    select: &mut WorldSelect,
    message: &Message,
) -> Result<Message, LoginError> {
    // What changes something compares the generation itself.
    if !select.is_current(context).await? {
        return Err(select.end_superseded(context).await?);
    }
    match message.opcode {
        opcode::LIST_SESSIONS => logon::answer(message, &sessions(context, select).await),
        opcode::LOG_OUT_EVERYWHERE => logon::answer(message, &log_out(context, select).await?),
        opcode::CHANGE_PASSWORD => {
            logon::answer(message, &change_password(context, select, decode(message)?).await?)
        }
        opcode::BEGIN_SECOND_FACTOR => logon::answer(message, &begin(context, select).await?),
        opcode::CONFIRM_SECOND_FACTOR => {
            logon::answer(message, &confirm(context, select, decode(message)?).await?)
        }
        opcode::REMOVE_SECOND_FACTOR => {
            logon::answer(message, &remove_factor(context, select, decode(message)?).await?)
        }
        _ => Err(LoginError::Internal("the opcode table knows a request that nobody answers")),
    }
}

async fn sessions(context: &LoginContext, select: &WorldSelect) -> SessionList {
    let found = context.gateways.sessions_of(select.account()).await;
    let sessions = found.answers.into_iter().flat_map(|(_, reply)| reply.sessions);
    let told = |session: shardkeep_rpc::gateway::SessionInfo| AccountSession {
        world_id: session.world,
        address: session.address,
        link_lost: session.link_dead,
        age_ms: session.age_ms,
    };
    SessionList { sessions: sessions.map(told).collect() }
}

async fn log_out(
    context: &LoginContext,
    select: &mut WorldSelect,
) -> Result<LoggedOutEverywhere, LoginError> {
    let cause = cause(ErrorCode::Kicked, "logged out everywhere");
    let AccountGeneration { id, generation } = select.account_generation();
    let account_generation =
        accounts::raise_generation_if_current(&context.database, id, generation, &cause).await?;
    let account_generation = select.adopt_generation(context, account_generation).await?;
    shardkeep_daemon::event!("logged_out_everywhere", account = id.0, operator = "the player");
    Ok(LoggedOutEverywhere { sessions_ended: context.end_sessions(account_generation, &cause).await })
}

async fn change_password(
    context: &LoginContext,
    select: &mut WorldSelect,
    change: ChangePassword,
) -> Result<PasswordChanged, LoginError> {
    let ChangePassword { group, salt, verifier } = change;
    let new_verifier = NewVerifier { name: select.name().clone(), group, salt, verifier };
    let proof = prepare_proof(&context.pool, Requester::Owner(select.address()), new_verifier).await?;
    let cause = cause(ErrorCode::Kicked, "the password was changed");
    let account_generation =
        authority::change_proof(context, select.account_generation(), &proof, &cause).await?;
    let account_generation = select.adopt_generation(context, account_generation).await?;
    shardkeep_daemon::event!("password_changed", account = account_generation.id.0, operator = "the player");
    Ok(PasswordChanged { sessions_ended: context.end_sessions(account_generation, &cause).await })
}

async fn begin(context: &LoginContext, select: &mut WorldSelect) -> Result<SecondFactorBegun, LoginError> {
    let enrolment = Enrolment::new(context, select.name().as_str())?;
    let stored = enrolment.stored(context, select.account())?;
    match factors::begin(&context.database, select.account_generation(), &stored).await? {
        FactorUpdate::Done(()) => {
            Ok(SecondFactorBegun { secret: enrolment.secret.to_vec(), uri: enrolment.uri })
        }
        FactorUpdate::SessionOutdated => Err(select.end_superseded(context).await?),
        FactorUpdate::FactorMismatch => {
            Err(LoginError::Refused("a second factor is in force; remove it first"))
        }
    }
}

async fn confirm(
    context: &LoginContext,
    select: &mut WorldSelect,
    ConfirmSecondFactor { code }: ConfirmSecondFactor,
) -> Result<SecondFactorConfirmed, LoginError> {
    let cause = cause(ErrorCode::Kicked, FACTOR_ADDED);
    let account_generation =
        second_factor::confirm(context, select.account_generation(), &code, &cause).await?;
    let account_generation = select.adopt_generation(context, account_generation).await?;
    shardkeep_daemon::event!(
        "second_factor_added",
        account = account_generation.id.0,
        operator = "the player"
    );
    Ok(SecondFactorConfirmed { sessions_ended: context.end_sessions(account_generation, &cause).await })
}

async fn remove_factor(
    context: &LoginContext,
    select: &mut WorldSelect,
    RemoveSecondFactor { code }: RemoveSecondFactor,
) -> Result<SecondFactorRemoved, LoginError> {
    if second_factor::remove_factor(context, select.account_generation(), &code).await?.is_none() {
        return Err(select.end_superseded(context).await?);
    }
    shardkeep_daemon::event!("second_factor_removed", account = select.account().0, operator = "the player");
    Ok(SecondFactorRemoved {})
}

//! What a player may ask about the own account while the world list is open: where it is logged in, to end that, a
//! new password, a second factor. The connection that asks goes on.

use shardkeep_store::accounts::{
    self, Raised,
    second_factor::{self as factors, Wish},
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
    door::{Door, cause},
    logon::{self, decode},
    second_factor::{self, Enrolment},
    select::WorldSelect,
    verifiers::{Asks, Made, keep},
};

/// What those are told who came by the password alone.
pub(crate) const FACTOR_ADDED: &str = "a second factor was added";

pub(crate) async fn answer(
    door: &Door,
    select: &mut WorldSelect,
    message: &Message,
) -> Result<Message, LoginError> {
    // What changes something compares the generation itself.
    if !select.is_current(door).await? {
        return Err(select.passed(door).await?);
    }
    match message.opcode {
        opcode::LIST_SESSIONS => logon::answer(message, &sessions(door, select).await),
        opcode::LOG_OUT_EVERYWHERE => logon::answer(message, &log_out(door, select).await?),
        opcode::CHANGE_PASSWORD => {
            logon::answer(message, &change_password(door, select, decode(message)?).await?)
        }
        opcode::BEGIN_SECOND_FACTOR => logon::answer(message, &begin(door, select).await?),
        opcode::CONFIRM_SECOND_FACTOR => {
            logon::answer(message, &confirm(door, select, decode(message)?).await?)
        }
        opcode::REMOVE_SECOND_FACTOR => {
            logon::answer(message, &give_up(door, select, decode(message)?).await?)
        }
        _ => Err(LoginError::Internal("the opcode table knows a request that nobody answers")),
    }
}

async fn sessions(door: &Door, select: &WorldSelect) -> SessionList {
    let found = door.gateways.sessions_of(select.account()).await;
    let sessions = found.answers.into_iter().flat_map(|(_, reply)| reply.sessions);
    let told = |session: shardkeep_rpc::gateway::SessionInfo| AccountSession {
        world_id: session.world,
        address: session.address,
        link_lost: session.link_dead,
        age_ms: session.age_ms,
    };
    SessionList { sessions: sessions.map(told).collect() }
}

async fn log_out(door: &Door, select: &mut WorldSelect) -> Result<LoggedOutEverywhere, LoginError> {
    let cause = cause(ErrorCode::Kicked, "logged out everywhere");
    let Raised { id, generation } = select.raised();
    let raised = accounts::raise_from(&door.database, id, generation, &cause).await?;
    let raised = select.go_on_as(door, raised).await?;
    shardkeep_daemon::event!("logged_out_everywhere", account = id.0, operator = "the player");
    Ok(LoggedOutEverywhere { sessions_ended: door.end_sessions(raised, &cause).await })
}

async fn change_password(
    door: &Door,
    select: &mut WorldSelect,
    change: ChangePassword,
) -> Result<PasswordChanged, LoginError> {
    let ChangePassword { group, salt, verifier } = change;
    let made = Made { name: select.name().clone(), group, salt, verifier };
    let proof = keep(&door.pool, Asks::Owner(select.address()), made).await?;
    let cause = cause(ErrorCode::Kicked, "the password was changed");
    let raised = authority::change_proof(door, select.raised(), &proof, &cause).await?;
    let raised = select.go_on_as(door, raised).await?;
    shardkeep_daemon::event!("password_changed", account = raised.id.0, operator = "the player");
    Ok(PasswordChanged { sessions_ended: door.end_sessions(raised, &cause).await })
}

async fn begin(door: &Door, select: &mut WorldSelect) -> Result<SecondFactorBegun, LoginError> {
    let enrolment = Enrolment::new(door, select.name().as_str())?;
    let stored = enrolment.stored(door, select.account())?;
    match factors::begin(&door.database, select.raised(), &stored).await? {
        Wish::Done(()) => Ok(SecondFactorBegun { secret: enrolment.secret.to_vec(), uri: enrolment.uri }),
        Wish::Passed => Err(select.passed(door).await?),
        Wish::Otherwise => Err(LoginError::Refused("a second factor is in force; remove it first")),
    }
}

async fn confirm(
    door: &Door,
    select: &mut WorldSelect,
    ConfirmSecondFactor { code }: ConfirmSecondFactor,
) -> Result<SecondFactorConfirmed, LoginError> {
    let cause = cause(ErrorCode::Kicked, FACTOR_ADDED);
    let raised = second_factor::confirm(door, select.raised(), &code, &cause).await?;
    let raised = select.go_on_as(door, raised).await?;
    shardkeep_daemon::event!("second_factor_added", account = raised.id.0, operator = "the player");
    Ok(SecondFactorConfirmed { sessions_ended: door.end_sessions(raised, &cause).await })
}

async fn give_up(
    door: &Door,
    select: &mut WorldSelect,
    RemoveSecondFactor { code }: RemoveSecondFactor,
) -> Result<SecondFactorRemoved, LoginError> {
    if second_factor::give_up(door, select.raised(), &code).await?.is_none() {
        return Err(select.passed(door).await?);
    }
    shardkeep_daemon::event!("second_factor_removed", account = select.account().0, operator = "the player");
    Ok(SecondFactorRemoved {})
}

//! What a player may ask about the own account while the world list is open: where it is logged in, to end that, a
//! new password, a second factor. The connection that asks goes on.

use shardkeep_store::accounts::{self, Raised, second_factor as factors};
use shardkeep_wire::{
    Message, WireError, opcode,
    payload::{
        AccountSession, ChangePassword, ConfirmSecondFactor, ErrorCode, LoggedOutEverywhere, PasswordChanged,
        RemoveSecondFactor, SecondFactorBegun, SecondFactorConfirmed, SecondFactorRemoved, SessionList,
    },
};

use crate::{
    LoginError, authority,
    door::{Door, cause},
    logon,
    second_factor::{self, Enrolment},
    select::WorldSelect,
    verifiers::keep,
};

pub(crate) async fn answer(
    door: &Door,
    select: &mut WorldSelect,
    message: &Message,
) -> Result<Message, LoginError> {
    match message.opcode {
        opcode::LIST_SESSIONS => logon::answer(message, &sessions(door, select).await),
        opcode::LOG_OUT_EVERYWHERE => logon::answer(message, &log_out(door, select).await?),
        opcode::CHANGE_PASSWORD => {
            logon::answer(message, &change_password(door, select, decode(message)?).await?)
        }
        opcode::BEGIN_SECOND_FACTOR => logon::answer(message, &begin(door, select).await?),
        opcode::CONFIRM_SECOND_FACTOR => {
            let ConfirmSecondFactor { code } = decode(message)?;
            second_factor::check(door, select.account(), &code).await?;
            shardkeep_daemon::event!(
                "second_factor_added",
                account = select.account().0,
                operator = "the player"
            );
            logon::answer(message, &SecondFactorConfirmed {})
        }
        opcode::REMOVE_SECOND_FACTOR => {
            let RemoveSecondFactor { code } = decode(message)?;
            second_factor::check(door, select.account(), &code).await?;
            authority::remove_factor(door, select.account()).await?;
            shardkeep_daemon::event!(
                "second_factor_removed",
                account = select.account().0,
                operator = "the player"
            );
            logon::answer(message, &SecondFactorRemoved {})
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
    let proof = keep(select.name().clone(), group, salt, verifier)?;
    let cause = cause(ErrorCode::Kicked, "the password was changed");
    let raised = authority::change_proof(door, select.raised(), &proof, &cause).await?;
    let raised = select.go_on_as(door, raised).await?;
    shardkeep_daemon::event!("password_changed", account = raised.id.0, operator = "the player");
    Ok(PasswordChanged { sessions_ended: door.end_sessions(raised, &cause).await })
}

async fn begin(door: &Door, select: &WorldSelect) -> Result<SecondFactorBegun, LoginError> {
    let enrolment = Enrolment::new(door, select.name().as_str())?;
    let stored = enrolment.stored(door, select.account())?;
    if !factors::begin(&door.database, select.account(), &stored).await? {
        return Err(LoginError::Refused("a second factor is in force; remove it first"));
    }
    Ok(SecondFactorBegun { secret: enrolment.secret.to_vec(), uri: enrolment.uri })
}

fn decode<P: Default + prost::Message>(message: &Message) -> Result<P, LoginError> {
    Ok(message.decode().map_err(WireError::from)?)
}

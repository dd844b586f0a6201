//! The handshake as it is carried over a connection: registering, a puzzle for those who come in a crowd, the steps of
//! [`Logon`] with their deadlines, and a code for those who need one.

use std::time::{Duration, Instant};

use shardkeep_auth::ChannelBinding;
use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_wire::{
    Message,
    opcode::{self, Phase},
};
use tokio::time::{timeout, timeout_at};

use crate::{
    LoginError,
    context::LoginContext,
    lifecycle::{End, refuse_request, reply_to},
    logon::{Checked, EnterOutcome, Logon, New},
    register,
    select::WorldSelect,
};

/// Protocol section 4.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Codes tried on one connection.
const MAX_CODE_TRIES: usize = 3;
/// Puzzles that one connection is given.
const MAX_PUZZLES: usize = 4;
/// Share of the connections in use above which a client is hung up on while it solves its puzzle.
const SCARCE_LOAD: f64 = 0.5;

/// From the first message to the welcome.
pub(crate) async fn run(
    connection: &mut Connection,
    context: &LoginContext,
    preface: &ChannelBinding,
    started: Instant,
) -> Result<WorldSelect, End> {
    let deadline = (started + HANDSHAKE_TIMEOUT).into();
    let greeted = timeout_at(deadline, logon(connection, context, preface, started)).await;
    let (mut checked, mut last) =
        greeted.unwrap_or_else(|_| Err(ConnectionError::Timeout("finish the handshake").into()))?;
    let (select, welcome) = loop {
        if checked.needs_code() {
            let code_entry =
                timeout(context.config.code_timeout, code(connection, context, &mut checked, &last));
            last =
                code_entry.await.unwrap_or_else(|_| Err(ConnectionError::Timeout("give a code").into()))?;
        }
        match checked.enter(context, &last).await.map_err(reply_to(&last))? {
            EnterOutcome::LoggedIn(select, welcome) => break (*select, welcome),
            EnterOutcome::CodeNeeded(again) => checked = *again,
        }
    };
    // Goes with the world list.
    connection.queue(&welcome)?;
    connection.enter(Phase::LoginWelcome);
    Ok(select)
}

/// Asks for a code until it is right; the message that the welcome answers. Who gives two has one try, so that each guess
/// costs a whole login.
async fn code(
    connection: &mut Connection,
    context: &LoginContext,
    checked: &mut Logon<Checked>,
    asked: &Message,
) -> Result<Message, End> {
    refuse_request(connection, asked, &LoginError::CodeNeeded)?;
    connection.enter(Phase::LoginCode);
    let mut tries = 1;
    loop {
        let given = connection.receive().await?;
        match checked.code(context, &given).await {
            Ok(()) => return Ok(given),
            Err(error @ (LoginError::WrongCode | LoginError::TwoCodesNeeded { .. }))
                if tries < MAX_CODE_TRIES =>
            {
                refuse_request(connection, &given, &error)?;
            }
            Err(error) => return Err(reply_to(&given)(error)),
        }
        tries += 1;
    }
}

/// Everything that does not wait for a person.
async fn logon(
    connection: &mut Connection,
    context: &LoginContext,
    preface: &ChannelBinding,
    started: Instant,
) -> Result<(Logon<Checked>, Message), End> {
    let logon = Logon::new(preface, connection.peer().ip(), started, started + HANDSHAKE_TIMEOUT);

    let hello = receive_hello(connection, context, preface, &logon).await?;
    let challenge = connection
        .run_while_connected(Box::pin(context.step_gate.run_until_tick(logon.hello(context, &hello))))
        .await;
    let (logon, reply) = challenge.map_err(reply_to(&hello))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginChallenged);
    let proof = connection.receive().await?;
    let verified = connection
        .run_while_connected(Box::pin(context.step_gate.run_until_tick(logon.proof(context, &proof))))
        .await;
    let (logon, reply, suite) = verified.map_err(reply_to(&proof))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginVerified);
    let (client, server) = logon.keys();
    connection.seal(suite, client, server)?;
    let finished = connection.receive().await?;
    let checked = logon.finished(&finished).map_err(reply_to(&finished))?;
    Ok((checked, finished))
}

/// The `Hello` that may pass: under load, one that brings the answer to a puzzle. Who has nothing else to offer than
/// wrong answers is not listened to for long, and when connections are scarce not even until the first: a solved
/// puzzle is as good on another connection. A client may register before it greets, and works for that as well.
async fn receive_hello(
    connection: &mut Connection,
    context: &LoginContext,
    preface: &ChannelBinding,
    logon: &Logon<New>,
) -> Result<Message, End> {
    let mut puzzles = 0;
    while puzzles < MAX_PUZZLES {
        let request = connection.receive().await?;
        let registers = request.opcode == opcode::REGISTER;
        if let Some(puzzle) = logon.puzzle(context, &request).map_err(reply_to(&request))? {
            connection.send(&puzzle).await?;
            puzzles += 1;
            // What registers is sealed to this connection, and worth nothing on another.
            if context.connection_limiter.load() > SCARCE_LOAD && !registers {
                break;
            }
        } else if registers {
            let reply = register::answer(context, connection.peer().ip(), preface, &request).await;
            connection.send(&reply.map_err(reply_to(&request))?).await?;
        } else {
            return Ok(request);
        }
    }
    Err(LoginError::PuzzleRequired.into())
}

//! The handshake as it is carried over a connection: registering, a puzzle for those who come in a crowd, the steps of
//! [`Logon`] with their deadlines, and a code for those who need one.

use std::time::{Duration, Instant};

use shardkeep_auth::Binding;
use shardkeep_wire::{
    Message,
    opcode::{self, Phase},
};
use tokio::time::{timeout, timeout_at};

use crate::{
    LoginError,
    connection::Connection,
    conversation::{End, answering, refuse_request},
    door::Door,
    logon::{Checked, Entered, Logon, New},
    register,
    select::WorldSelect,
};

/// Protocol section 4.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// Codes tried on one connection.
const CODES: usize = 3;
/// Puzzles that one connection is given.
const PUZZLES: usize = 4;
/// Share of the connections in use above which a client is hung up on while it solves its puzzle.
const SCARCE: f64 = 0.5;

/// From the first message to the welcome.
pub(crate) async fn run(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    begun: Instant,
) -> Result<WorldSelect, End> {
    let deadline = (begun + HANDSHAKE_WITHIN).into();
    let greeted = timeout_at(deadline, logon(connection, door, preface, begun)).await;
    let (mut checked, mut last) =
        greeted.unwrap_or_else(|_| Err(LoginError::Timeout("finish the handshake").into()))?;
    let (select, welcome) = loop {
        if checked.needs_code() {
            let looking = timeout(door.config.code_within, code(connection, door, &mut checked, &last));
            last = looking.await.unwrap_or_else(|_| Err(LoginError::Timeout("give a code").into()))?;
        }
        match checked.enter(door, &last).await.map_err(answering(&last))? {
            Entered::In(select, welcome) => break (*select, welcome),
            Entered::CodeNeeded(again) => checked = *again,
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
    door: &Door,
    checked: &mut Logon<Checked>,
    asked: &Message,
) -> Result<Message, End> {
    refuse_request(connection, asked, &LoginError::CodeNeeded)?;
    connection.enter(Phase::LoginCode);
    let mut tries = 1;
    loop {
        let given = connection.receive().await?;
        match checked.code(door, &given).await {
            Ok(()) => return Ok(given),
            Err(error @ (LoginError::WrongCode | LoginError::TwoCodesNeeded { .. })) if tries < CODES => {
                refuse_request(connection, &given, &error)?;
            }
            Err(error) => return Err(answering(&given)(error)),
        }
        tries += 1;
    }
}

/// Everything that does not wait for a person.
async fn logon(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    begun: Instant,
) -> Result<(Logon<Checked>, Message), End> {
    let logon = Logon::new(preface, connection.peer().ip(), begun, begun + HANDSHAKE_WITHIN);

    let hello = greeting(connection, door, preface, &logon).await?;
    let challenge = connection.unless_gone(Box::pin(door.moments.evenly(logon.hello(door, &hello)))).await;
    let (logon, reply) = challenge.map_err(answering(&hello))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginChallenged);
    let proof = connection.receive().await?;
    let verified = connection.unless_gone(Box::pin(door.moments.evenly(logon.proof(door, &proof)))).await;
    let (logon, reply, suite) = verified.map_err(answering(&proof))?;
    connection.send(&reply).await?;

    connection.enter(Phase::LoginVerified);
    let (client, server) = logon.keys();
    connection.seal(suite, client, server)?;
    let finished = connection.receive().await?;
    let checked = logon.finished(&finished).map_err(answering(&finished))?;
    Ok((checked, finished))
}

/// The `Hello` that may pass: under load, one that brings the answer to a puzzle. Who has nothing else to offer than
/// wrong answers is not listened to for long, and when connections are scarce not even until the first: a solved
/// puzzle is as good on another connection. A client may register before it greets, and works for that as well.
async fn greeting(
    connection: &mut Connection,
    door: &Door,
    preface: &Binding,
    logon: &Logon<New>,
) -> Result<Message, End> {
    let mut puzzles = 0;
    while puzzles < PUZZLES {
        let request = connection.receive().await?;
        let registers = request.opcode == opcode::REGISTER;
        if let Some(puzzle) = logon.puzzle(door, &request).map_err(answering(&request))? {
            connection.send(&puzzle).await?;
            puzzles += 1;
            // What registers is sealed to this connection, and worth nothing on another.
            if door.crowd.load() > SCARCE && !registers {
                break;
            }
        } else if registers {
            let reply = register::answer(door, connection.peer().ip(), preface, &request).await;
            connection.send(&reply.map_err(answering(&request))?).await?;
        } else {
            return Ok(request);
        }
    }
    Err(LoginError::Puzzled.into())
}

//! The handshake over a connection: registration, puzzles, the steps of [`Logon`] with their deadlines, and codes of a
//! second factor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_auth::{ChannelBinding, ticket::TicketChain};
use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_daemon::ConnectionLimiter;
use shardkeep_wire::{
    Message,
    opcode::{self, Phase},
};
use tokio::time::{timeout, timeout_at};

use crate::{
    accounts::registration::Registrations,
    error::LoginError,
    logon::{
        entry::Entered,
        steps::{Checked, EnterOutcome, Logon, Logons, New},
    },
    replies::{End, end_with, refuse},
};

/// Protocol section 4.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Codes that a client may try on one connection.
const MAX_CODE_TRIES: usize = 3;
/// Puzzles that one connection is given.
const MAX_PUZZLES: usize = 4;
/// Share of the connections in use above which login closes a connection whose client has to solve a puzzle.
const SCARCE_LOAD: f64 = 0.5;

pub(crate) struct Handshake {
    logons: Arc<Logons>,
    registrations: Arc<Registrations>,
    connections: ConnectionLimiter,
    code_timeout: Duration,
}

impl Handshake {
    pub(crate) fn new(
        logons: Arc<Logons>,
        registrations: Arc<Registrations>,
        connections: ConnectionLimiter,
        code_timeout: Duration,
    ) -> Self {
        Self { logons, registrations, connections, code_timeout }
    }

    /// From the first message to the welcome, which is queued.
    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        preface: &ChannelBinding,
        started: Instant,
    ) -> Result<(Entered, TicketChain), End> {
        let deadline = (started + HANDSHAKE_TIMEOUT).into();
        let proven = timeout_at(deadline, self.prove(connection, preface, started)).await;
        let (mut checked, mut last) =
            proven.unwrap_or_else(|_| Err(ConnectionError::Timeout("finish the handshake").into()))?;
        let (entered, welcome) = loop {
            if checked.needs_code() {
                let code_entry = timeout(self.code_timeout, self.code(connection, &mut checked, &last));
                last = code_entry
                    .await
                    .unwrap_or_else(|_| Err(ConnectionError::Timeout("give a code").into()))?;
            }
            match checked.enter(&self.logons, &last).await.map_err(end_with(&last))? {
                EnterOutcome::LoggedIn(entered, welcome) => break (*entered, welcome),
                EnterOutcome::CodeNeeded(again) => checked = *again,
            }
        };
        // The world list goes into the same packet.
        connection.queue(&welcome)?;
        connection.enter(Phase::LoginWelcome);
        Ok(entered)
    }

    /// Asks for codes until one is right, and returns the message that the welcome answers. Two codes in a row may be tried
    /// once, so that each guess costs a whole login.
    async fn code(
        &self,
        connection: &mut Connection,
        checked: &mut Logon<Checked>,
        asked: &Message,
    ) -> Result<Message, End> {
        refuse(connection, asked, &LoginError::CodeNeeded)?;
        connection.enter(Phase::LoginCode);
        let mut tries = 1;
        loop {
            let given = connection.receive().await?;
            match checked.code(&self.logons, &given).await {
                Ok(()) => return Ok(given),
                Err(error @ (LoginError::WrongCode | LoginError::TwoCodesNeeded { .. }))
                    if tries < MAX_CODE_TRIES =>
                {
                    refuse(connection, &given, &error)?;
                }
                Err(error) => return Err(end_with(&given)(error)),
            }
            tries += 1;
        }
    }

    /// The part of the handshake that does not wait for a person.
    async fn prove(
        &self,
        connection: &mut Connection,
        preface: &ChannelBinding,
        started: Instant,
    ) -> Result<(Logon<Checked>, Message), End> {
        let logon = Logon::new(preface, connection.peer().ip(), started, started + HANDSHAKE_TIMEOUT);

        let hello = self.receive_hello(connection, preface, &logon).await?;
        let challenge = connection.run_while_connected(Box::pin(logon.hello(&self.logons, &hello))).await;
        let (logon, reply) = challenge.map_err(end_with(&hello))?;
        connection.send(&reply).await?;

        connection.enter(Phase::LoginChallenged);
        let proof = connection.receive().await?;
        let verified = connection.run_while_connected(Box::pin(logon.proof(&self.logons, &proof))).await;
        let (logon, reply, suite) = verified.map_err(end_with(&proof))?;
        connection.send(&reply).await?;

        connection.enter(Phase::LoginVerified);
        let (client, server) = logon.keys();
        connection.seal(suite, client, server)?;
        let finished = connection.receive().await?;
        let checked = logon.finished(&finished).map_err(end_with(&finished))?;
        Ok((checked, finished))
    }

    /// Receives a `Hello` that may proceed: under load, one with the answer to a puzzle. A client gets a few puzzles on one
    /// connection. When connections are scarce the first puzzle ends the connection, because its answer is valid on
    /// another one too. A client may register first, and solves puzzles for that as well.
    async fn receive_hello(
        &self,
        connection: &mut Connection,
        preface: &ChannelBinding,
        logon: &Logon<New>,
    ) -> Result<Message, End> {
        let mut puzzles = 0;
        while puzzles < MAX_PUZZLES {
            let request = connection.receive().await?;
            let registers = request.opcode == opcode::REGISTER;
            if let Some(puzzle) = logon.puzzle(&self.logons, &request).map_err(end_with(&request))? {
                connection.send(&puzzle).await?;
                puzzles += 1;
                // A registration is sealed to this connection, so its answer is not valid on another one.
                if self.connections.load() > SCARCE_LOAD && !registers {
                    break;
                }
            } else if registers {
                let reply = self.registrations.answer(connection.peer().ip(), preface, &request).await;
                connection.send(&reply.map_err(end_with(&request))?).await?;
            } else {
                return Ok(request);
            }
        }
        Err(LoginError::PuzzleRequired.into())
    }
}

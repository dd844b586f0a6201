//! Attaching and resuming (`docs/protocol.md`, sections 9 and 11): two messages each way, after which the session
//! lives on this connection under new keys.

use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, key_source},
    ticket::Ticket,
};
use shardkeep_types::SessionId;
use shardkeep_wire::{
    Message, opcode,
    payload::{Attach, Attached, Confirm, Resume, SessionReady},
    seal::Suite,
};

use crate::{ClientError, Config, random, raw::Connection};

/// The only request of a handshake; each is answered before the next.
const REQUEST: u32 = 1;

/// A session on a connection.
#[derive(Debug)]
pub struct Established {
    pub session: SessionId,
    pub ready: SessionReady,
    pub keys: SessionKeys,
    /// One of [`key_source`].
    pub key: u8,
}

/// The keys that a resume is proved with.
#[derive(Debug, Clone)]
pub struct ResumeKeys {
    pub gateway: Key,
    pub world: Key,
}

impl ResumeKeys {
    /// Those of a session that was just attached.
    pub fn of(established: &Established) -> Self {
        let keys = &established.keys;
        Self { gateway: keys.gateway_resume.clone(), world: keys.world_resume.clone() }
    }
}

/// Attaches with a ticket, on a connection that has sent nothing yet.
pub async fn attach(
    connection: &mut Connection,
    config: &Config,
    ticket: &Ticket,
) -> Result<Established, ClientError> {
    attach_with(connection, config, ticket, &[]).await
}

/// Attaches and sends the session's first messages in the record of `Confirm`, which saves a round trip.
pub async fn attach_with(
    connection: &mut Connection,
    config: &Config,
    ticket: &Ticket,
    first: &[Message],
) -> Result<Established, ClientError> {
    let (preface, random) = (connection.binding(), random::bytes::<32>()?);
    let proof = Proof::attach(&ticket.key);
    let suites = offered(config);
    let request = Attach {
        ticket_id: ticket.id.0.to_vec(),
        random: random.to_vec(),
        suites: config.suite_numbers(),
        mac: proof.client(&preface, &ticket.id.0, &random, &suites).as_bytes().to_vec(),
    };
    let request = Message::request(opcode::ATTACH, REQUEST, &request);
    let answer = exchange(connection, config, &request).await?;
    if answer.key_kind != key_source::TICKET {
        return Err(ClientError::UntrustedServer("it used a key that was not offered"));
    }
    establish(connection, &request, answer, &proof, &ticket.key, 0, first).await
}

/// Goes on with a session, on a connection that has said nothing yet. `received` counts its reliable messages.
pub async fn resume(
    connection: &mut Connection,
    config: &Config,
    session: SessionId,
    keys: &ResumeKeys,
    received: u64,
) -> Result<Established, ClientError> {
    let (preface, random) = (connection.binding(), random::bytes::<32>()?);
    let (gateway, world) = (Proof::resume(&keys.gateway), Proof::resume(&keys.world));
    let suites = offered(config);
    let mac = |proof: &Proof| proof.client(&preface, &session.0, &random, &suites).as_bytes().to_vec();
    let request = Resume {
        session_id: session.0.to_vec(),
        random: random.to_vec(),
        suites: config.suite_numbers(),
        gateway_mac: mac(&gateway),
        world_mac: mac(&world),
    };
    let request = Message::request(opcode::RESUME, REQUEST, &request);
    let answer = exchange(connection, config, &request).await?;
    let (proof, key) = match answer.key_kind {
        key_source::GATEWAY => (&gateway, &keys.gateway),
        key_source::WORLD => (&world, &keys.world),
        _ => return Err(ClientError::UntrustedServer("it used a key that was not offered")),
    };
    let established = establish(connection, &request, answer, proof, key, received, &[]).await?;
    if established.session != session {
        return Err(ClientError::UntrustedServer("it resumed another session"));
    }
    Ok(established)
}

/// What `Attached` says, checked for form.
struct Answer {
    message: Message,
    random: [u8; 32],
    suite: Suite,
    mac: Vec<u8>,
    key_kind: u8,
}

async fn exchange(
    connection: &mut Connection,
    config: &Config,
    request: &Message,
) -> Result<Answer, ClientError> {
    connection.send(std::slice::from_ref(request)).await?;
    let message = reply(connection, request.opcode, "Attached").await?;
    let attached: Attached = message.decode()?;
    let suite = Suite::from_number(attached.suite).filter(|suite| config.suites.contains(suite));
    let suite = suite.ok_or(ClientError::UntrustedServer("it chose a suite that was not offered"))?;
    let random = attached.random.as_slice().try_into();
    let random = random.map_err(|_| ClientError::UntrustedServer("its randomness has another size"))?;
    let key_kind = u8::try_from(attached.key).unwrap_or(u8::MAX);
    Ok(Answer { message, random, suite, mac: attached.mac, key_kind })
}

async fn establish(
    connection: &mut Connection,
    request: &Message,
    answer: Answer,
    proof: &Proof,
    key: &Key,
    received: u64,
    first: &[Message],
) -> Result<Established, ClientError> {
    let preface = connection.binding();
    let request = request.to_bytes();
    let expected = proof.server(&preface, &request, &answer.random, answer.suite as u8, answer.key_kind);
    if !expected.matches(&answer.mac) {
        return Err(ClientError::UntrustedServer("it does not hold the key"));
    }
    let keys = SessionKeys::derive(key, &preface, &request, &answer.message.to_bytes());
    connection.use_keys(answer.suite, keys.client.clone(), keys.server.clone())?;
    connection.use_datagrams(answer.suite, keys.datagrams.clone())?;

    let confirm = Message::request(opcode::CONFIRM, REQUEST, &Confirm { received });
    connection.send(&[std::slice::from_ref(&confirm), first].concat()).await?;
    let ready: SessionReady = reply(connection, opcode::CONFIRM, "SessionReady").await?.decode()?;
    let session = SessionId::try_from(ready.session_id.as_slice())
        .map_err(|_| ClientError::UntrustedServer("its session id has another size"))?;
    Ok(Established { session, ready, keys, key: answer.key_kind })
}

/// The reply to the handshake's request; an `Error` in its place is an error.
pub(crate) async fn reply(
    connection: &mut Connection,
    opcode: u16,
    waiting_for: &'static str,
) -> Result<Message, ClientError> {
    let message = connection.next().await?;
    if message.head.request() != Some(REQUEST) {
        return Err(ClientError::Unexpected { opcode: message.opcode, waiting_for });
    }
    match message.opcode {
        found if found == opcode => Ok(message),
        found => Err(ClientError::Unexpected { opcode: found, waiting_for }),
    }
}

fn offered(config: &Config) -> Vec<u8> {
    config.suites.iter().map(|suite| *suite as u8).collect()
}

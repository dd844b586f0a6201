//! The steps that attach and resume share: the client's opening, the server's answer, the first sealed record, and
//! `SessionReady`.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use shardkeep_auth::{
    ChannelBinding, Key,
    session::{Proof, SessionKeys},
};
use shardkeep_lanes::Upgrade;
use shardkeep_wire::{
    Head, Message,
    message::{self, MessageError},
    opcode::{self, Phase, Violation},
    payload::{Attached, Confirm, SessionReady},
    seal::Suite,
};

use super::{
    throttle::Slot,
    wire::{PlainStream, SealedStream},
};
use crate::{
    app::{App, AttachedSession},
    edge::worlds::Worlds,
    error::ConnectionError,
};

pub(super) const PREFACE_WITHIN: Duration = Duration::from_secs(5);
pub(super) const RANDOM: usize = 32;

/// A connection that carries a session.
pub(crate) struct Established {
    pub(crate) wire: SealedStream,
    pub(crate) attached: AttachedSession,
}

/// Everything that a handshake needs.
pub(super) struct Handshake<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) worlds: &'a Arc<Worlds>,
    pub(super) address: IpAddr,
    pub(super) slot: &'a Slot,
    pub(super) upgrade: Option<&'a Upgrade>,
}

/// The client's plain request: `Attach` or `Resume`, whole and as sent.
pub(super) struct Opening {
    pub(super) preface: ChannelBinding,
    pub(super) message: Bytes,
    pub(super) request: u32,
}

/// The session that the client has proved to be its own, as `SessionReady` describes it.
pub(super) struct ProvedSession {
    pub(super) attached: AttachedSession,
    pub(super) received: u64,
    pub(super) continued: bool,
}

/// The only message of a handshake record, which must be a request, with its number.
pub(super) fn only_request(record: &[u8], phase: Phase) -> Result<(u32, Message<&[u8]>), ConnectionError> {
    let (request, message, taken) = first_request(record, phase)?;
    if taken != record.len() {
        return Err(MessageError::Truncated.into());
    }
    Ok((request, message))
}

/// The first message of a record, which must be a request, with its number and its length.
fn first_request(record: &[u8], phase: Phase) -> Result<(u32, Message<&[u8]>, usize), ConnectionError> {
    let (message, taken) = Message::parse(record)?;
    opcode::check(phase, message.opcode, message.kind(), message.payload.len())
        .map_err(|violation: Violation| ConnectionError::Wire(violation.into()))?;
    match message.head {
        Head::Request(request) => Ok((request, message, taken)),
        _ => Err(ConnectionError::Wire(
            Violation::WrongKind { name: "handshake", kind: message.kind() }.into(),
        )),
    }
}

/// Answers the opening with `Attached`, and makes the keys that follow.
pub(super) async fn answer(
    plain: PlainStream,
    opening: &Opening,
    proof: &Proof,
    key: &Key,
    suite: Suite,
    key_kind: u8,
) -> Result<(SealedStream, SessionKeys), ConnectionError> {
    let mut random = [0; RANDOM];
    fill_random(&mut random)?;
    let number = u8::try_from(suite.number()).unwrap_or_default();
    let mac = proof.server(&opening.preface, &opening.message, &random, number, key_kind);
    let attached = Attached {
        random: random.to_vec(),
        suite: suite.number(),
        mac: mac.as_bytes().to_vec(),
        key: key_kind.into(),
    };
    let code = u16::from_le_bytes([opening.message[1], opening.message[2]]);
    let reply = Message::reply(code, opening.request, &attached).to_bytes();
    let mut plain = plain;
    plain.send(&reply).await?;
    let keys = SessionKeys::derive(key, &opening.preface, &opening.message, &reply);
    Ok((plain.seal(suite, &keys)?, keys))
}

/// The client's first sealed record: it proves the keys. Messages behind `Confirm` are those of the session; they are
/// handled once the session is attached.
pub(super) async fn confirm(wire: &mut SealedStream) -> Result<(u32, Confirm), ConnectionError> {
    let mut record = wire.record().await?;
    let (request, message, taken) = first_request(&record, Phase::GatewayAttached)?;
    let confirm = message.decode()?;
    wire.defer(record.split_off(taken));
    Ok((request, confirm))
}

/// Ends the handshake: says `SessionReady`.
pub(super) async fn ready(
    handshake: &Handshake<'_>,
    mut wire: SealedStream,
    request: u32,
    proved: ProvedSession,
) -> Result<Established, ConnectionError> {
    let app = handshake.app;
    let ProvedSession { attached, received, continued } = proved;
    let ready = SessionReady {
        session_id: attached.session().id().as_bytes().to_vec(),
        received,
        continued,
        link_loss_ms: u32::try_from(app.config().link_loss.as_millis()).unwrap_or(u32::MAX),
        gateway: app.client_address().to_owned(),
        any_gateway: app.any_gateway().to_owned(),
        lanes: app.lane_addresses().to_vec(),
    };
    let reply = Message::reply(opcode::CONFIRM, request, &ready).to_bytes();
    wire.send(&reply).await?;
    Ok(Established { wire, attached })
}

/// Completes work that concerns more than this connection, even if the connection ends meanwhile.
pub(super) async fn run_to_completion<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = Result<T, ConnectionError>> + Send + 'static,
) -> Result<T, ConnectionError> {
    let done = app.daemon().spawn_work("attach or resume", work).await;
    done.unwrap_or_else(|_| Err(ConnectionError::World("it broke off".into())))
}

/// The suites a client offers, as the protocol's proofs and as ours.
pub(super) fn suites(offered: &[i32]) -> Result<(Vec<u8>, Suite), ConnectionError> {
    let numbers: Result<Vec<u8>, _> = offered.iter().map(|number| u8::try_from(*number)).collect();
    let numbers = numbers.map_err(|_| ConnectionError::Suite)?;
    Ok((numbers, Suite::choose(offered).ok_or(ConnectionError::Suite)?))
}

pub(super) fn fill_random(bytes: &mut [u8]) -> Result<(), ConnectionError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| ConnectionError::World("no randomness".into()))
}

/// Decodes the payload of the opening.
pub(super) fn payload<P: prost::Message + Default>(opening: &Opening) -> Result<P, ConnectionError> {
    let message = message::Message::parse(&opening.message)?.0;
    Ok(message.decode()?)
}

//! From the preface to `SessionReady`: the client names a ticket or a session, both sides prove what they know, and
//! the client's first sealed record makes it so.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use metrics::counter;
use shardkeep_auth::{
    ChannelBinding, Key,
    session::{Proof, SessionKeys},
};
use shardkeep_lanes::{IncomingConnection, Lane, Upgrade};
use shardkeep_wire::{
    Head, Message,
    message::{self, MessageError},
    opcode::{self, Phase, Violation},
    payload::{Attached, Confirm, SessionReady},
    seal::Suite,
};
use tokio::time::timeout;
use tracing::debug;

use super::{
    attach, resume,
    throttle::Slot,
    wire::{PlainStream, SealedStream},
};
use crate::{
    backend::Worlds,
    core::{AttachedSession, Core},
    error::ConnectionError,
    metrics::{FAULTS, HANDSHAKES, HOT},
};

pub(super) const PREFACE_WITHIN: Duration = Duration::from_secs(5);
pub(super) const RANDOM: usize = 32;

/// A connection that carries a session.
pub(crate) struct Established {
    pub(crate) wire: SealedStream,
    pub(crate) attached: AttachedSession,
}

/// What a handshake works with.
pub(super) struct Handshake<'a> {
    pub(super) core: &'a Arc<Core>,
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

/// A session proved itself on this connection: what `SessionReady` says of it.
pub(super) struct ProvedSession {
    pub(super) attached: AttachedSession,
    pub(super) received: u64,
    pub(super) continued: bool,
}

/// Runs the handshake within its time; a client that fails is told why, as far as it may know.
pub(super) async fn run(
    core: &Arc<Core>,
    worlds: &Arc<Worlds>,
    incoming: IncomingConnection,
    slot: &Slot,
    upgrade: Option<&Upgrade>,
) -> Option<Established> {
    let began = Instant::now();
    let (address, mut lane) = (incoming.peer().ip(), incoming.lane());
    let handshake = Handshake { core, worlds, address, slot, upgrade };
    let within = timeout(core.config.handshake, handshake.perform(incoming, &mut lane)).await;
    let (kind, result) = within.unwrap_or(("late", Err(ConnectionError::Timeout)));
    let outcome = result.as_ref().map_or_else(ConnectionError::label, |_| "ok");
    match (kind, lane, outcome) {
        ("attach", Lane::Tcp, "ok") => HOT.attached.increment(1),
        _ => {
            counter!(HANDSHAKES, "kind" => kind, "lane" => lane.as_str(), "outcome" => outcome).increment(1);
        }
    }
    match result {
        Ok(established) => {
            HOT.handshake_seconds.record(began.elapsed());
            Some(established)
        }
        Err(error) => {
            counter!(FAULTS, "label" => error.label()).increment(1);
            debug!(%address, %error, kind, "handshake failed");
            None
        }
    }
}

impl Handshake<'_> {
    /// Notes the lane as soon as it is known.
    async fn perform(
        &self,
        incoming: IncomingConnection,
        lane: &mut Lane,
    ) -> (&'static str, Result<Established, ConnectionError>) {
        let mut plain = match timeout(PREFACE_WITHIN, incoming.open()).await {
            Ok(Ok(stream)) => PlainStream::new(stream),
            Ok(Err(error)) => return ("none", Err(error.into())),
            Err(_) => return ("none", Err(ConnectionError::Timeout)),
        };
        let opening = self.opening(&mut plain).await;
        *lane = plain.lane();
        let opening = match opening {
            Ok(opening) => opening,
            Err(error) => {
                plain.refuse(&error).await;
                return ("none", Err(error));
            }
        };
        match opening.message.get(1..3) {
            Some(code) if *code == opcode::ATTACH.to_le_bytes() => {
                ("attach", attach::run(self, plain, opening).await)
            }
            _ => ("resume", Box::pin(resume::run(self, plain, opening)).await),
        }
    }

    async fn opening(&self, plain: &mut PlainStream) -> Result<Opening, ConnectionError> {
        let preface = timeout(PREFACE_WITHIN, plain.preface(&self.core.preface, self.upgrade))
            .await
            .map_err(|_| ConnectionError::Timeout)??;
        let record = plain.message().await?;
        if self.core.draining.is_cancelled() {
            return Err(ConnectionError::Draining);
        }
        let request = only_request(&record, Phase::GatewayNew)?.0;
        Ok(Opening { preface, message: record, request })
    }
}

/// The one request that a record of the handshake holds, with its number.
pub(super) fn only_request(record: &[u8], phase: Phase) -> Result<(u32, Message<&[u8]>), ConnectionError> {
    let (message, taken) = Message::parse(record)?;
    if taken != record.len() {
        return Err(MessageError::Truncated.into());
    }
    opcode::check(phase, message.opcode, message.kind(), message.payload.len())
        .map_err(|violation: Violation| ConnectionError::Wire(violation.into()))?;
    match message.head {
        Head::Request(request) => Ok((request, message)),
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

/// The client's first sealed record: it proves the keys.
pub(super) async fn confirm(wire: &mut SealedStream) -> Result<(u32, Confirm), ConnectionError> {
    let record = wire.record().await?;
    let (request, message) = only_request(&record, Phase::GatewayAttached)?;
    Ok((request, message.decode()?))
}

/// Ends the handshake: says `SessionReady`.
pub(super) async fn ready(
    handshake: &Handshake<'_>,
    mut wire: SealedStream,
    request: u32,
    proved: ProvedSession,
) -> Result<Established, ConnectionError> {
    let core = handshake.core;
    let ProvedSession { attached, received, continued } = proved;
    let ready = SessionReady {
        session_id: attached.session.id.as_bytes().to_vec(),
        received,
        continued,
        link_loss_ms: u32::try_from(core.config.link_loss.as_millis()).unwrap_or(u32::MAX),
        gateway: core.client_address.clone(),
        any_gateway: core.any_gateway.clone(),
    };
    let reply = Message::reply(opcode::CONFIRM, request, &ready).to_bytes();
    wire.send(&reply).await?;
    Ok(Established { wire, attached })
}

/// Completes work that concerns more than this connection, even if the connection ends meanwhile.
pub(super) async fn run_to_completion<T: Send + 'static>(
    core: &Core,
    work: impl Future<Output = Result<T, ConnectionError>> + Send + 'static,
) -> Result<T, ConnectionError> {
    let done = core.daemon.spawn_work("attach or resume", work).await;
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

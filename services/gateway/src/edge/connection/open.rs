//! The handshake of a connection, from its preface to `SessionReady`.

use std::{sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_lanes::{IncomingConnection, Lane, Upgrade};
use shardkeep_wire::opcode::{self, Phase};
use tokio::time::timeout;
use tracing::debug;

use super::{
    attach,
    handshake::{Established, Handshake, Opening, PREFACE_WITHIN, only_request},
    resume,
    throttle::Slot,
    wire::PlainStream,
};
use crate::{
    app::App,
    edge::worlds::Worlds,
    error::ConnectionError,
    metrics::{FAULTS, HANDSHAKES, HOT},
};

/// Runs the handshake within its time limit. A client that fails gets an error, without details that would help an attacker.
pub(super) async fn run(
    app: &Arc<App>,
    worlds: &Arc<Worlds>,
    incoming: IncomingConnection,
    slot: &Slot,
    upgrade: Option<&Upgrade>,
) -> Option<Established> {
    let began = Instant::now();
    let (address, mut lane) = (incoming.peer().ip(), incoming.lane());
    let handshake = Handshake { app, worlds, address, slot, upgrade };
    let within = timeout(app.config().handshake, perform(&handshake, incoming, &mut lane)).await;
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

/// Sets `lane` as soon as it is known.
async fn perform(
    handshake: &Handshake<'_>,
    incoming: IncomingConnection,
    lane: &mut Lane,
) -> (&'static str, Result<Established, ConnectionError>) {
    let mut plain = match timeout(PREFACE_WITHIN, incoming.open()).await {
        Ok(Ok(stream)) => PlainStream::new(stream),
        Ok(Err(error)) => return ("none", Err(error.into())),
        Err(_) => return ("none", Err(ConnectionError::Timeout)),
    };
    let opening = read_opening(handshake, &mut plain).await;
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
            ("attach", attach::run(handshake, plain, opening).await)
        }
        _ => ("resume", Box::pin(resume::run(handshake, plain, opening)).await),
    }
}

async fn read_opening(
    handshake: &Handshake<'_>,
    plain: &mut PlainStream,
) -> Result<Opening, ConnectionError> {
    let preface = timeout(PREFACE_WITHIN, plain.preface(handshake.app.preface(), handshake.upgrade))
        .await
        .map_err(|_| ConnectionError::Timeout)??;
    let record = plain.message().await?;
    if handshake.app.draining().is_cancelled() {
        return Err(ConnectionError::Draining);
    }
    let request = only_request(&record, Phase::GatewayNew)?.0;
    Ok(Opening { preface, message: record, request })
}

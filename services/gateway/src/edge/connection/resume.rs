//! Resume: a client comes back to its session. If the session is here, the client proves it by the gateway's key.
//! Otherwise it proves it by the world's key; this gateway claims the session and fetches its state from the gateway that
//! had it.

use std::{sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, key_source},
};
use shardkeep_daemon::event;
use shardkeep_link::SessionChange;
use shardkeep_types::SessionId;
use shardkeep_wire::{
    payload::{self, Confirm},
    seal::Suite,
};

use super::{
    claim::{ClaimOutcome, ClaimTask},
    handshake::{
        Established, Handshake, Opening, ProvedSession, answer, confirm, payload as decode, ready,
        run_to_completion, suites,
    },
    wire::PlainStream,
};
use crate::{
    app::AttachedSession,
    domain::session::{ResumeClaim, Session},
    edge::worlds::Found,
    error::ConnectionError,
    metrics::RESUMES,
};

/// How the client proved the session to be its own.
enum ResumeKeySource {
    /// By the gateway's key. The session is here.
    Gateway { session: Arc<Session>, key: Key },
    /// By the world's key.
    World { found: Box<Found>, key: Key },
}

impl ResumeKeySource {
    fn key(&self) -> (&Key, u8) {
        match self {
            Self::Gateway { key, .. } => (key, key_source::GATEWAY),
            Self::World { key, .. } => (key, key_source::WORLD),
        }
    }
}

pub(super) async fn run(
    handshake: &Handshake<'_>,
    plain: PlainStream,
    opening: Opening,
) -> Result<Established, ConnectionError> {
    let (id, source, suite) = match check(handshake, &opening).await {
        Ok(checked) => checked,
        Err(error) => {
            plain.refuse(&error).await;
            return Err(error);
        }
    };
    let (key, key_kind) = source.key();
    let (mut wire, keys) = answer(plain, &opening, &Proof::resume(key), key, suite, key_kind).await?;
    let resumed = async {
        let (request, confirm) = confirm(&mut wire).await?;
        if !handshake.slot.proved() {
            return Err(ConnectionError::Full);
        }
        let proved = match source {
            ResumeKeySource::Gateway { session, key } => {
                resume_local(handshake, &session, &key, &keys, &confirm)?
            }
            ResumeKeySource::World { found, key } => {
                resume_by_claim(handshake, id, *found, key, keys, confirm.received).await?
            }
        };
        Ok((request, proved))
    };
    match Box::pin(resumed).await {
        Ok((request, proved)) => ready(handshake, wire, request, proved).await,
        Err(error) => {
            wire.refuse(&error).await;
            Err(error)
        }
    }
}

async fn check(
    handshake: &Handshake<'_>,
    opening: &Opening,
) -> Result<(SessionId, ResumeKeySource, Suite), ConnectionError> {
    let resume: payload::Resume = decode(opening)?;
    let (numbers, suite) = suites(&resume.suites)?;
    let id = SessionId::try_from(&*resume.session_id).map_err(|_| ConnectionError::Ticket)?;
    let random: [u8; 32] = resume.random.try_into().map_err(|_| ConnectionError::Ticket)?;
    let claim = ResumeClaim { preface: &opening.preface, session: &id.0, random: &random, suites: &numbers };
    if let Some(session) = handshake.app.sessions().get(id) {
        let key = session.lock().proved_key(&claim, &resume.gateway_mac);
        if let Some(key) = key {
            return Ok((id, ResumeKeySource::Gateway { session, key }, suite));
        }
    }
    if !handshake.slot.may_resume(Instant::now()) {
        return Err(ConnectionError::Throttled);
    }
    let found = handshake.worlds.find(id).await?.ok_or(ConnectionError::Ticket)?;
    let key = found.keys.iter().find(|key| claim.proves(key, &resume.world_mac)).cloned();
    let key = key.ok_or(ConnectionError::Ticket)?;
    Ok((id, ResumeKeySource::World { found: Box::new(found), key }, suite))
}

fn resume_local(
    handshake: &Handshake<'_>,
    session: &Arc<Session>,
    used: &Key,
    keys: &SessionKeys,
    confirm: &Confirm,
) -> Result<ProvedSession, ConnectionError> {
    if !session.lock().resume_by_key(used, keys) {
        return Err(ConnectionError::Ticket);
    }
    let attached =
        handshake.app.reattach(session, handshake.address, confirm.received, SessionChange::Resumed);
    Ok(record_resume(attached.map_err(|_| ConnectionError::Ticket)?, true, "here"))
}

async fn resume_by_claim(
    handshake: &Handshake<'_>,
    id: SessionId,
    found: Found,
    used: Key,
    keys: SessionKeys,
    received: u64,
) -> Result<ProvedSession, ConnectionError> {
    let (app, worlds) = (handshake.app.clone(), handshake.worlds.clone());
    let claim = ClaimTask { app, worlds, address: handshake.address, id, found, used, keys, received };
    let ClaimOutcome { attached, continued, way } = run_to_completion(handshake.app, claim.run()).await?;
    Ok(record_resume(attached, continued, way))
}

fn record_resume(attached: AttachedSession, continued: bool, way: &'static str) -> ProvedSession {
    let session = attached.session();
    let (received, address) = {
        let mut state = session.lock();
        (state.acknowledge_input(), state.address())
    };
    counter!(RESUMES, "way" => way).increment(1);
    event!(
        "resume",
        account = session.account().0,
        session = %session.id(),
        world = session.world().0,
        address = %address,
        way,
    );
    ProvedSession { attached, received, continued }
}

//! Resume: a client comes back to its session. If the session is here, the gateway's key proves it. Otherwise a
//! world knows it by a key of its own: the session is claimed, and its state asked of the gateway that had it.

use std::{sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, which_key},
};
use shardkeep_cluster::link::SessionChange;
use shardkeep_daemon::event;
use shardkeep_types::SessionId;
use shardkeep_wire::{
    payload::{self, Confirm},
    seal::Suite,
};

use super::{
    claim::{Claimed, Claiming},
    handshake::{
        Door, Opening, Playing, Proved, answer, confirm, finished, payload as decode, ready, suites,
    },
    wire::Plain,
};
use crate::{
    backend::Found,
    core::Carried,
    error::DoorError,
    metrics::RESUMES,
    session::{Claim, Session},
};

/// How the client proved the session to be its own.
enum Basis {
    /// By the key of the gateway, which holds the session.
    Here { session: Arc<Session>, key: Key },
    /// By the key of its world.
    World { found: Box<Found>, key: Key },
}

impl Basis {
    fn key(&self) -> (&Key, u8) {
        match self {
            Self::Here { key, .. } => (key, which_key::GATEWAY),
            Self::World { key, .. } => (key, which_key::WORLD),
        }
    }
}

pub(super) async fn run(door: &Door<'_>, plain: Plain, opening: Opening) -> Result<Playing, DoorError> {
    let (id, basis, suite) = match check(door, &opening).await {
        Ok(checked) => checked,
        Err(error) => {
            plain.refuse(&error).await;
            return Err(error);
        }
    };
    let (key, which) = basis.key();
    let (mut wire, keys) = answer(plain, &opening, &Proof::resume(key), key, suite, which).await?;
    let resumed = async {
        let (request, confirm) = confirm(&mut wire).await?;
        if !door.place.crowd.proved() {
            return Err(DoorError::Full);
        }
        let proved = match basis {
            Basis::Here { session, key } => here(door, &session, &key, &keys, &confirm)?,
            Basis::World { found, key } => elsewhere(door, id, *found, key, keys, confirm.received).await?,
        };
        Ok((request, proved))
    };
    match Box::pin(resumed).await {
        Ok((request, proved)) => ready(door, wire, request, proved).await,
        Err(error) => {
            wire.refuse(&error).await;
            Err(error)
        }
    }
}

async fn check(door: &Door<'_>, opening: &Opening) -> Result<(SessionId, Basis, Suite), DoorError> {
    let resume: payload::Resume = decode(opening)?;
    let (numbers, suite) = suites(&resume.suites)?;
    let id = SessionId::try_from(&*resume.session_id).map_err(|_| DoorError::Ticket)?;
    let random: [u8; 32] = resume.random.try_into().map_err(|_| DoorError::Ticket)?;
    let claim = Claim { preface: &opening.preface, session: &id.0, random: &random, suites: &numbers };
    if let Some(session) = door.core.sessions.get(id) {
        let key = session.lock().keys.proved(&claim, &resume.gateway_mac);
        if let Some(key) = key {
            return Ok((id, Basis::Here { session, key }, suite));
        }
    }
    if !door.place.may_resume(Instant::now()) {
        return Err(DoorError::Throttled);
    }
    let found = door.worlds.find(id).await?.ok_or(DoorError::Ticket)?;
    let key = found.keys.iter().find(|key| claim.proves(key, &resume.world_mac)).cloned();
    let key = key.ok_or(DoorError::Ticket)?;
    Ok((id, Basis::World { found: Box::new(found), key }, suite))
}

fn here(
    door: &Door<'_>,
    session: &Arc<Session>,
    used: &Key,
    keys: &SessionKeys,
    confirm: &Confirm,
) -> Result<Proved, DoorError> {
    {
        let mut inner = session.lock();
        if inner.ended.is_some() || !inner.keys.replace(used, keys) {
            return Err(DoorError::Ticket);
        }
    }
    let back = door.core.arrive(session, door.address, confirm.received, SessionChange::Resumed);
    Ok(welcomed(back.map_err(|_| DoorError::Ticket)?, true, "here"))
}

async fn elsewhere(
    door: &Door<'_>,
    id: SessionId,
    found: Found,
    used: Key,
    keys: SessionKeys,
    received: u64,
) -> Result<Proved, DoorError> {
    let (core, worlds) = (door.core.clone(), door.worlds.clone());
    let claiming = Claiming { core, worlds, address: door.address, id, found, used, keys, received };
    let Claimed { carried, continued, way } = finished(claiming.run()).await?;
    Ok(welcomed(carried, continued, way))
}

fn welcomed(carried: Carried, continued: bool, way: &'static str) -> Proved {
    let Carried { session, .. } = &carried;
    let (received, address) = {
        let mut inner = session.lock();
        (inner.inbox.acknowledge(), inner.address())
    };
    counter!(RESUMES, "way" => way).increment(1);
    event!(
        "resume",
        account = session.account.0,
        session = %session.id,
        world = session.world.0,
        address = %address,
        way,
    );
    Proved { carried, received, continued }
}

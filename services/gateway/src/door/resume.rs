//! Resume: a client comes back to its session. If the session is here, the gateway's key proves it. Otherwise a
//! world knows it by a key of its own: the session is claimed, and its state asked of the gateway that had it.

use std::{sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, which_key},
};
use shardkeep_cluster::link::{ClientMessage, SessionChange};
use shardkeep_daemon::event;
use shardkeep_types::{BackendKind, Epoch, SessionId};
use shardkeep_wire::{
    payload::{self, Confirm},
    seal::Suite,
    session::Inbox,
};

use super::{
    handshake::{Door, Opening, Playing, Proved, answer, confirm, payload as decode, ready, suites},
    wire::Plain,
};
use crate::{
    backend::Found,
    core::Core,
    error::DoorError,
    metrics::RESUMES,
    moves::Moved,
    session::{Claim, Client, Ending, Identity, Outbox, ResumeKeys, Session},
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
            Basis::Here { session, key } => here(door, session, &key, &keys, &confirm)?,
            Basis::World { found, key } => elsewhere(door, id, *found, &key, &keys, &confirm).await?,
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
    session: Arc<Session>,
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
    welcome_back(door, session, confirm.received, SessionChange::Resumed)
}

async fn elsewhere(
    door: &Door<'_>,
    id: SessionId,
    found: Found,
    used: &Key,
    keys: &SessionKeys,
    confirm: &Confirm,
) -> Result<Proved, DoorError> {
    let core = door.core;
    let granted = door.worlds.claim(id, &found, used, &keys.world_resume).await?;
    // Another connection of the client's may be bringing it here at this moment.
    let _arrival = core.arrivals.begin(id).await;
    let epoch = granted.epoch;
    if let Some(session) = core.sessions.get(id) {
        let (present, moving) = {
            let inner = session.lock();
            (inner.epoch, inner.moving.is_some())
        };
        if present > epoch {
            return Err(DoorError::World("another resume of the session came between".into()));
        }
        // One that moves is asked for, below, where it goes to.
        if !moving && granted.may_be_at(&core.name, present) {
            // It was here all the time; only the gateway's key did not reach the client.
            {
                let mut inner = session.lock();
                inner.epoch = epoch;
                inner.keys = ResumeKeys::new(keys);
            }
            return welcome_back(door, session, confirm.received, SessionChange::Joined);
        }
        if !moving {
            core.end(&session, Ending::Moved);
        }
    }
    let moved = door.worlds.take_over(id, &granted, core.config.move_within).await;
    let (continued, way) = if moved.is_some() { (true, "moved") } else { (false, "claimed") };
    let mut moved = moved.unwrap_or_default();
    let groups = std::mem::take(&mut moved.groups);
    let client_has = if continued { confirm.received } else { 0 };
    let connection = core.next_connection();
    let client = Client::Here { connection, address: door.address };
    let (session, for_world) = take_in(core, id, &found, epoch, keys, moved, client);
    session.lock().out.attach(client_has).map_err(|_| DoorError::Ticket)?;
    core.hold(&session, &groups);
    core.enter_world(&session, &found.leader.id.name);
    core.deliver_to(id, &mut session.lock(), &found.leader.id.name, for_world);
    Ok(welcomed(door, session, connection, continued, way))
}

/// Makes the session anew from what its world and, if it answered, its gateway know. With it comes what its client said
/// to the world and the world has not heard.
fn take_in(
    core: &Arc<Core>,
    id: SessionId,
    found: &Found,
    epoch: Epoch,
    keys: &SessionKeys,
    moved: Moved,
    client: Client,
) -> (Arc<Session>, Vec<ClientMessage>) {
    let identity = Identity {
        id,
        account: found.account,
        account_name: found.account_name.clone(),
        generation: found.generation,
        world: found.leader.world,
    };
    let out = Outbox::restore(moved.sent_to_client, moved.unacknowledged);
    let inbox = Inbox::restore(moved.received_from_client);
    let session = Session::new(identity, epoch, ResumeKeys::new(keys), out, inbox, client);
    {
        let (mut inner, now) = (session.lock(), Instant::now());
        inner.deaf_to = moved.fenced;
        (inner.character, inner.queue_place) = (moved.character, moved.queue_place);
        moved.asked.into_iter().for_each(|(request, kind)| inner.asked_before(request, kind, now));
    }
    let known = found.bindings.iter().filter_map(|it| {
        let kind = u8::try_from(it.kind).ok().map(BackendKind)?;
        Some((kind, it.instance.clone(), Epoch(it.bind_epoch), Vec::new()))
    });
    let mut bindings: Vec<_> = known.chain(moved.bindings).collect();
    // The higher of two bindings to a kind is the later one; of the same, the one that knows what is held.
    bindings.sort_by_key(|(kind, _, epoch, _)| (*kind, *epoch));
    let mut for_world = Vec::new();
    for (kind, instance, epoch, held) in bindings {
        if kind == BackendKind::WORLD {
            for_world = held;
        } else {
            core.restore_binding(&session, kind, &instance, epoch, held);
        }
    }
    (session, for_world)
}

/// The client is back at the gateway that holds its session.
fn welcome_back(
    door: &Door<'_>,
    session: Arc<Session>,
    client_has: u64,
    change: SessionChange,
) -> Result<Proved, DoorError> {
    let connection = door.core.next_connection();
    let client = Client::Here { connection, address: door.address };
    door.core.arrive(&session, client, client_has, change).map_err(|_| DoorError::Ticket)?;
    Ok(welcomed(door, session, connection, true, "here"))
}

fn welcomed(
    door: &Door<'_>,
    session: Arc<Session>,
    connection: u64,
    continued: bool,
    way: &'static str,
) -> Proved {
    let received = session.lock().inbox.acknowledge();
    counter!(RESUMES, "way" => way).increment(1);
    event!(
        "resume",
        account = session.account.0,
        session = %session.id,
        world = session.world.0,
        address = %door.address,
        way,
    );
    Proved { session, connection, received, continued }
}

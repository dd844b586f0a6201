//! Attach: a ticket becomes a session. The ticket is used up by the first valid sealed record, not by the message
//! that names it, so a replayed `Attach` burns nothing.

use std::{sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, which_key},
};
use shardkeep_daemon::event;
use shardkeep_types::{Epoch, SessionId, TicketId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Attach, ErrorCode, Redirect},
    seal::Suite,
    session::Inbox,
};

use super::{
    handshake::{Door, Opening, Playing, Proved, answer, confirm, fill_random, payload, ready, suites},
    wire::{Plain, Sealed},
};
use crate::{
    backend::opening as opening_for_world,
    billing::unix_ms,
    core::Core,
    error::DoorError,
    metrics::SENT_ON,
    session::{Client, Ending, Identity, Outbox, ResumeKeys, Session},
    tickets::Ticket,
};

pub(super) async fn run(door: &Door<'_>, plain: Plain, opening: Opening) -> Result<Playing, DoorError> {
    let checked = match check(door, &opening) {
        Ok(checked) => checked,
        Err(error) => {
            plain.refuse(&error).await;
            return Err(error);
        }
    };
    let Checked { id, key, proof, suite } = checked;
    let (wire, keys) = answer(plain, &opening, &proof, &key, suite, which_key::TICKET).await?;
    drop((key, proof));
    confirmed(door, wire, id, &keys).await
}

/// What the client has proved.
struct Checked {
    id: TicketId,
    key: Key,
    proof: Proof,
    suite: Suite,
}

fn check(door: &Door<'_>, opening: &Opening) -> Result<Checked, DoorError> {
    let attach: Attach = payload(opening)?;
    let (numbers, suite) = suites(&attach.suites)?;
    let id = TicketId::try_from(&*attach.ticket_id).map_err(|_| DoorError::Ticket)?;
    let random: [u8; 32] = attach.random.try_into().map_err(|_| DoorError::Ticket)?;
    let key = door.core.tickets.lock().key(id, Instant::now()).ok_or(DoorError::Ticket)?;
    let proof = Proof::attach(&key);
    if !proof.client(&opening.preface, &id.0, &random, &numbers).matches(&attach.mac) {
        return Err(DoorError::Ticket);
    }
    if door.core.sessions.len() >= door.core.config.capacity {
        return Err(DoorError::Full);
    }
    Ok(Checked { id, key, proof, suite })
}

async fn confirmed(
    door: &Door<'_>,
    mut wire: Sealed,
    id: TicketId,
    keys: &SessionKeys,
) -> Result<Playing, DoorError> {
    let opened = async {
        let (request, _) = confirm(&mut wire).await?;
        if !door.place.crowd.proved() {
            return Err(DoorError::Full);
        }
        let ticket = door.core.tickets.lock().consume(id, Instant::now()).ok_or(DoorError::Ticket)?;
        let restore = ticket.clone();
        let connection = door.core.next_connection();
        let session = open(door, ticket, keys, connection).await.inspect_err(|error| {
            if matches!(error, DoorError::World(_)) {
                // Not the client's fault: it may try again with the same ticket.
                let _ = door.core.tickets.lock().admit(id, restore, Instant::now());
            }
        })?;
        Ok((request, Proved { session, connection, received: 0, continued: true }))
    };
    match opened.await {
        Ok((request, proved)) => ready(door, wire, request, proved).await,
        Err(error) => {
            wire.refuse(&error).await;
            Err(error)
        }
    }
}

/// The session begins: its world knows it, and it takes the place of the account's session before.
async fn open(
    door: &Door<'_>,
    ticket: Ticket,
    keys: &SessionKeys,
    connection: u64,
) -> Result<Arc<Session>, DoorError> {
    let core = door.core;
    let leader =
        door.worlds.leader(ticket.world).ok_or_else(|| DoorError::World("not led at the moment".into()))?;
    let identity = Identity {
        id: new_session_id()?,
        account: ticket.account,
        account_name: ticket.account_name,
        generation: ticket.generation,
        world: ticket.world,
    };
    let session = Session::new(
        identity,
        Epoch::default(),
        ResumeKeys::new(keys),
        Outbox::new(),
        Inbox::default(),
        Client::Here { connection, address: door.address },
    );
    let epoch = door.worlds.open(&leader, opening_for_world(&session)).await?;
    session.lock().epoch = epoch;
    for older in core.sessions.of_account(session.account) {
        core.end(&older, Ending::new(ErrorCode::Displaced, "logged in elsewhere"));
    }
    core.hold(&session, &[]);
    core.enter_world(&session, &leader.id.name);
    send_on(core, &session);
    event!(
        "attach",
        account = session.account.0,
        account_name = session.account_name,
        session = %session.id,
        world = session.world.0,
        address = %door.address,
    );
    Ok(session)
}

/// Another gateway has more room: the client goes there with its session, right after it is ready.
fn send_on(core: &Core, session: &Session) {
    if let Some(gateway) = core.balance.elsewhere() {
        counter!(SENT_ON).increment(1);
        let redirect = Redirect { gateway };
        session.lock().out.control(Message::event(opcode::REDIRECT, &redirect).to_bytes());
    }
}

/// 48 bits of the time of its beginning, then 80 random bits. The time lets any gateway that takes the session over
/// go on with its clock; nothing rests on the id being secret.
fn new_session_id() -> Result<SessionId, DoorError> {
    let mut id = [0; 16];
    fill_random(&mut id[6..])?;
    id[..6].copy_from_slice(&unix_ms().to_be_bytes()[2..]);
    Ok(SessionId(id))
}

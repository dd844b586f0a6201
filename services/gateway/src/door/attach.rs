//! Attach: a ticket becomes a session. The ticket is used up by the first valid sealed record, not by the message
//! that names it, so a replayed `Attach` burns nothing.

use std::{cmp::Ordering, net::IpAddr, sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, which_key},
};
use shardkeep_daemon::{event, unix_millis};
use shardkeep_types::{Epoch, SessionId, TicketId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Attach, ErrorCode, Redirect},
    seal::Suite,
    session::Inbox,
};

use super::{
    handshake::{
        Door, Opening, Playing, Proved, answer, confirm, fill_random, finished, payload, ready, suites,
    },
    wire::{Plain, Sealed},
};
use crate::{
    backend::{Worlds, opening as opening_for_world},
    core::{Carried, Core},
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
        let (core, worlds) = (door.core.clone(), door.worlds.clone());
        let attaching = Attaching { core, worlds, address: door.address, keys: ResumeKeys::new(keys) };
        let carried = finished(attaching.with(id)).await?;
        Ok((request, Proved { carried, received: 0, continued: true }))
    };
    match opened.await {
        Ok((request, proved)) => ready(door, wire, request, proved).await,
        Err(error) => {
            wire.refuse(&error).await;
            Err(error)
        }
    }
}

/// A client that has proved its ticket.
struct Attaching {
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    address: IpAddr,
    keys: ResumeKeys,
}

impl Attaching {
    /// Uses the ticket up, unless there is no session to be had for it.
    async fn with(self, id: TicketId) -> Result<Carried, DoorError> {
        let core = self.core.clone();
        let ticket = core.tickets.lock().take_up(id, Instant::now()).ok_or(DoorError::Ticket)?;
        let opened = self.open(ticket).await;
        let mut tickets = core.tickets.lock();
        match opened {
            Ok(carried) if tickets.use_up(id) => Ok(carried),
            Ok(carried) => {
                drop(tickets);
                core.end(&carried.session, Ending::new(ErrorCode::Displaced, "the ticket was revoked"));
                Err(DoorError::Displaced)
            }
            Err(error) => {
                match error {
                    // Not the client's fault: it may try again with the same ticket.
                    DoorError::World(_) => tickets.put_down(id),
                    _ => tickets.revoke(id),
                }
                Err(error)
            }
        }
    }

    /// The session begins: its world knows it, and it takes the place of the account's sessions before.
    async fn open(self, ticket: Ticket) -> Result<Carried, DoorError> {
        let Self { core, worlds, address, keys } = self;
        let leader =
            worlds.leader(ticket.world).ok_or_else(|| DoorError::World("not led at the moment".into()))?;
        let identity = Identity {
            id: new_session_id()?,
            account: ticket.account,
            account_name: ticket.account_name,
            generation: ticket.generation,
            world: ticket.world,
        };
        let connection = core.next_connection();
        let session = Session::new(
            identity,
            Epoch::default(),
            keys,
            Outbox::new(),
            Inbox::default(),
            Client::Here { connection, address },
        );
        let epoch = worlds.open(&leader, opening_for_world(&session)).await?;
        session.lock().epoch = epoch;
        let carried = Carried::new(core, session, connection);
        displace(&carried);
        let Carried { core, session, .. } = &carried;
        core.hold(session, &[]);
        // Once more: another may have begun at the same moment.
        displace(&carried);
        worlds.entered(core, session, &leader);
        send_on(core, session);
        event!(
            "attach",
            account = session.account.0,
            account_name = session.account_name,
            session = %session.id,
            world = session.world.0,
            address = %address,
        );
        Ok(carried)
    }
}

/// Of the account's sessions here only the youngest stays.
fn displace(Carried { core, session, connection }: &Carried) {
    let age = |other: &Session| (other.generation, other.lock().connection());
    for other in core.sessions.of_account(session.account) {
        let over = match age(&other).cmp(&(session.generation, *connection)) {
            Ordering::Less => &other,
            Ordering::Equal => continue,
            Ordering::Greater => session,
        };
        core.end(over, Ending::new(ErrorCode::Displaced, "logged in elsewhere"));
    }
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
    id[..6].copy_from_slice(&unix_millis().to_be_bytes()[2..]);
    Ok(SessionId(id))
}

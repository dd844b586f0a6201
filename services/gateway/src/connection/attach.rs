//! Attach: a ticket becomes a session. The ticket is used up by the first valid sealed record, not by the message
//! that names it, so a replayed `Attach` burns nothing.

use std::{cmp::Ordering, net::IpAddr, sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, key_source},
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
        Established, Handshake, Opening, ProvedSession, answer, confirm, fill_random, payload, ready,
        run_to_completion, suites,
    },
    wire::{PlainStream, SealedStream},
};
use crate::{
    backend::{Worlds, opening as opening_for_world},
    core::{AttachedSession, Core},
    error::ConnectionError,
    metrics::REDIRECTED_NEWCOMERS,
    session::{ClientState, Ending, Identity, Outbox, ResumeKeys, Session},
    tickets::Ticket,
};

pub(super) async fn run(
    handshake: &Handshake<'_>,
    plain: PlainStream,
    opening: Opening,
) -> Result<Established, ConnectionError> {
    let checked = match check(handshake, &opening) {
        Ok(checked) => checked,
        Err(error) => {
            plain.refuse(&error).await;
            return Err(error);
        }
    };
    let VerifiedTicket { id, key, proof, suite } = checked;
    let (wire, keys) = answer(plain, &opening, &proof, &key, suite, key_source::TICKET).await?;
    drop((key, proof));
    finish_attach(handshake, wire, id, &keys).await
}

/// What the client has proved.
struct VerifiedTicket {
    id: TicketId,
    key: Key,
    proof: Proof,
    suite: Suite,
}

fn check(handshake: &Handshake<'_>, opening: &Opening) -> Result<VerifiedTicket, ConnectionError> {
    let attach: Attach = payload(opening)?;
    let (numbers, suite) = suites(&attach.suites)?;
    let id = TicketId::try_from(&*attach.ticket_id).map_err(|_| ConnectionError::Ticket)?;
    let random: [u8; 32] = attach.random.try_into().map_err(|_| ConnectionError::Ticket)?;
    let key = handshake.core.tickets.lock().key(id, Instant::now()).ok_or(ConnectionError::Ticket)?;
    let proof = Proof::attach(&key);
    if !proof.client(&opening.preface, &id.0, &random, &numbers).matches(&attach.mac) {
        return Err(ConnectionError::Ticket);
    }
    if handshake.core.sessions.len() >= handshake.core.config.capacity {
        return Err(ConnectionError::Full);
    }
    Ok(VerifiedTicket { id, key, proof, suite })
}

async fn finish_attach(
    handshake: &Handshake<'_>,
    mut wire: SealedStream,
    id: TicketId,
    keys: &SessionKeys,
) -> Result<Established, ConnectionError> {
    let opened = async {
        let (request, _) = confirm(&mut wire).await?;
        if !handshake.slot.limiter.proved() {
            return Err(ConnectionError::Full);
        }
        let (core, worlds) = (handshake.core.clone(), handshake.worlds.clone());
        let pending = PendingAttach { core, worlds, address: handshake.address, keys: ResumeKeys::new(keys) };
        let attached = run_to_completion(handshake.core, pending.redeem(id)).await?;
        Ok((request, ProvedSession { attached, received: 0, continued: true }))
    };
    match opened.await {
        Ok((request, proved)) => ready(handshake, wire, request, proved).await,
        Err(error) => {
            wire.refuse(&error).await;
            Err(error)
        }
    }
}

/// A client that has proved its ticket.
struct PendingAttach {
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    address: IpAddr,
    keys: ResumeKeys,
}

impl PendingAttach {
    /// Uses the ticket up, unless there is no session to be had for it.
    async fn redeem(self, id: TicketId) -> Result<AttachedSession, ConnectionError> {
        let core = self.core.clone();
        let ticket = core.tickets.lock().reserve(id, Instant::now()).ok_or(ConnectionError::Ticket)?;
        let opened = self.open_session(ticket).await;
        let mut tickets = core.tickets.lock();
        match opened {
            Ok(attached) if tickets.consume(id) => Ok(attached),
            Ok(attached) => {
                drop(tickets);
                core.end(&attached.session, Ending::new(ErrorCode::Displaced, "the ticket was revoked"));
                Err(ConnectionError::Displaced)
            }
            Err(error) => {
                match error {
                    // Not the client's fault: it may try again with the same ticket.
                    ConnectionError::World(_) => tickets.release(id),
                    _ => tickets.revoke(id),
                }
                Err(error)
            }
        }
    }

    /// The session begins: its world knows it, and it takes the place of the account's sessions before.
    async fn open_session(self, ticket: Ticket) -> Result<AttachedSession, ConnectionError> {
        let Self { core, worlds, address, keys } = self;
        let leader = worlds
            .leader(ticket.world)
            .ok_or_else(|| ConnectionError::World("not led at the moment".into()))?;
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
            ClientState::Connected { connection, address },
        );
        let epoch = worlds.open_session(&leader, opening_for_world(&session)).await?;
        session.lock().epoch = epoch;
        let attached = AttachedSession::new(core, session, connection);
        keep_newest_session(&attached);
        let AttachedSession { core, session, .. } = &attached;
        core.register_session(session, &[]);
        // Once more: another may have begun at the same moment.
        keep_newest_session(&attached);
        worlds.session_opened(core, session, &leader);
        redirect_if_crowded(core, session);
        event!(
            "attach",
            account = session.account.0,
            account_name = session.account_name,
            session = %session.id,
            world = session.world.0,
            address = %address,
        );
        Ok(attached)
    }
}

/// Of the account's sessions here only the youngest stays.
fn keep_newest_session(AttachedSession { core, session, connection }: &AttachedSession) {
    let age = |other: &Session| (other.generation, other.lock().connection());
    for other in core.sessions.of_account(session.account) {
        let displaced = match age(&other).cmp(&(session.generation, *connection)) {
            Ordering::Less => &other,
            Ordering::Equal => continue,
            Ordering::Greater => session,
        };
        core.end(displaced, Ending::new(ErrorCode::Displaced, "logged in elsewhere"));
    }
}

/// Another gateway has more room: the client goes there with its session, right after it is ready.
fn redirect_if_crowded(core: &Core, session: &Session) {
    if let Some(gateway) = core.balance.target() {
        counter!(REDIRECTED_NEWCOMERS).increment(1);
        let redirect = Redirect { gateway };
        session.lock().out.control(Message::event(opcode::REDIRECT, &redirect).to_bytes());
    }
}

/// 48 bits of the time of its beginning, then 80 random bits. The time lets any gateway that takes the session over
/// go on with its clock; nothing rests on the id being secret.
fn new_session_id() -> Result<SessionId, ConnectionError> {
    let mut id = [0; 16];
    fill_random(&mut id[6..])?;
    id[..6].copy_from_slice(&unix_millis().to_be_bytes()[2..]);
    Ok(SessionId(id))
}

//! Attach: a ticket becomes a session. The first valid sealed record uses the ticket up, not `Attach` itself, so a replayed
//! `Attach` cannot use it up.

use std::{cmp::Ordering, net::IpAddr, sync::Arc, time::Instant};

use metrics::counter;
use shardkeep_auth::{
    Key,
    session::{Proof, SessionKeys, key_source},
};
use shardkeep_daemon::{event, unix_millis};
use shardkeep_types::{SessionId, TicketId};
use shardkeep_wire::{
    Message, opcode,
    payload::{Attach, ErrorCode},
    seal::Suite,
};

use super::{
    handshake::{
        Established, Handshake, Opening, ProvedSession, answer, confirm, fill_random, payload, ready,
        run_to_completion, suites,
    },
    wire::{PlainStream, SealedStream},
};
use crate::{
    app::{App, AttachedSession},
    domain::{
        session::{Ending, Identity, ResumeKeys, Session},
        tickets::Ticket,
    },
    edge::worlds::{Worlds, opening as opening_for_world},
    error::ConnectionError,
    metrics::REDIRECTED_NEWCOMERS,
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

/// A ticket whose key the client has proved to know.
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
    let key = handshake.app.tickets().key(id, Instant::now()).ok_or(ConnectionError::Ticket)?;
    let proof = Proof::attach(&key);
    if !proof.client(&opening.preface, &id.0, &random, &numbers).matches(&attach.mac) {
        return Err(ConnectionError::Ticket);
    }
    if handshake.app.sessions().len() >= handshake.app.config().capacity {
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
        if !handshake.slot.proved() {
            return Err(ConnectionError::Full);
        }
        let (app, worlds) = (handshake.app.clone(), handshake.worlds.clone());
        let pending = PendingAttach { app, worlds, address: handshake.address, keys: ResumeKeys::new(keys) };
        let attached = run_to_completion(handshake.app, pending.redeem(id)).await?;
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
    app: Arc<App>,
    worlds: Arc<Worlds>,
    address: IpAddr,
    keys: ResumeKeys,
}

impl PendingAttach {
    /// Uses the ticket up, unless the world cannot open a session now.
    async fn redeem(self, id: TicketId) -> Result<AttachedSession, ConnectionError> {
        let app = self.app.clone();
        let ticket = app.tickets().reserve(id, Instant::now()).ok_or(ConnectionError::Ticket)?;
        let opened = self.open_session(ticket).await;
        let mut tickets = app.tickets();
        match opened {
            Ok(attached) if tickets.consume(id) => Ok(attached),
            Ok(attached) => {
                drop(tickets);
                app.end(attached.session(), Ending::new(ErrorCode::Displaced, "the ticket was revoked"));
                Err(ConnectionError::Displaced)
            }
            Err(error) => {
                match error {
                    // The client may try again with the same ticket.
                    ConnectionError::World(_) => tickets.release(id),
                    _ => tickets.revoke(id),
                }
                Err(error)
            }
        }
    }

    /// Opens the session at its world; earlier sessions of the account end.
    async fn open_session(self, ticket: Ticket) -> Result<AttachedSession, ConnectionError> {
        let Self { app, worlds, address, keys } = self;
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
        let connection = app.next_connection();
        let session = Session::begin(identity, keys, connection, address);
        let epoch = worlds.open_session(&leader, opening_for_world(&session)).await?;
        session.lock().opened(epoch);
        let attached = AttachedSession::new(app, session, connection);
        keep_newest_session(&attached);
        let (app, session) = (attached.app(), attached.session());
        app.register_session(session, &[]);
        // Once more: another session of the account may have begun at the same moment.
        keep_newest_session(&attached);
        worlds.session_opened(app, session, &leader);
        redirect_if_crowded(app, session);
        event!(
            "attach",
            account = session.account().0,
            account_name = session.account_name(),
            session = %session.id(),
            world = session.world().0,
            address = %address,
        );
        Ok(attached)
    }
}

/// Ends all sessions of the account here but the youngest.
fn keep_newest_session(attached: &AttachedSession) {
    let (app, session) = (attached.app(), attached.session());
    let age = |other: &Session| (other.generation(), other.lock().connection());
    for other in app.sessions().of_account(session.account()) {
        let displaced = match age(&other).cmp(&(session.generation(), attached.connection())) {
            Ordering::Less => &other,
            Ordering::Equal => continue,
            Ordering::Greater => session,
        };
        app.end(displaced, Ending::new(ErrorCode::Displaced, "logged in elsewhere"));
    }
}

/// Redirects the client to a gateway with more room, if this one is crowded.
fn redirect_if_crowded(app: &App, session: &Session) {
    if let Some(redirect) = app.balance().target() {
        counter!(REDIRECTED_NEWCOMERS).increment(1);
        session.lock().control(Message::event(opcode::REDIRECT, &redirect).to_bytes());
    }
}

/// 48 bits of the present time, then 80 random bits. With the time in the id, a gateway that takes the session over can
/// continue its clock. The id need not be secret.
fn new_session_id() -> Result<SessionId, ConnectionError> {
    let mut id = [0; 16];
    fill_random(&mut id[6..])?;
    id[..6].copy_from_slice(&unix_millis().to_be_bytes()[2..]);
    Ok(SessionId(id))
}

//! The conversation after the welcome: the world list and its changes, selections, and requests about the account,
//! until the client has a gateway and leaves.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_auth::ticket::TicketChain;
use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_store::Database;
use shardkeep_wire::{
    Message, opcode,
    payload::{Ping, SelectWorld},
};
use tokio::time::sleep_until;
use tracing::debug;

use crate::{
    accounts::{own_account::OwnAccount, session::LoginSession},
    door::drain::Drain,
    error::LoginError,
    logon::entry::Entered,
    metrics,
    replies::{End, decode, end_with, refuse, reply},
    worlds::{
        details::AccountDetails,
        list::{self, Viewer, Worlds},
        tickets::{TicketOffers, TicketOffice},
    },
};

/// Protocol section 12.
const PING_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Section 7: how often the characters are counted of an account that has selected a world.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(5);

pub(crate) struct WorldBrowser {
    worlds: Worlds,
    lifetime: Duration,
    database: Database,
    details: Arc<AccountDetails>,
    tickets: TicketOffice,
    own_account: OwnAccount,
}

/// One client at the world list.
struct Visit {
    session: LoginSession,
    viewer: Viewer,
    offers: TicketOffers,
    worlds: Worlds,
}

impl WorldBrowser {
    pub(crate) fn new(
        worlds: Worlds,
        lifetime: Duration,
        database: Database,
        details: Arc<AccountDetails>,
        tickets: TicketOffice,
        own_account: OwnAccount,
    ) -> Self {
        Self { worlds, lifetime, database, details, tickets, own_account }
    }

    /// Pushes the world list and answers requests until the connection ends, which is always an error.
    pub(crate) async fn serve(
        &self,
        connection: &mut Connection,
        entered: Entered,
        chain: TicketChain,
        drain: &Drain,
    ) -> Result<Infallible, End> {
        let Entered { session, viewer, .. } = entered;
        let mut visit =
            Visit { session, viewer, offers: TicketOffers::new(chain), worlds: self.worlds.clone() };
        visit.push_world_list(connection)?;
        let end = Instant::now() + self.lifetime;
        let mut last_recount = Instant::now();
        let drained = drain.expired();
        tokio::pin!(drained);
        loop {
            while let Some(message) = connection.next(Instant::now())? {
                self.answer(connection, &mut visit, &message).await?;
            }
            connection.flush().await?;
            let now = Instant::now();
            if now >= connection.last_received() + IDLE_TIMEOUT {
                return Err(ConnectionError::Timeout("send anything").into());
            }
            if now >= end {
                return Err(ConnectionError::Timeout("select a world").into());
            }
            if now >= connection.last_sent() + PING_INTERVAL {
                connection.send(&Message::event(opcode::PING, &Ping { value: 0 })).await?;
            }
            let recounts = visit.offers.has_selected_world();
            if recounts && now >= last_recount + RECOUNT_INTERVAL {
                last_recount = now;
                if self.recount_characters(&mut visit).await {
                    visit.push_world_list(connection)?;
                    continue;
                }
            }
            let mut wake = end
                .min(connection.last_sent() + PING_INTERVAL)
                .min(connection.last_received() + IDLE_TIMEOUT);
            if recounts {
                wake = wake.min(last_recount + RECOUNT_INTERVAL);
            }
            tokio::select! {
                filled = connection.fill() => filled?,
                changed = visit.worlds.changed() => {
                    changed.map_err(|_| LoginError::Internal("the task of the world list ended"))?;
                    visit.push_world_list(connection)?;
                }
                () = visit.session.superseded() => return Err(self.end_reason(&mut visit).await?.into()),
                () = sleep_until(wake.into()) => {}
                () = &mut drained => return Err(LoginError::Draining.into()),
            }
        }
    }

    async fn answer(
        &self,
        connection: &mut Connection,
        visit: &mut Visit,
        message: &Message,
    ) -> Result<(), End> {
        match self.reply(visit, message).await {
            Ok(reply) => connection.queue(&reply)?,
            Err(LoginError::Displaced | LoginError::Banned { .. }) => {
                let reason = self.end_reason(visit).await.map_err(end_with(message))?;
                debug!(account = %visit.session.id(), error = %reason, "the session ended");
                return Err(end_with(message)(reason));
            }
            Err(error @ LoginError::Connection(_)) => return Err(error.into()),
            Err(error) => {
                debug!(account = %visit.session.id(), %error, "a request was refused");
                refuse(connection, message, &error)?;
            }
        }
        Ok(())
    }

    async fn reply(&self, visit: &mut Visit, message: &Message) -> Result<Message, LoginError> {
        if message.opcode != opcode::SELECT_WORLD {
            return Box::pin(self.own_account.answer(&mut visit.session, message)).await;
        }
        let SelectWorld { world_id, .. } = decode(message)?;
        let list = visit.worlds.borrow().clone();
        let Visit { session, viewer, offers, .. } = visit;
        reply(message, &self.tickets.select(offers, session, viewer, &list, world_id).await?)
    }

    /// Revokes the ticket of a session that is no longer the last one, and says why it is not.
    async fn end_reason(&self, visit: &mut Visit) -> Result<LoginError, LoginError> {
        self.tickets.revoke_offered(&mut visit.offers).await;
        visit.session.end_reason(&self.database).await
    }

    /// Counts the account's characters again; true if their number changed.
    async fn recount_characters(&self, visit: &mut Visit) -> bool {
        let Some(characters) = self.details.recount_characters(visit.session.id()).await else {
            return false;
        };
        let changed = characters != visit.viewer.characters;
        visit.viewer.characters = characters;
        changed
    }
}

impl Visit {
    fn push_world_list(&mut self, connection: &mut Connection) -> Result<(), LoginError> {
        let list = self.worlds.borrow_and_update().clone();
        metrics::world_list_pushed();
        let list = list::list_for(&list, &self.viewer);
        Ok(connection.queue(&Message::event(opcode::WORLD_LIST, &list))?)
    }
}

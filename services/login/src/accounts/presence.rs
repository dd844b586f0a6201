//! Whether an account is logged in already, if the settings refuse a second login. Three things count, all of the account's
//! current generation: an open connection to any login replica, as a lease in the store that expires if the replica dies;
//! a ticket that waits at a gateway; and a session with a connected client. A session without its client does not count,
//! and a gateway that does not answer is ignored, so that a crash locks no player out.

use std::{sync::Arc, time::Duration};

use shardkeep_daemon::Daemon;
use shardkeep_rpc::gateway::ListSessionsReply;
use shardkeep_store::{
    Database,
    accounts::{AccountGeneration, leases},
};
use shardkeep_types::Generation;
use tokio::sync::watch;
use tracing::debug;

use crate::{error::LoginError, worlds::gateways::Gateways};

/// Renewals per lease.
const RENEWALS: u32 = 3;
/// When to try again after a session was found.
const RETRY_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Presence {
    database: Database,
    gateways: Arc<Gateways>,
    daemon: Daemon,
    /// How long the lease of a login lasts; `None`: a second login displaces the first.
    lease: Option<Duration>,
}

impl Presence {
    pub(crate) fn new(
        database: Database,
        gateways: Arc<Gateways>,
        daemon: Daemon,
        lease: Option<Duration>,
    ) -> Self {
        Self { database, gateways, daemon, lease }
    }

    /// When to try again, if the account is logged in under this generation and a second login is refused.
    pub(crate) async fn conflict(&self, current: AccountGeneration) -> Result<Option<Duration>, LoginError> {
        if self.lease.is_none() {
            return Ok(None);
        }
        if let Some(left) = leases::remaining(&self.database, current).await? {
            return Ok(Some(left));
        }
        let found = self.gateways.sessions_of(current.id).await;
        let playing = |reply: &ListSessionsReply| {
            let mut sessions = reply.sessions.iter().filter(|session| !session.link_dead);
            sessions.any(|session| session.generation >= current.generation.0)
                || reply.tickets.iter().any(|generation| *generation >= current.generation.0)
        };
        Ok(found.answers.iter().any(|(_, reply)| playing(reply)).then_some(RETRY_AFTER))
    }

    /// Renews the lease that a login has taken, until the result is dropped.
    pub(crate) fn hold_lease(&self, holder: AccountGeneration) -> Option<Lease> {
        let ttl = self.lease?;
        let (sender, generation) = watch::channel(holder.generation);
        // One task for each connection.
        self.daemon.spawn_work("presence lease", renew_lease(self.database.clone(), holder, ttl, generation));
        Some(Lease(sender))
    }
}

/// A connection's lease.
#[derive(Debug)]
pub(crate) struct Lease(watch::Sender<Generation>);

impl Lease {
    /// The connection continues under this generation.
    pub(crate) fn move_to(&self, generation: Generation) {
        self.0.send_replace(generation);
    }
}

async fn renew_lease(
    database: Database,
    mut holder: AccountGeneration,
    ttl: Duration,
    mut generation: watch::Receiver<Generation>,
) {
    loop {
        let done = tokio::select! {
            changed = generation.changed() => match changed {
                Ok(()) => {
                    holder.generation = *generation.borrow_and_update();
                    leases::move_to(&database, holder, ttl).await
                }
                Err(_) => break,
            },
            () = tokio::time::sleep(ttl / RENEWALS) => match leases::renew(&database, holder, ttl).await {
                // Another login or a revocation took it; the connection is told by its generation watcher.
                Ok(false) => return,
                renewed => renewed.map(drop),
            },
        };
        if let Err(error) = done {
            debug!(account = %holder.id, %error, "cannot renew a login lease");
        }
    }
    if let Err(error) = leases::release(&database, holder).await {
        debug!(account = %holder.id, %error, "cannot release a login lease; it expires");
    }
}

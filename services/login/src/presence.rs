//! Whether somebody is logged in to an account already, where the settings say that a second one is refused. Three
//! things count, all of the account's present generation: an open connection to any login replica, by a lease in the
//! store that ends by itself if the replica dies; a ticket that waits at a gateway; and a session whose client is
//! there. A session that has lost its client is no obstacle, and neither is a gateway that does not answer: nobody is
//! locked out by what has crashed.

use std::time::Duration;

use shardkeep_daemon::Daemon;
use shardkeep_store::{
    Database,
    accounts::{AccountGeneration, leases},
};
use shardkeep_types::Generation;
use tokio::sync::watch;
use tracing::debug;

use crate::{LoginError, context::LoginContext};

/// Renewals per lease.
const RENEWALS: u32 = 3;
/// When to look again after a session was found: players log out when they like.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// When to try again, if somebody is logged in under this generation.
pub(crate) async fn login_conflict(
    context: &LoginContext,
    current: AccountGeneration,
) -> Result<Option<Duration>, LoginError> {
    if let Some(left) = leases::remaining(&context.database, current).await? {
        return Ok(Some(left));
    }
    let found = context.gateways.sessions_of(current.id).await;
    let playing = |reply: &shardkeep_rpc::gateway::ListSessionsReply| {
        let mut sessions = reply.sessions.iter().filter(|session| !session.link_dead);
        sessions.any(|session| session.generation >= current.generation.0)
            || reply.tickets.iter().any(|generation| *generation >= current.generation.0)
    };
    Ok(found.answers.iter().any(|(_, reply)| playing(reply)).then_some(RETRY_AFTER))
}

/// Keeps a connection's lease until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(watch::Sender<Generation>);

impl Lease {
    /// The lease itself was taken with the login.
    pub(crate) fn hold(
        daemon: &Daemon,
        database: Database,
        holder: AccountGeneration,
        ttl: Duration,
    ) -> Self {
        let (sender, generation) = watch::channel(holder.generation);
        // One task per connection.
        daemon.spawn_work("presence lease", renew_lease(database, holder, ttl, generation));
        Self(sender)
    }

    /// The connection goes on under this generation.
    pub(crate) fn move_to(&self, generation: Generation) {
        self.0.send_replace(generation);
    }
}

async fn renew_lease(
    database: Database,
    holder: AccountGeneration,
    ttl: Duration,
    mut generation: watch::Receiver<Generation>,
) {
    let mut holder = holder;
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
                // Another login or a revocation: the connection will hear of it.
                Ok(false) => return,
                renewed => renewed.map(drop),
            },
        };
        if let Err(error) = done {
            debug!(account = %holder.id, %error, "a lease was not renewed");
        }
    }
    if let Err(error) = leases::release(&database, holder).await {
        debug!(account = %holder.id, %error, "a lease was not given back; it runs out");
    }
}

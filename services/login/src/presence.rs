//! Whether somebody is logged in to an account already, where the settings say that a second one is refused. Three
//! things count, all of the account's present generation: an open connection to any login replica, by a lease in the
//! store that ends by itself if the replica dies; a ticket that waits at a gateway; and a session whose client is
//! there. A session that has lost its client is no obstacle, and neither is a gateway that does not answer: nobody is
//! locked out by what has crashed.

use std::time::Duration;

use shardkeep_daemon::Daemon;
use shardkeep_store::{
    Database,
    accounts::{Raised, leases},
};
use shardkeep_types::Generation;
use tokio::sync::watch;
use tracing::debug;

use crate::{LoginError, door::Door};

/// Renewals per lease.
const RENEWALS: u32 = 3;
/// When to look again after a session was found: players log out when they like.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// When to try again, if somebody is logged in under this generation.
pub(crate) async fn occupied(door: &Door, present: Raised) -> Result<Option<Duration>, LoginError> {
    if let Some(left) = leases::remaining(&door.database, present).await? {
        return Ok(Some(left));
    }
    let found = door.gateways.sessions_of(present.id).await;
    let playing = |reply: &shardkeep_rpc::gateway::ListSessionsReply| {
        let mut sessions = reply.sessions.iter().filter(|session| !session.link_dead);
        sessions.any(|session| session.generation >= present.generation.0)
            || reply.tickets.iter().any(|generation| *generation >= present.generation.0)
    };
    Ok(found.answers.iter().any(|(_, reply)| playing(reply)).then_some(LOOK_AGAIN))
}

/// Keeps a connection's lease until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(watch::Sender<Generation>);

impl Lease {
    /// The lease itself was taken with the login.
    pub(crate) fn hold(daemon: &Daemon, database: Database, of: Raised, lasts: Duration) -> Self {
        let (sender, generation) = watch::channel(of.generation);
        // One task per connection.
        daemon.tasks().spawn(keep(database, of, lasts, generation));
        Self(sender)
    }

    /// The connection goes on under this generation.
    pub(crate) fn pass_on(&self, generation: Generation) {
        self.0.send_replace(generation);
    }
}

async fn keep(database: Database, of: Raised, lasts: Duration, mut generation: watch::Receiver<Generation>) {
    let mut of = of;
    loop {
        let done = tokio::select! {
            changed = generation.changed() => match changed {
                Ok(()) => {
                    of.generation = *generation.borrow_and_update();
                    leases::pass_on(&database, of, lasts).await
                }
                Err(_) => break,
            },
            () = tokio::time::sleep(lasts / RENEWALS) => match leases::renew(&database, of, lasts).await {
                // Another login or a revocation: the connection will hear of it.
                Ok(false) => return,
                renewed => renewed.map(drop),
            },
        };
        if let Err(error) = done {
            debug!(account = %of.id, %error, "a lease was not renewed");
        }
    }
    if let Err(error) = leases::release(&database, of).await {
        debug!(account = %of.id, %error, "a lease was not given back; it runs out");
    }
}

//! The accept loop: who gets a place, for whom a balancer connects, and how a connection ends.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_connection::Connection;
use shardkeep_daemon::{Daemon, Full, Slot};
use shardkeep_lanes::{IncomingConnection, Lane, Listener, Upgrade};
use shardkeep_wire::{Message, Side, proxy::ProxyError, record::Writer};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{
    LoginError,
    context::LoginContext,
    error::Fault,
    lifecycle::{Drain, End, PREFACE_TIMEOUT, serve_connection},
    metrics,
};

/// After the accept itself fails, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Part of the grace time that players have to select a world when the daemon drains.
const DRAIN_DIVISOR: u32 = 2;

/// Accepts players until the daemon drains, and then lets those who are here finish.
pub(crate) async fn serve(listener: Listener, context: Arc<LoginContext>, daemon: &Daemon, grace: Duration) {
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    let players = TaskTracker::new();
    let upgrade = listener.upgrade();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let incoming = match accepted {
            Ok(incoming) => incoming,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        metrics::retries(listener.retries());
        // Whom a balancer connects for is learnt in the task; all others are known, and refused, here.
        let peer = incoming.peer().ip();
        let proxied = incoming.lane() == Lane::Tcp && context.config.trusted_balancers.contains(peer);
        let slot = if proxied {
            context.connection_limiter.enter(peer)
        } else {
            context.connection_limiter.admit(peer)
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(full) => {
                refuse(incoming, full);
                continue;
            }
        };
        let (context, stopped, upgrade) = (context.clone(), stopped.clone(), upgrade.clone());
        let drain = Drain { started: draining.clone(), time_limit: grace / DRAIN_DIVISOR };
        players.spawn(async move {
            let (evicted, connection_slot) =
                (slot.evicted(), ConnectionSlot { slot, count: ConnectionCount::new() });
            let serving = async {
                if proxied {
                    Box::pin(serve_proxied(incoming, connection_slot, &context, drain, upgrade.as_deref()))
                        .await;
                } else {
                    Box::pin(serve_player(incoming, connection_slot, &context, drain, upgrade.as_deref()))
                        .await;
                }
            };
            tokio::select! {
                () = serving => {}
                // Closed without a word: another takes the place.
                () = evicted => metrics::refused("displaced"),
                () = stopped.cancelled() => {}
            }
        });
    }
    drop(listener);
    players.close();
    players.wait().await;
}

/// A connection from a trusted balancer: the client behind it is who counts.
async fn serve_proxied(
    mut incoming: IncomingConnection,
    ConnectionSlot { slot, count }: ConnectionSlot,
    context: &LoginContext,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let balancer = incoming.peer();
    let proxy_header = timeout(PREFACE_TIMEOUT, incoming.read_proxy_header()).await;
    let proxy_header: Result<(), LoginError> =
        proxy_header.unwrap_or_else(|_| Err(ProxyError::Timeout.into()));
    if let Err(error) = proxy_header {
        metrics::ended(error.label(), error.fault().as_str());
        // A balancer's health check may well connect and go.
        return debug!(%balancer, %error, "no client behind the balancer");
    }
    match context.connection_limiter.claim(slot, incoming.peer().ip()) {
        Ok(slot) => {
            Box::pin(serve_player(incoming, ConnectionSlot { slot, count }, context, drain, upgrade)).await
        }
        Err(full) => refuse(incoming, full),
    }
}

/// Tells the client to come back, if that takes no waiting.
fn refuse(incoming: IncomingConnection, full: Full) {
    let bound = match full {
        Full::All => "connections",
        Full::Origin => "connections_per_address",
    };
    metrics::refused(bound);
    if let Some(answer) = LoginError::Busy(bound).answer() {
        let message = Message::error_event(&answer);
        let mut out = BytesMut::new();
        let mut writer = Writer::begin(&mut out, Side::Server);
        if writer.push(&message).is_ok() {
            writer.plain();
            incoming.refuse(&out);
        }
    }
}

/// A connection's place, counted.
pub(crate) struct ConnectionSlot {
    slot: Slot,
    count: ConnectionCount,
}

impl ConnectionSlot {
    /// The player has logged in, and keeps the place. One that is lost meanwhile ends the connection by itself.
    pub(crate) fn mark_authenticated(&self) {
        self.slot.proved();
    }
}

/// Counts a connection while it has a place.
struct ConnectionCount;

impl ConnectionCount {
    fn new() -> Self {
        metrics::connections(1.0);
        Self
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        metrics::connections(-1.0);
    }
}

async fn serve_player(
    incoming: IncomingConnection,
    connection_slot: ConnectionSlot,
    context: &LoginContext,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let peer = incoming.peer();
    let opened = timeout(PREFACE_TIMEOUT, incoming.open()).await;
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        // Of QUIC: it did not get as far as a connection.
        Err(error) => {
            metrics::ended("lane", Fault::Client.as_str());
            return debug!(%peer, %error, "no connection");
        }
    };
    // Kept until the socket is closed, which takes a while where the client does not listen.
    let mut connection_slot = Some(connection_slot);
    let mut connection = Connection::new(stream, peer, Instant::now(), metrics::violation);
    let Err(End { error, request }) =
        serve_connection(&mut connection, context, &drain, &mut connection_slot, upgrade).await;
    let (label, fault) = (error.label(), error.fault());
    metrics::ended(label, fault.as_str());
    match fault {
        Fault::Us => tracing::error!(%peer, %error, "connection ended"),
        Fault::Peer => warn!(%peer, %error, "connection ended"),
        Fault::Client | Fault::NoFault => debug!(%peer, %error, "connection ended"),
    }
    connection.close(error.answer().as_ref(), request).await;
}

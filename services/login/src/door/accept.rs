//! The accept loop: which connections get a slot, which client a balancer connects for, and how a connection ends.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_connection::{Connection, Fault};
use shardkeep_daemon::{ConnectionLimiter, Daemon, Full, Networks, accept, contained};
use shardkeep_lanes::{IncomingConnection, Lane, Listener, Upgrade};
use shardkeep_wire::{Message, Side, proxy::ProxyError, record::Writer};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{
    app::{App, PREFACE_TIMEOUT},
    door::{drain::Drain, slot::ConnectionSlot},
    error::LoginError,
    metrics,
    replies::End,
};

/// Part of the grace time that players have to select a world when the daemon drains.
const DRAIN_DIVISOR: u32 = 2;

/// The listener and the bounds on its connections.
pub(crate) struct Door {
    listener: Listener,
    limiter: ConnectionLimiter,
    trusted_balancers: Networks,
}

impl Door {
    pub(crate) fn new(listener: Listener, limiter: ConnectionLimiter, trusted_balancers: Networks) -> Self {
        Self { listener, limiter, trusted_balancers }
    }

    /// Accepts players until the daemon drains, then waits for the open connections to end.
    pub(crate) async fn serve(self, app: Arc<App>, daemon: &Daemon, grace: Duration) {
        let (draining, stopped) = (daemon.draining(), daemon.stopped());
        let players = TaskTracker::new();
        let upgrade = self.listener.upgrade();
        while let Some(incoming) = draining.run_until_cancelled(accept(|| self.listener.accept())).await {
            metrics::retries(self.listener.retries());
            // The client behind a balancer is known only after the PROXY header. `serve_proxied` then counts the slot
            // for the client.
            let peer = incoming.peer().ip();
            let proxied = incoming.lane() == Lane::Tcp && self.trusted_balancers.contains(peer);
            let slot = if proxied { self.limiter.enter(peer) } else { self.limiter.admit(peer) };
            let slot = match slot {
                Ok(slot) => slot,
                Err(full) => {
                    refuse(incoming, full);
                    continue;
                }
            };
            let (app, stopped, upgrade, limiter) =
                (app.clone(), stopped.clone(), upgrade.clone(), self.limiter.clone());
            let drain = Drain::new(draining.clone(), grace / DRAIN_DIVISOR);
            let connection = async move {
                let (evicted, slot) = (slot.evicted(), ConnectionSlot::new(slot));
                let serving = async {
                    let upgrade = upgrade.as_deref();
                    if proxied {
                        Box::pin(serve_proxied(incoming, slot, &limiter, &app, drain, upgrade)).await;
                    } else {
                        Box::pin(serve_player(incoming, slot, &app, drain, upgrade)).await;
                    }
                };
                tokio::select! {
                    () = serving => {}
                    // The connection closes without a last message, because a newcomer waits for the slot.
                    () = evicted => metrics::refused("displaced"),
                    () = stopped.cancelled() => {}
                }
            };
            // The store's transactions keep accounts consistent; everything else belongs to the connection.
            players.spawn(contained("player connection", connection));
        }
        drop(self.listener);
        players.close();
        players.wait().await;
    }
}

/// Serves a connection from a trusted balancer. Its slot counts for the client behind the balancer.
async fn serve_proxied(
    mut incoming: IncomingConnection,
    slot: ConnectionSlot,
    limiter: &ConnectionLimiter,
    app: &App,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let balancer = incoming.peer();
    let proxy_header = timeout(PREFACE_TIMEOUT, incoming.read_proxy_header()).await;
    let proxy_header: Result<(), LoginError> =
        proxy_header.unwrap_or_else(|_| Err(ProxyError::Timeout.into()));
    if let Err(error) = proxy_header {
        metrics::ended(error.label(), error.fault().as_str());
        // Health checks of balancers connect and disconnect.
        return debug!(%balancer, %error, "no client behind the balancer");
    }
    match slot.claim(limiter, incoming.peer().ip()) {
        Ok(slot) => Box::pin(serve_player(incoming, slot, app, drain, upgrade)).await,
        Err(full) => refuse(incoming, full),
    }
}

/// Tells the client to try again later, if this message can be sent without waiting.
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

async fn serve_player(
    incoming: IncomingConnection,
    slot: ConnectionSlot,
    app: &App,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let peer = incoming.peer();
    let opened = timeout(PREFACE_TIMEOUT, incoming.open()).await;
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        // A QUIC client did not finish its handshake.
        Err(error) => {
            metrics::ended("lane", Fault::Client.as_str());
            return debug!(%peer, %error, "no connection");
        }
    };
    // The slot stays in use until the socket is closed, which takes a while if the client does not read.
    let mut slot = Some(slot);
    let mut connection = Connection::new(stream, peer, Instant::now(), metrics::violation);
    let Err(End { error, request }) = app.serve(&mut connection, &drain, &mut slot, upgrade).await;
    let (label, fault) = (error.label(), error.fault());
    metrics::ended(label, fault.as_str());
    match fault {
        Fault::Us => tracing::error!(%peer, %error, "connection ended"),
        Fault::Peer => warn!(%peer, %error, "connection ended"),
        Fault::Client | Fault::NoFault => debug!(%peer, %error, "connection ended"),
    }
    connection.close(error.answer().as_ref(), request).await;
}

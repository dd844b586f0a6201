//! The accept loop: who gets a place, for whom a balancer connects, and how a connection ends.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use shardkeep_daemon::{Daemon, Full, Place};
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
use shardkeep_wire::{Message, Side, proxy::ProxyError, record::Writer};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{
    LoginError,
    connection::Connection,
    conversation::{Drain, End, PREFACE_WITHIN, converse},
    door::Door,
    error::Fault,
    metrics,
};

/// After the accept itself fails, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Part of the grace time that players have to select a world when the daemon drains.
const DRAIN_SHARE: u32 = 2;

/// Accepts players until the daemon drains, and then lets those who are here finish.
pub(crate) async fn serve(listener: Listener, door: Arc<Door>, daemon: &Daemon, grace: Duration) {
    let (draining, stopped) = (daemon.draining(), daemon.stopped());
    let players = TaskTracker::new();
    let upgrade = listener.upgrade();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        let arrival = match accepted {
            Ok(arrival) => arrival,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        metrics::retries(listener.retries());
        // Whom a balancer connects for is learnt in the task; all others are known, and refused, here.
        let peer = arrival.peer().ip();
        let proxied = arrival.lane() == Lane::Tcp && door.config.trusted_balancers.contains(peer);
        let place = if proxied { door.crowd.enter(peer) } else { door.crowd.admit(peer) };
        let place = match place {
            Ok(place) => place,
            Err(full) => {
                refuse(arrival, full);
                continue;
            }
        };
        let (door, stopped, upgrade) = (door.clone(), stopped.clone(), upgrade.clone());
        let drain = Drain { begun: draining.clone(), lasts: grace / DRAIN_SHARE };
        players.spawn(async move {
            let (lost, held) = (place.lost(), Held { place, counted: Counted::new() });
            let visit = async {
                if proxied {
                    Box::pin(behind_balancer(arrival, held, &door, drain, upgrade.as_deref())).await;
                } else {
                    Box::pin(player(arrival, held, &door, drain, upgrade.as_deref())).await;
                }
            };
            tokio::select! {
                () = visit => {}
                // Closed without a word: another takes the place.
                () = lost => metrics::refused("displaced"),
                () = stopped.cancelled() => {}
            }
        });
    }
    drop(listener);
    players.close();
    players.wait().await;
}

/// A connection from a trusted balancer: the client behind it is who counts.
async fn behind_balancer(
    mut arrival: Arrival,
    Held { place, counted }: Held,
    door: &Door,
    drain: Drain,
    upgrade: Option<&Upgrade>,
) {
    let balancer = arrival.peer();
    let revealed = timeout(PREFACE_WITHIN, arrival.reveal()).await;
    let revealed: Result<(), LoginError> = revealed.unwrap_or_else(|_| Err(ProxyError::Late.into()));
    if let Err(error) = revealed {
        metrics::ended(error.label(), error.fault().as_str());
        // A balancer's health check may well connect and go.
        return debug!(%balancer, %error, "no client behind the balancer");
    }
    match door.crowd.claim(place, arrival.peer().ip()) {
        Ok(place) => Box::pin(player(arrival, Held { place, counted }, door, drain, upgrade)).await,
        Err(full) => refuse(arrival, full),
    }
}

/// Tells the client to come back, if that takes no waiting.
fn refuse(arrival: Arrival, full: Full) {
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
            arrival.refuse(&out);
        }
    }
}

/// A connection's place, counted.
pub(crate) struct Held {
    place: Place,
    counted: Counted,
}

impl Held {
    /// The player has logged in, and keeps the place. One that is lost meanwhile ends the connection by itself.
    pub(crate) fn keep(&self) {
        self.place.proved();
    }
}

/// Counts a connection while it has a place.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::connections(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::connections(-1.0);
    }
}

async fn player(arrival: Arrival, held: Held, door: &Door, drain: Drain, upgrade: Option<&Upgrade>) {
    let peer = arrival.peer();
    let opened = timeout(PREFACE_WITHIN, arrival.open()).await;
    let stream = match opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => stream,
        // Of QUIC: it did not get as far as a connection.
        Err(error) => {
            metrics::ended("lane", Fault::Client.as_str());
            return debug!(%peer, %error, "no connection");
        }
    };
    // Kept until the socket is closed, which takes a while where the client does not listen.
    let mut held = Some(held);
    let mut connection = Connection::new(stream, peer, Instant::now());
    let Err(End { error, request }) = converse(&mut connection, door, &drain, &mut held, upgrade).await;
    let (label, fault) = (error.label(), error.fault());
    metrics::ended(label, fault.as_str());
    match fault {
        Fault::Us => tracing::error!(%peer, %error, "connection ended"),
        Fault::Peer => warn!(%peer, %error, "connection ended"),
        Fault::Client | Fault::Nobody => debug!(%peer, %error, "connection ended"),
    }
    connection.close(error.answer().as_ref(), request).await;
}

//! The accept loop: bounds on connections in all and per address, one task per connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics::counter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    handshake::{self, Playing},
    play::play,
    throttle::{Place, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    metrics::{HOT, TURNED_AWAY},
};

/// Pause after the system refuses a connection (out of files), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the gateway drains; the connections themselves go on until `stop`.
pub(crate) async fn run(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(core.config.max_connections));
    let throttle = Throttle::default();
    loop {
        let accepted = tokio::select! {
            () = core.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        HOT.accepted.increment(1);
        let Ok(permit) = places.clone().try_acquire_owned() else {
            counter!(TURNED_AWAY, "reason" => "full").increment(1);
            continue;
        };
        let Some(place) = throttle.enter(address.ip(), core.config.max_connections_per_address) else {
            counter!(TURNED_AWAY, "reason" => "address").increment(1);
            continue;
        };
        let connection = Connection::new(permit, place);
        let (core, worlds, stop) = (core.clone(), worlds.clone(), stop.clone());
        tasks.spawn(serve(core, worlds, stop, stream, address, connection));
    }
}

async fn serve(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    stream: TcpStream,
    address: SocketAddr,
    connection: Connection,
) {
    // Apart and only as long as it lasts: the handshake needs many times the memory of what follows.
    let handshake = Box::pin(async {
        tokio::select! {
            () = stop.cancelled_owned() => None,
            playing = shake(&core, &worlds, stream, address, &connection) => playing,
        }
    });
    if let Some(playing) = handshake.await {
        play(core, playing).await;
    }
}

/// Holds a connection's places, and counts it, while it lives.
struct Connection {
    _permit: OwnedSemaphorePermit,
    place: Place,
}

impl Connection {
    fn new(permit: OwnedSemaphorePermit, place: Place) -> Self {
        HOT.connections.increment(1.0);
        Self { _permit: permit, place }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        HOT.connections.decrement(1.0);
    }
}

async fn shake(
    core: &Arc<Core>,
    worlds: &Worlds,
    stream: TcpStream,
    address: SocketAddr,
    connection: &Connection,
) -> Option<Playing> {
    let playing = handshake::run(core, worlds, stream, address.ip(), &connection.place).await;
    if playing.is_none() {
        debug!(%address, "no session");
    }
    playing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that such a function returns.
    fn size<F>(
        _: fn(Arc<Core>, Arc<Worlds>, CancellationToken, TcpStream, SocketAddr, Connection) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_carries_a_session_is_small() {
        assert!(size(serve) <= 2_560, "{} bytes", size(serve));
        assert!(size_of::<crate::session::Session>() <= 1_024, "{}", size_of::<crate::session::Session>());
    }
}

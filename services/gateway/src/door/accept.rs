//! The accept loop of all lanes: bounds on connections in all and per address, one task per connection.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    handshake,
    play::play,
    throttle::{Place, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    metrics::{ACCEPTED, CONNECTIONS, RETRIES, TURNED_AWAY},
};

/// Pause after the system refuses a connection (out of files), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the gateway drains; the connections themselves go on until `stop`.
pub(crate) async fn run(
    core: Arc<Core>,
    worlds: Worlds,
    listener: Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(core.config.max_connections));
    let throttle = Throttle::default();
    let upgrade = listener.upgrade();
    loop {
        let accepted = tokio::select! {
            () = core.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let arrival = match accepted {
            Ok(arrival) => arrival,
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        counter!(ACCEPTED, "lane" => arrival.lane().as_str()).increment(1);
        if arrival.lane() == Lane::Quic {
            counter!(RETRIES).absolute(listener.retries());
        }
        let Ok(permit) = places.clone().try_acquire_owned() else {
            counter!(TURNED_AWAY, "reason" => "full").increment(1);
            continue;
        };
        let Some(place) = throttle.enter(arrival.peer().ip(), core.config.max_connections_per_address) else {
            counter!(TURNED_AWAY, "reason" => "address").increment(1);
            continue;
        };
        let connection = Connection::new(permit, place);
        let (core, worlds, stop) = (core.clone(), worlds.clone(), stop.clone());
        let upgrade = upgrade.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve(core, worlds, arrival, &connection, upgrade.as_deref()) => {}
            }
        });
    }
}

/// Holds a connection's places, and counts it, while it lives.
struct Connection {
    _permit: OwnedSemaphorePermit,
    place: Place,
}

impl Connection {
    fn new(permit: OwnedSemaphorePermit, place: Place) -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self { _permit: permit, place }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

async fn serve(
    core: Arc<Core>,
    worlds: Worlds,
    arrival: Arrival,
    connection: &Connection,
    upgrade: Option<&Upgrade>,
) {
    let address = arrival.peer();
    match handshake::run(&core, &worlds, arrival, &connection.place, upgrade).await {
        Some(playing) => Box::pin(play(core, playing)).await,
        None => debug!(%address, "no session"),
    }
}

//! The accept loop of all lanes: bounds on connections in all and per address, one task per connection.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
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
    let throttle = Throttle::new(core.config.max_connections, core.config.max_connections_per_address);
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
        let place = match throttle.enter(arrival.peer().ip()) {
            Ok(place) => place,
            Err(reason) => {
                counter!(TURNED_AWAY, "reason" => reason).increment(1);
                continue;
            }
        };
        let connection = Connection::new(place);
        let (core, worlds, stop) = (core.clone(), worlds.clone(), stop.clone());
        let upgrade = upgrade.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                // Closed without a word: others wait for the place.
                () = connection.0.crowd.lost() => counter!(TURNED_AWAY, "reason" => "crowded_out").increment(1),
                () = serve(core, worlds, arrival, &connection, upgrade.as_deref()) => {}
            }
        });
    }
}

/// Holds a connection's place, and counts it, while it lives.
struct Connection(Place);

impl Connection {
    fn new(place: Place) -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self(place)
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
    match handshake::run(&core, &worlds, arrival, &connection.0, upgrade).await {
        Some(playing) => Box::pin(play(core, playing)).await,
        None => debug!(%address, "no session"),
    }
}

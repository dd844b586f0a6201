//! The accept loop of all lanes: bounds on connections in all and per address, one task per connection.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use shardkeep_daemon as daemon;
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
use shardkeep_wire::proxy::ProxyError;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    handshake::{self, PREFACE_WITHIN, Playing},
    play::play,
    throttle::{Place, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    error::DoorError,
    metrics::{ACCEPTED, FAULTS, HOT, RETRIES, TURNED_AWAY},
};

/// Pause after the system refuses a connection (out of files), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the gateway drains; the connections themselves go on until `stop`.
pub(crate) async fn run(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    listener: Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let throttle =
        Arc::new(Throttle::new(core.config.max_connections, core.config.max_connections_per_address));
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
        match arrival.lane() {
            Lane::Tcp => HOT.accepted.increment(1),
            lane => {
                counter!(ACCEPTED, "lane" => lane.as_str()).increment(1);
                counter!(RETRIES).absolute(listener.retries());
            }
        }
        let Some(entry) = enter(&core, &throttle, &arrival) else { continue };
        let (core, worlds, stop) = (core.clone(), worlds.clone(), stop.clone());
        let (throttle, upgrade) = (throttle.clone(), upgrade.clone());
        tasks.spawn(visit(core, worlds, stop, arrival, entry, throttle, upgrade));
    }
}

/// A connection's place, as far as it is known for whom it counts.
enum Entry {
    Client(Place),
    /// For whom the balancer connects is learnt in the task.
    Balancer(daemon::Place),
}

fn enter(core: &Core, throttle: &Throttle, arrival: &Arrival) -> Option<Entry> {
    let address = arrival.peer().ip();
    let entry = if arrival.lane() == Lane::Tcp && core.config.trusted_balancers.contains(address) {
        throttle.enter_behind_balancer(address).map(Entry::Balancer)
    } else {
        throttle.enter(address).map(Entry::Client)
    };
    counted(entry)
}

fn counted<T>(entry: Result<T, &'static str>) -> Option<T> {
    entry.inspect_err(|reason| counter!(TURNED_AWAY, "reason" => *reason).increment(1)).ok()
}

/// The whole life of a connection. What the future holds while it carries a session is only what that needs.
fn visit(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    arrival: Arrival,
    entry: Entry,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> impl Future<Output = ()> + Send {
    // Apart and only as long as it lasts: the handshake needs many times the memory of what follows.
    let handshake = Box::pin(open(core, worlds, stop, arrival, entry, throttle, upgrade));
    async move {
        if let Some((playing, _connection)) = handshake.await {
            play(playing).await;
        }
    }
}

async fn open(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    mut arrival: Arrival,
    entry: Entry,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> Option<(Box<Playing>, Connection)> {
    let lost = match &entry {
        Entry::Client(place) => place.crowd.lost(),
        Entry::Balancer(place) => place.lost(),
    };
    let shake = async {
        let place = match entry {
            Entry::Client(place) => place,
            Entry::Balancer(place) => client_behind(&mut arrival, place, &throttle).await?,
        };
        let connection = Connection::new(place);
        let address = arrival.peer();
        let playing = handshake::run(&core, &worlds, arrival, &connection.0, upgrade.as_deref()).await;
        if playing.is_none() {
            debug!(%address, "no session");
        }
        Some((Box::new(playing?), connection))
    };
    tokio::select! {
        () = stop.cancelled_owned() => None,
        // Closed without a word: others wait for the place.
        () = lost => {
            counter!(TURNED_AWAY, "reason" => "crowded_out").increment(1);
            None
        }
        playing = shake => playing,
    }
}

/// The place of the client for whom a balancer connects.
async fn client_behind(arrival: &mut Arrival, place: daemon::Place, throttle: &Throttle) -> Option<Place> {
    let balancer = arrival.peer();
    let revealed = timeout(PREFACE_WITHIN, arrival.reveal()).await;
    let revealed: Result<(), DoorError> = revealed.unwrap_or_else(|_| Err(ProxyError::Late.into()));
    if let Err(error) = revealed {
        counter!(FAULTS, "label" => error.label()).increment(1);
        // A balancer's health check may well connect and go.
        debug!(%balancer, %error, "no client behind the balancer");
        return None;
    }
    counted(throttle.claim(place, arrival.peer().ip()))
}

/// Holds a connection's place, and counts it, while it lives.
struct Connection(Place);

impl Connection {
    fn new(place: Place) -> Self {
        HOT.connections.increment(1.0);
        Self(place)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        HOT.connections.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that a function returns.
    fn size<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_carries_a_session_is_small() {
        let size = size(play);
        assert!(size <= 512, "{size} bytes");
        assert!(size_of::<crate::session::Session>() <= 1_024, "{}", size_of::<crate::session::Session>());
    }
}

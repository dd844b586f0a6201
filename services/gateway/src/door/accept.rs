//! The accept loop of all lanes: bounds on connections in all and per address, one task per connection.

use std::{sync::Arc, time::Duration};

use metrics::{counter, gauge};
use shardkeep_lanes::{Arrival, Lane, Listener, Upgrade};
use shardkeep_wire::proxy::ProxyError;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    crowd,
    handshake::{self, PREFACE_WITHIN},
    play::play,
    throttle::{Place, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    error::DoorError,
    metrics::{ACCEPTED, CONNECTIONS, FAULTS, RETRIES, TURNED_AWAY},
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
        counter!(ACCEPTED, "lane" => arrival.lane().as_str()).increment(1);
        if arrival.lane() == Lane::Quic {
            counter!(RETRIES).absolute(listener.retries());
        }
        let Some(entry) = enter(&core, &throttle, &arrival) else { continue };
        let (core, worlds, stop, throttle) = (core.clone(), worlds.clone(), stop.clone(), throttle.clone());
        let upgrade = upgrade.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = visit(core, worlds, arrival, entry, throttle, upgrade) => {}
            }
        });
    }
}

/// A connection's place, as far as it is known for whom it counts.
enum Entry {
    Client(Place),
    /// For whom the balancer connects is learnt in the task.
    Balancer(crowd::Place),
}

fn enter(core: &Core, throttle: &Throttle, arrival: &Arrival) -> Option<Entry> {
    let address = arrival.peer().ip();
    let entry = if arrival.lane() == Lane::Tcp && core.config.trusted_balancers.contains(address) {
        throttle.enter_behind_balancer().map(Entry::Balancer)
    } else {
        throttle.enter(address).map(Entry::Client)
    };
    counted(entry)
}

fn counted<T>(entry: Result<T, &'static str>) -> Option<T> {
    entry.inspect_err(|reason| counter!(TURNED_AWAY, "reason" => *reason).increment(1)).ok()
}

async fn visit(
    core: Arc<Core>,
    worlds: Worlds,
    mut arrival: Arrival,
    entry: Entry,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) {
    let lost = match &entry {
        Entry::Client(place) => place.crowd.lost(),
        Entry::Balancer(place) => place.lost(),
    };
    let visit = async {
        let place = match entry {
            Entry::Client(place) => Some(place),
            Entry::Balancer(place) => Box::pin(client_behind(&mut arrival, place, &throttle)).await,
        };
        drop(throttle);
        if let Some(place) = place {
            let connection = Connection::new(place);
            serve(core, worlds, arrival, &connection, upgrade.as_deref()).await;
        }
    };
    tokio::select! {
        // Closed without a word: others wait for the place.
        () = lost => counter!(TURNED_AWAY, "reason" => "crowded_out").increment(1),
        () = visit => {}
    }
}

/// The place of the client for whom a balancer connects.
async fn client_behind(arrival: &mut Arrival, place: crowd::Place, throttle: &Throttle) -> Option<Place> {
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

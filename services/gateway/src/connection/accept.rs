//! The accept loop of all lanes: bounds on connections in all and per address, one task per connection.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use shardkeep_daemon as daemon;
use shardkeep_lanes::{IncomingConnection, Lane, Listener, Upgrade};
use shardkeep_wire::proxy::ProxyError;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    handshake::{self, Established, PREFACE_WITHIN},
    serve::serve,
    throttle::{Slot, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    error::ConnectionError,
    metrics::{ACCEPTED, FAULTS, HOT, REJECTED_CONNECTIONS, RETRIES},
};

/// Pause after the system refuses a connection (out of files), so that the loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

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
        let incoming = match accepted {
            Ok(incoming) => incoming,
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        match incoming.lane() {
            Lane::Tcp => HOT.accepted.increment(1),
            lane => {
                counter!(ACCEPTED, "lane" => lane.as_str()).increment(1);
                counter!(RETRIES).absolute(listener.retries());
            }
        }
        let Some(admission) = enter(&core, &throttle, &incoming) else { continue };
        let (daemon, core, worlds, stop) = (core.daemon.clone(), core.clone(), worlds.clone(), stop.clone());
        let (throttle, upgrade) = (throttle.clone(), upgrade.clone());
        let connection = handle_connection(core, worlds, stop, incoming, admission, throttle, upgrade);
        // A connection changes sessions and groups that others share, so a panic must not leave them half-changed.
        tasks.spawn(daemon.supervised("player connection", connection));
    }
}

/// A connection's place, as far as it is known for whom it counts.
enum Admission {
    Client(Slot),
    /// For whom the balancer connects is learnt in the task.
    Balancer(daemon::Slot),
}

fn enter(core: &Core, throttle: &Throttle, incoming: &IncomingConnection) -> Option<Admission> {
    let address = incoming.peer().ip();
    let admission = if incoming.lane() == Lane::Tcp && core.config.trusted_balancers.contains(address) {
        throttle.enter_behind_balancer(address).map(Admission::Balancer)
    } else {
        throttle.enter(address).map(Admission::Client)
    };
    count_rejection(admission)
}

fn count_rejection<T>(admission: Result<T, &'static str>) -> Option<T> {
    admission.inspect_err(|reason| counter!(REJECTED_CONNECTIONS, "reason" => *reason).increment(1)).ok()
}

/// The whole life of a connection. What the future holds while it carries a session is only what that needs.
fn handle_connection(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    incoming: IncomingConnection,
    admission: Admission,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> impl Future<Output = ()> + Send {
    // Apart and only as long as it lasts: the handshake needs many times the memory of what follows.
    let handshake = Box::pin(establish(core, worlds, stop, incoming, admission, throttle, upgrade));
    async move {
        if let Some((established, _connection)) = handshake.await {
            serve(established).await;
        }
    }
}

async fn establish(
    core: Arc<Core>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    mut incoming: IncomingConnection,
    admission: Admission,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> Option<(Box<Established>, ConnectionGuard)> {
    let evicted = match &admission {
        Admission::Client(slot) => slot.limiter.evicted(),
        Admission::Balancer(slot) => slot.evicted(),
    };
    let handshake = async {
        let slot = match admission {
            Admission::Client(slot) => slot,
            Admission::Balancer(slot) => identify_balanced_client(&mut incoming, slot, &throttle).await?,
        };
        let connection = ConnectionGuard::new(slot);
        let address = incoming.peer();
        let established = handshake::run(&core, &worlds, incoming, &connection.0, upgrade.as_deref()).await;
        if established.is_none() {
            debug!(%address, "no session");
        }
        Some((Box::new(established?), connection))
    };
    tokio::select! {
        () = stop.cancelled_owned() => None,
        // Closed without a word: others wait for the place.
        () = evicted => {
            counter!(REJECTED_CONNECTIONS, "reason" => "evicted").increment(1);
            None
        }
        established = handshake => established,
    }
}

/// The place of the client for whom a balancer connects.
async fn identify_balanced_client(
    incoming: &mut IncomingConnection,
    slot: daemon::Slot,
    throttle: &Throttle,
) -> Option<Slot> {
    let balancer = incoming.peer();
    let header = timeout(PREFACE_WITHIN, incoming.read_proxy_header()).await;
    let header: Result<(), ConnectionError> = header.unwrap_or_else(|_| Err(ProxyError::Timeout.into()));
    if let Err(error) = header {
        counter!(FAULTS, "label" => error.label()).increment(1);
        // A balancer's health check may well connect and go.
        debug!(%balancer, %error, "no client behind the balancer");
        return None;
    }
    count_rejection(throttle.claim(slot, incoming.peer().ip()))
}

/// Holds a connection's place, and counts it, while it lives.
struct ConnectionGuard(Slot);

impl ConnectionGuard {
    fn new(slot: Slot) -> Self {
        HOT.connections.increment(1.0);
        Self(slot)
    }
}

impl Drop for ConnectionGuard {
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
    fn serve_future_and_session_stay_small() {
        let size = size(serve);
        assert!(size <= 512, "{size} bytes");
        assert!(size_of::<crate::session::Session>() <= 1_024, "{}", size_of::<crate::session::Session>());
    }
}

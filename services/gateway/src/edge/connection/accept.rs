//! Accepts connections on all lanes, bounds them in all and per address, and runs one task for each.

use std::sync::Arc;

use metrics::counter;
use shardkeep_daemon as daemon;
use shardkeep_lanes::{IncomingConnection, Lane, Listener, Upgrade};
use shardkeep_wire::proxy::ProxyError;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    handshake::{Established, PREFACE_WITHIN},
    open,
    serve::serve,
    throttle::{Slot, Throttle},
};
use crate::{
    app::App,
    edge::worlds::Worlds,
    error::ConnectionError,
    metrics::{ACCEPTED, FAULTS, HOT, REJECTED_CONNECTIONS, RETRIES},
};

/// Accepts connections until the gateway drains. Open connections stay until `stop`.
pub(crate) async fn run(
    app: Arc<App>,
    worlds: Arc<Worlds>,
    listener: Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let throttle =
        Arc::new(Throttle::new(app.config().max_connections, app.config().max_connections_per_address));
    let upgrade = listener.upgrade();
    let draining = app.draining();
    let accepting = || daemon::accept(|| listener.accept());
    while let Some(incoming) = draining.run_until_cancelled(accepting()).await {
        match incoming.lane() {
            Lane::Tcp => HOT.accepted.increment(1),
            lane => {
                counter!(ACCEPTED, "lane" => lane.as_str()).increment(1);
                counter!(RETRIES).absolute(listener.retries());
            }
        }
        let Some(admission) = enter(&app, &throttle, &incoming) else { continue };
        let (app, worlds, stop) = (app.clone(), worlds.clone(), stop.clone());
        let (throttle, upgrade) = (throttle.clone(), upgrade.clone());
        let daemon = app.daemon().clone();
        let connection = handle_connection(app, worlds, stop, incoming, admission, throttle, upgrade);
        // A connection changes sessions and groups that others share, so a panic must not leave them half-changed.
        tasks.spawn(daemon.supervised("player connection", connection));
    }
}

/// A connection's slot. Behind a balancer, the client's address is not known yet.
enum Admission {
    Client(Slot),
    /// The task reads the client's address from the PROXY header.
    Balancer(daemon::Slot),
}

fn enter(app: &App, throttle: &Throttle, incoming: &IncomingConnection) -> Option<Admission> {
    let address = incoming.peer().ip();
    let admission = if incoming.lane() == Lane::Tcp && app.config().trusted_balancers.contains(address) {
        throttle.enter_behind_balancer(address).map(Admission::Balancer)
    } else {
        throttle.enter(address).map(Admission::Client)
    };
    count_rejection(admission)
}

fn count_rejection<T>(admission: Result<T, &'static str>) -> Option<T> {
    admission.inspect_err(|reason| counter!(REJECTED_CONNECTIONS, "reason" => *reason).increment(1)).ok()
}

/// The whole life of a connection.
fn handle_connection(
    app: Arc<App>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    incoming: IncomingConnection,
    admission: Admission,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> impl Future<Output = ()> + Send {
    // Boxed, because the handshake needs many times the memory of the session loop that follows.
    let handshake = Box::pin(establish(app, worlds, stop, incoming, admission, throttle, upgrade));
    async move {
        if let Some((established, _connection)) = handshake.await {
            serve(established).await;
        }
    }
}

async fn establish(
    app: Arc<App>,
    worlds: Arc<Worlds>,
    stop: CancellationToken,
    mut incoming: IncomingConnection,
    admission: Admission,
    throttle: Arc<Throttle>,
    upgrade: Option<Arc<Upgrade>>,
) -> Option<(Box<Established>, ConnectionGuard)> {
    let evicted = match &admission {
        Admission::Client(slot) => slot.limiter().evicted(),
        Admission::Balancer(slot) => slot.evicted(),
    };
    let handshake = async {
        let slot = match admission {
            Admission::Client(slot) => slot,
            Admission::Balancer(slot) => identify_balanced_client(&mut incoming, slot, &throttle).await?,
        };
        let connection = ConnectionGuard::new(slot);
        let address = incoming.peer();
        let established = open::run(&app, &worlds, incoming, &connection.0, upgrade.as_deref()).await;
        if established.is_none() {
            debug!(%address, "no session");
        }
        Some((Box::new(established?), connection))
    };
    tokio::select! {
        () = stop.cancelled_owned() => None,
        // Closed without an answer: newer connections need the slot.
        () = evicted => {
            counter!(REJECTED_CONNECTIONS, "reason" => "evicted").increment(1);
            None
        }
        established = handshake => established,
    }
}

/// The slot of the client behind a balancer.
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

/// Holds a connection's slot and counts the connection.
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
        assert!(
            size_of::<crate::domain::session::Session>() <= 1_024,
            "{}",
            size_of::<crate::domain::session::Session>()
        );
    }
}

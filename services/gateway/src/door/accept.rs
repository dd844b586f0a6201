//! The accept loop: bounds on connections in all and per address, one task per connection.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use shardkeep_wire::proxy::{self, ProxyError};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    handshake::{self, PREFACE_WITHIN},
    play::play,
    throttle::{Place, Throttle},
};
use crate::{
    backend::Worlds,
    core::Core,
    error::DoorError,
    metrics::{ACCEPTED, CONNECTIONS, FAULTS, TURNED_AWAY},
};

/// Pause after the system refuses a connection (out of files), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the gateway drains; the connections themselves go on until `stop`.
pub(crate) async fn run(
    core: Arc<Core>,
    worlds: Worlds,
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
        counter!(ACCEPTED).increment(1);
        let Ok(permit) = places.clone().try_acquire_owned() else {
            counter!(TURNED_AWAY, "reason" => "full").increment(1);
            continue;
        };
        // Whom a balancer connects for is learnt in the task; all others are known here.
        let place = if core.config.trusted_balancers.contains(address.ip()) {
            None
        } else {
            match enter(&core, &throttle, address) {
                Some(place) => Some(place),
                None => continue,
            }
        };
        let (core, worlds, stop, throttle) = (core.clone(), worlds.clone(), stop.clone(), throttle.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = visit(core, worlds, stream, address, permit, place, throttle) => {}
            }
        });
    }
}

fn enter(core: &Core, throttle: &Throttle, address: SocketAddr) -> Option<Place> {
    let place = throttle.enter(address.ip(), core.config.max_connections_per_address);
    if place.is_none() {
        counter!(TURNED_AWAY, "reason" => "address").increment(1);
    }
    place
}

/// One connection. Without a place it comes from a trusted balancer, and counts for the client behind it.
async fn visit(
    core: Arc<Core>,
    worlds: Worlds,
    mut stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
    place: Option<Place>,
    throttle: Throttle,
) {
    let known = match place {
        Some(place) => Some((address, place)),
        None => match Box::pin(client_behind(&mut stream, address)).await {
            Ok(client) => enter(&core, &throttle, client).map(|place| (client, place)),
            Err(error) => {
                counter!(FAULTS, "label" => error.label()).increment(1);
                debug!(balancer = %address, %error, "no client behind the balancer");
                None
            }
        },
    };
    drop(throttle);
    if let Some((address, place)) = known {
        let connection = Connection::new(permit, place);
        serve(core, worlds, stream, address, &connection).await;
    }
}

/// Whom the balancer connects for: itself, when it only looks whether somebody is here.
async fn client_behind(stream: &mut TcpStream, balancer: SocketAddr) -> Result<SocketAddr, DoorError> {
    let header = async {
        let mut fixed = [0; proxy::FIXED];
        let (signature, lengths) = fixed.split_at_mut(proxy::SIGNATURE.len());
        stream.read_exact(signature).await?;
        if signature != proxy::SIGNATURE {
            return Err(ProxyError::Foreign.into());
        }
        stream.read_exact(lengths).await?;
        let begin = proxy::Begin::parse(&fixed)?;
        let mut rest = [0; proxy::MAX_REST];
        let rest = &mut rest[..begin.rest()];
        stream.read_exact(rest).await?;
        Ok(begin.source(&fixed, rest)?.unwrap_or(balancer))
    };
    timeout(PREFACE_WITHIN, header).await.unwrap_or(Err(ProxyError::Late.into()))
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
    stream: TcpStream,
    address: SocketAddr,
    connection: &Connection,
) {
    let _ = stream.set_nodelay(true);
    match handshake::run(&core, &worlds, stream, address.ip(), &connection.place).await {
        Some(playing) => Box::pin(play(core, playing)).await,
        None => debug!(%address, "no session"),
    }
}

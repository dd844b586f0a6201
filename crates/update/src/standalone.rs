//! The update service without login, for a machine that serves nothing but patches.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use shardkeep_connection::{Connection, ConnectionError};
use shardkeep_daemon::{ConnectionLimiter, OverflowPolicy, Slot, accept};
use shardkeep_lanes::Stream;
use shardkeep_wire::preface::{self, Preface, Service};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{Config, Patches, UpdateError, metrics, serve::serve, slots::bounds};

/// Protocol section 4.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a server that serves nothing but patches.
#[derive(Debug, Clone)]
pub struct StandaloneConfig {
    pub patches: Config,
    /// Name of the deployment, as in the clients' preface.
    pub deployment: String,
}

/// Serves until `stop`.
///
/// # Errors
/// The key in the settings is not a public key.
pub async fn serve_standalone(
    listener: TcpListener,
    standalone: &StandaloneConfig,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let patches = Patches::new(&standalone.patches)?;
    let preface = Preface::new(Service::Update, preface::deployment_tag(&standalone.deployment));
    let tasks = TaskTracker::new();
    tasks.spawn(patches.clone().follow(stop.clone()));
    // Connections whose preface has not come yet; each may take a few seconds. Overflow: the oldest connection of the
    // address prefix that has the most of them is closed.
    let pending_limiter = ConnectionLimiter::new(bounds(&standalone.patches, OverflowPolicy::EvictOldest));
    while let Some((stream, peer)) = stop.run_until_cancelled(accept(|| listener.accept())).await {
        let Ok(pending_slot) = pending_limiter.admit(peer.ip()) else {
            metrics::refused("update_pending");
            continue;
        };
        let (patches, stop) = (patches.clone(), stop.clone());
        tasks.spawn(async move {
            client(stream, peer, &preface, &patches, &stop, pending_slot).await;
        });
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn client(
    stream: TcpStream,
    peer: SocketAddr,
    preface: &Preface,
    patches: &Patches,
    stop: &CancellationToken,
    pending_slot: Slot,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "set_nodelay");
    }
    let mut connection = Connection::new(Stream::Tcp(stream), peer, Instant::now(), metrics::violation);
    let greeted = tokio::select! {
        greeted = timeout(PREFACE_TIMEOUT, connection.preface(std::slice::from_ref(preface), None)) => {
            greeted.unwrap_or(Err(ConnectionError::Timeout("send a preface"))).map(drop).map_err(UpdateError::from)
        }
        () = pending_slot.evicted() => Err(UpdateError::Evicted),
    };
    drop(pending_slot);
    let ended = match greeted {
        Ok(()) => serve(&mut connection, patches, stop).await,
        Err(error) => Err(error),
    };
    let Err(error) = ended;
    debug!(%peer, %error, "connection ended");
    connection.close(error.answer().as_ref(), None).await;
}

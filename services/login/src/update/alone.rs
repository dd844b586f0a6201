//! The update service without the rest of login: a machine that serves nothing but patches.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use shardkeep_lanes::Stream;
use shardkeep_wire::preface::{self, Preface, Service};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Config, Patches, serve};
use crate::{LoginError, connection::Connection};

/// Protocol section 4.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// After the accept itself fails, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server of patches alone needs to know.
#[derive(Debug, Clone)]
pub struct Alone {
    pub patches: Config,
    /// Name of the deployment that clients say.
    pub deployment: String,
}

/// Serves until told to stop.
///
/// # Errors
/// The settings are not usable.
pub async fn serve_alone(
    listener: TcpListener,
    alone: &Alone,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let patches = Patches::new(&alone.patches)?;
    let preface = Preface::new(Service::Update, preface::deployment_tag(&alone.deployment));
    let tasks = TaskTracker::new();
    tasks.spawn(patches.clone().follow(stop.clone()));
    // Newcomers who have said nothing yet, each for a few seconds. More wait in the listener's queue.
    let newcomers = std::sync::Arc::new(tokio::sync::Semaphore::new(alone.patches.max_connections));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(newcomer) = newcomers.clone().acquire_owned().await else { break };
        let (patches, stop) = (patches.clone(), stop.clone());
        tasks.spawn(async move {
            client(stream, peer, &preface, &patches, &stop, newcomer).await;
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
    newcomer: tokio::sync::OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "set_nodelay");
    }
    let mut connection = Connection::new(Stream::Tcp(stream), peer, Instant::now());
    let greeted = timeout(PREFACE_WITHIN, connection.preface(preface, None)).await;
    drop(newcomer);
    let ended = match greeted.unwrap_or(Err(LoginError::Timeout("send a preface"))) {
        Ok(_) => serve(&mut connection, patches, stop).await,
        Err(error) => Err(error),
    };
    let Err(error) = ended;
    debug!(%peer, %error, "connection ended");
    connection.close(error.answer().as_ref(), None).await;
}

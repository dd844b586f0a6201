//! The gRPC server of an instance: accepts mutual TLS, reads the peer's name from its certificate once per
//! connection, and serves until the daemon has finished.

use std::{io, sync::Arc, time::Duration};

use metrics::counter;
use shardkeep_daemon::contained;
use shardkeep_types::WorldId;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tracing::{debug, warn};

use crate::{Identity, guard::GuardLayer, metrics::REFUSED, peer_stream::PeerStream};

/// Concurrent handshakes. Further connections wait in the queue of the kernel.
const MAX_HANDSHAKES: usize = 128;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Bound of the connections that wait to be served. Further handshakes wait.
const INCOMING_QUEUE: usize = 64;
/// Time for open streams to end by themselves. Then they are closed.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Limits and keep-alive of both ends of every connection between daemons. A connection whose peer does not answer a
/// ping is closed after `KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT`.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 8 << 20;
const MAX_STREAMS: u32 = 4096;

/// Serves the routes on this socket until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    identity: Arc<Identity>,
    world: WorldId,
    routes: Routes,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (incoming_sender, incoming) = mpsc::channel(INCOMING_QUEUE);
    let accepting = accept(listener, identity, incoming_sender, stop.clone());
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .layer(GuardLayer { world })
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.clone().cancelled_owned());
    let force_close = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_GRACE).await;
    };
    tokio::select! {
        ((), served) = futures::future::join(accepting, serving) => Ok(served?),
        () = force_close => Ok(()),
    }
}

async fn accept(
    listener: TcpListener,
    identity: Arc<Identity>,
    incoming_sender: mpsc::Sender<io::Result<PeerStream>>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()));
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let accepting = || shardkeep_daemon::accept(|| listener.accept());
    while let Some((stream, address)) = stop.run_until_cancelled(accepting()).await {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (acceptor, identity, incoming_sender) =
            (acceptor.clone(), identity.clone(), incoming_sender.clone());
        let handshake = async move {
            let result =
                tokio::time::timeout(HANDSHAKE_DEADLINE, handshake(stream, &acceptor, identity)).await;
            match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    debug!(%address, peer = %stream.peer(), "peer connected");
                    // Fails only when the server has stopped: the connection is dropped, as it should be.
                    let _ = incoming_sender.send(Ok(stream)).await;
                }
                Err(error) => {
                    counter!(REFUSED, "reason" => "handshake").increment(1);
                    warn!(%address, %error, "refused a connection");
                }
            }
            drop(permit);
        };
        // A handshake owns its connection and shares nothing.
        tokio::spawn(contained("TLS handshake", handshake));
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    identity: Arc<Identity>,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let version = identity.version();
    PeerStream::new(acceptor.accept(stream).await?, identity, version)
}

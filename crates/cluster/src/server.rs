//! The gRPC server of an instance: accepts mutual TLS, reads the peer's name from its certificate once per
//! connection, and serves until the daemon has finished.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use metrics::counter;
use shardkeep_daemon::contained;
use shardkeep_types::WorldId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};
use tracing::{debug, warn};

use crate::{Peer, guard::GuardLayer, metrics::REFUSED, peer};

/// Concurrent handshakes. Further connections wait in the queue of the kernel.
const MAX_HANDSHAKES: usize = 128;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Bound of the connections that wait to be served. Further handshakes wait.
const INCOMING_QUEUE: usize = 64;
/// Pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
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
    tls: Arc<rustls::ServerConfig>,
    world: WorldId,
    routes: Routes,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (incoming_sender, incoming) = mpsc::channel(INCOMING_QUEUE);
    let accepting = accept(listener, TlsAcceptor::from(tls), incoming_sender, stop.clone());
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
    acceptor: TlsAcceptor,
    incoming_sender: mpsc::Sender<io::Result<PeerStream>>,
    stop: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let (acceptor, incoming_sender) = (acceptor.clone(), incoming_sender.clone());
        let handshake = async move {
            let result = tokio::time::timeout(HANDSHAKE_DEADLINE, handshake(stream, &acceptor)).await;
            match result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    debug!(%address, peer = %stream.peer, "peer connected");
                    // Fails only when the server has stopped. Then the connection is dropped.
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

async fn handshake(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?;
    let peer = peer::of_certificate(certificate).map_err(io::Error::other)?;
    Ok(PeerStream { stream, peer })
}

/// A connection of an authenticated peer.
struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

//! Server side of QUIC: one UDP socket, Retry for unproved addresses, and limits of concurrent handshakes.

use std::{
    future, io,
    net::SocketAddr,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quinn::{
    Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, crypto::rustls::QuicServerConfig,
};
use socket2::SockRef;
use tracing::{debug, error};

use super::{NO_ERROR, Stream, server_transport};
use crate::{
    Retry,
    tls::{CertificateError, QUIC_PROTOCOL, ServerCertificate, io_error},
};

/// Number of concurrent handshakes from which addresses must be proved first. Below it a client saves a round trip.
/// Above it, a flood with forged addresses costs one small answer per packet, never larger than the packet, and no
/// memory.
const RETRY_THRESHOLD: usize = 64;
/// Bound of attempts that wait to be accepted. Overflow: refused. Data for them is bounded likewise and dropped.
const MAX_INCOMING: usize = 1_024;
const MAX_INCOMING_BYTES: u64 = 16 << 10;
const MAX_INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// Size of the UDP socket's buffers, in each direction.
const SOCKET_BUFFER: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: Endpoint,
    retry: Retry,
    handshakes: Arc<AtomicUsize>,
    retries: AtomicU64,
    failed: Once,
}

/// A client that begins a handshake. Dropping it refuses the client.
#[derive(Debug)]
pub struct IncomingConnection {
    incoming: Incoming,
    _guard: HandshakeGuard,
}

/// A permit of one concurrent handshake.
#[derive(Debug)]
struct HandshakeGuard(Arc<AtomicUsize>);

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    pub(crate) fn config(
        certificate: &ServerCertificate,
        idle: Duration,
    ) -> Result<ServerConfig, CertificateError> {
        let tls = QuicServerConfig::try_from(certificate.server(QUIC_PROTOCOL)?)
            .map_err(|_| rustls::Error::General("no cipher suite for QUIC".into()))?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config
            .transport_config(server_transport(idle))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(MAX_INCOMING_BYTES)
            .incoming_buffer_size_total(MAX_INCOMING_BYTES_TOTAL);
        Ok(config)
    }

    pub(crate) fn bind(config: ServerConfig, address: SocketAddr, retry: Retry) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        // One socket buffers the packets of all players while the endpoint is busy. The system may allow less.
        let options = SockRef::from(&socket);
        for widened in
            [options.set_recv_buffer_size(SOCKET_BUFFER), options.set_send_buffer_size(SOCKET_BUFFER)]
        {
            if let Err(error) = widened {
                debug!(%error, "the socket's buffers stay as they are");
            }
        }
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
        Ok(Self {
            endpoint,
            retry,
            handshakes: Arc::default(),
            retries: AtomicU64::new(0),
            failed: Once::new(),
        })
    }

    /// The next client whose handshake may begin. Cancel-safe.
    pub(crate) async fn accept(&self) -> IncomingConnection {
        loop {
            let Some(incoming) = self.endpoint.accept().await else {
                // The socket has failed permanently. The other lanes continue.
                self.failed.call_once(|| error!("QUIC takes no more connections: its socket has failed"));
                return future::pending().await;
            };
            let retry_required =
                self.retry == Retry::Always || self.handshakes.load(Ordering::Relaxed) >= RETRY_THRESHOLD;
            if retry_required && !incoming.remote_address_validated() {
                debug!(peer = %incoming.remote_address(), "retry");
                self.retries.fetch_add(1, Ordering::Relaxed);
                // The address is not validated, so Retry is allowed.
                let _ = incoming.retry();
                continue;
            }
            self.handshakes.fetch_add(1, Ordering::Relaxed);
            return IncomingConnection { incoming, _guard: HandshakeGuard(self.handshakes.clone()) };
        }
    }

    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    /// Accepted connections continue: the endpoint lives until the last of them ends.
    fn drop(&mut self) {
        self.endpoint.set_server_config(None);
    }
}

impl IncomingConnection {
    pub(crate) fn peer(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Runs the handshake until the client has opened its stream.
    pub(crate) async fn open(self) -> io::Result<Stream> {
        let connection = self.incoming.accept()?.await?;
        match connection.accept_bi().await {
            Ok(streams) => Stream::new(connection, streams, None),
            Err(error) => {
                connection.close(NO_ERROR, b"");
                Err(io_error(error))
            }
        }
    }
}

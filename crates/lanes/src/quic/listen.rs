//! The server's side: one UDP socket, Retry for clients whose address is not proved, and the bounds of handshakes.

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

/// Handshakes under way from which on addresses must be proved first. Until then a client saves a round trip; beyond,
/// a flood with forged addresses costs one small answer each, never larger than what came, and no memory.
const RETRY_THRESHOLD: usize = 64;
/// Attempts that wait to be accepted, and what arrives for one meanwhile. More are refused, or dropped.
const MAX_INCOMING: usize = 1_024;
const MAX_INCOMING_BYTES: u64 = 16 << 10;
const MAX_INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// Bytes of the UDP socket's buffers, in each direction.
const SOCKET_BUFFER: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: Endpoint,
    retry: Retry,
    handshakes: Arc<AtomicUsize>,
    retries: AtomicU64,
    failed: Once,
}

/// A client that begins a handshake. Dropped, it is refused.
#[derive(Debug)]
pub struct IncomingConnection {
    incoming: Incoming,
    _guard: HandshakeGuard,
}

/// One of the handshakes under way.
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
        // One socket holds what all players send while the endpoint is busy. The system may allow less.
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

    /// The next client whose handshake may begin. May be dropped at any time without losing one.
    pub(crate) async fn accept(&self) -> IncomingConnection {
        loop {
            let Some(incoming) = self.endpoint.accept().await else {
                // The socket is lost for good. The other lanes go on.
                self.failed.call_once(|| error!("QUIC takes no more connections: its socket has failed"));
                return future::pending().await;
            };
            let retry_required =
                self.retry == Retry::Always || self.handshakes.load(Ordering::Relaxed) >= RETRY_THRESHOLD;
            if retry_required && !incoming.remote_address_validated() {
                debug!(peer = %incoming.remote_address(), "retry");
                self.retries.fetch_add(1, Ordering::Relaxed);
                // Not validated means that Retry is allowed.
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
    /// Connections that were accepted go on: the endpoint itself lives until the last of them is over.
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

    /// The handshake, until the client has opened its stream.
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

//! The listener of a server: one TCP socket and one UDP socket with the same port number, and one queue of incoming
//! connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use shardkeep_wire::proxy::{self, ProxyError};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    CertificateError, Lane, Settings, Stream, quic,
    rewind::Rewind,
    tcp,
    tls::{HTTP_PROTOCOL, ServerCertificate},
    websocket::{Transport, WebSocket},
};

/// Number of free TCP ports to try until the UDP port is free as well.
const MAX_BIND_ATTEMPTS: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("can not listen on {address} (TCP): {source}")]
    Tcp { address: String, source: io::Error },
    #[error("can not listen on {address} (UDP, for QUIC; `lanes.quic = false` does without): {source}")]
    Udp { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    quic: Option<quic::Listener>,
    upgrade: Option<Arc<Upgrade>>,
}

impl Listener {
    /// `idle` is the idle timeout of QUIC connections.
    ///
    /// # Errors
    /// Fails if an address is in use or the certificate is invalid.
    pub async fn bind(address: &str, settings: &Settings, idle: Duration) -> Result<Self, BindError> {
        let certificate =
            if settings.quic || settings.websocket { Some(ServerCertificate::load(settings)?) } else { None };
        let upgrade = match &certificate {
            Some(certificate) if settings.websocket => Some(Arc::new(Upgrade::new(certificate)?)),
            _ => None,
        };
        let mut attempts = 0;
        loop {
            attempts += 1;
            let bind_error = |source| BindError::Tcp { address: address.to_owned(), source };
            let tcp = tcp::listen(address).await.map_err(bind_error)?;
            let bound = tcp.local_addr().map_err(bind_error)?;
            let quic = match &certificate {
                Some(certificate) if settings.quic => {
                    let config = quic::Listener::config(certificate, idle)?;
                    match quic::Listener::bind(config, bound, settings.retry) {
                        Ok(quic) => Some(quic),
                        // The system chose the port, so another one is fine.
                        Err(error)
                            if error.kind() == io::ErrorKind::AddrInUse
                                && address.ends_with(":0")
                                && attempts < MAX_BIND_ATTEMPTS =>
                        {
                            continue;
                        }
                        Err(source) => return Err(BindError::Udp { address: bound, source }),
                    }
                }
                _ => None,
            };
            return Ok(Self { tcp, quic, upgrade });
        }
    }

    /// # Errors
    /// Errors of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Upgrades that TCP connections may make; `None`: no upgrade.
    pub fn upgrade(&self) -> Option<Arc<Upgrade>> {
        self.upgrade.clone()
    }

    /// Accepts the next connection of any lane. Cancel-safe.
    ///
    /// # Errors
    /// Fails for example if no file descriptor is free. The next call may succeed.
    pub async fn accept(&self) -> io::Result<IncomingConnection> {
        let Some(quic) = &self.quic else { return self.accept_tcp().await };
        tokio::select! {
            incoming = self.accept_tcp() => incoming,
            incoming = quic.accept() => Ok(IncomingConnection::Quic(Box::new(incoming))),
        }
    }

    async fn accept_tcp(&self) -> io::Result<IncomingConnection> {
        let (stream, peer) = self.tcp.accept().await?;
        Ok(IncomingConnection::Tcp(stream, peer))
    }

    /// Number of QUIC clients that received Retry.
    pub fn retries(&self) -> u64 {
        self.quic.as_ref().map_or(0, quic::Listener::retries)
    }
}

/// An incoming connection before its first read. Dropping it closes the connection.
#[derive(Debug)]
pub enum IncomingConnection {
    Tcp(TcpStream, SocketAddr),
    Quic(Box<quic::IncomingConnection>),
}

impl IncomingConnection {
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Tcp(_, peer) => *peer,
            Self::Quic(incoming) => incoming.peer(),
        }
    }

    /// Reads the client's address from a PROXY protocol v2 header. A connection of the balancer itself, such as a
    /// health check, keeps the balancer's address. QUIC has no header, because TCP balancers do not carry it. The
    /// caller limits the time.
    ///
    /// # Errors
    /// Fails if the header is missing or damaged, or the connection ends.
    pub async fn read_proxy_header<E: From<io::Error> + From<ProxyError>>(&mut self) -> Result<(), E> {
        let Self::Tcp(stream, peer) = self else { return Ok(()) };
        let mut fixed = [0; proxy::FIXED_LENGTH];
        // Read the signature first: a client that sends something else may send fewer bytes and then wait.
        let (signature, lengths) = fixed.split_at_mut(proxy::SIGNATURE.len());
        stream.read_exact(signature).await?;
        if signature != proxy::SIGNATURE {
            return Err(ProxyError::NotProxyProtocol.into());
        }
        stream.read_exact(lengths).await?;
        let begin = proxy::FixedHeader::parse(&fixed)?;
        let mut rest = [0; proxy::MAX_REST];
        let rest = &mut rest[..begin.rest()];
        stream.read_exact(rest).await?;
        if let Some(client) = begin.source(&fixed, rest)? {
            *peer = client;
        }
        Ok(())
    }

    /// The lane, as far as it is known before the first read: a WebSocket begins as TCP.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Tcp(..) => Lane::Tcp,
            Self::Quic(_) => Lane::Quic,
        }
    }

    /// Refuses the connection. Sends `reply` if that needs no waiting.
    pub fn refuse(self, reply: &[u8]) {
        match self {
            // Best effort: a full socket buffer drops the reply.
            Self::Tcp(stream, _) => drop(stream.try_write(reply)),
            Self::Quic(incoming) => incoming.refuse(),
        }
    }

    /// Runs the handshake of the lane. The caller limits the time.
    ///
    /// # Errors
    /// Fails if the handshake fails.
    pub async fn open(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream, _) => Ok(Stream::Tcp(stream)),
            Self::Quic(incoming) => Ok(Stream::Quic(Box::new(Box::pin(incoming.open()).await?))),
        }
    }
}

/// Upgrades a TCP connection that begins with HTTP, or with TLS, to a WebSocket.
pub struct Upgrade {
    tls: TlsAcceptor,
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}

impl Upgrade {
    fn new(certificate: &ServerCertificate) -> Result<Self, CertificateError> {
        Ok(Self { tls: TlsAcceptor::from(Arc::new(certificate.server(HTTP_PROTOCOL)?)) })
    }

    /// Whether these bytes begin an HTTP request of the right method, or a TLS handshake.
    pub(crate) fn is_upgrade(&self, first: &[u8]) -> bool {
        first.starts_with(b"GET ") || is_tls(first)
    }

    pub(crate) async fn accept(&self, stream: TcpStream, first: Bytes) -> io::Result<WebSocket> {
        let tls = is_tls(&first);
        let stream = Rewind::new(first, stream);
        if !tls {
            return WebSocket::accept(Transport::Plain(stream)).await;
        }
        let stream = self.tls.accept(stream).await?;
        WebSocket::accept(Transport::Tls(Box::new(stream.into()))).await
    }
}

/// A record of type handshake and of any version (RFC 8446, section 5.1).
fn is_tls(first: &[u8]) -> bool {
    first.starts_with(&[0x16, 0x03])
}

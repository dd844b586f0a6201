//! A server's address: one TCP socket and one UDP socket of the same number, and one queue of those who come.

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

/// Free TCP ports tried for one whose UDP port is free as well.
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
    /// `idle`: how long a QUIC connection may be silent.
    ///
    /// # Errors
    /// When an address is taken, or the certificate can not be used.
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
                        // The port was ours to choose: choose another.
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
    /// As the system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// What TCP connections may become; `None`: what they are.
    pub fn upgrade(&self) -> Option<Arc<Upgrade>> {
        self.upgrade.clone()
    }

    /// The next who comes, on whichever lane. May be dropped at any time without losing anybody.
    ///
    /// # Errors
    /// When the system has no more files, for example. The next call may succeed.
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

    /// How many QUIC clients were told to prove their address first.
    pub fn retries(&self) -> u64 {
        self.quic.as_ref().map_or(0, quic::Listener::retries)
    }
}

/// Somebody who came. Nothing has been read; dropped, the connection is closed.
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

    /// Learns from the header of PROXY protocol v2 for whom a balancer connects, and takes that for the peer. A connection
    /// of the balancer's own, such as a health check, stays its own; QUIC does not come through balancers of TCP. The
    /// caller bounds the time.
    ///
    /// # Errors
    /// When there is no header, or it is damaged, or the connection ends.
    pub async fn read_proxy_header<E: From<io::Error> + From<ProxyError>>(&mut self) -> Result<(), E> {
        let Self::Tcp(stream, peer) = self else { return Ok(()) };
        let mut fixed = [0; proxy::FIXED_LENGTH];
        // The signature first: who speaks something else may well say less, and then wait.
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

    /// As far as one can tell before anything is read: a WebSocket begins as TCP.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Tcp(..) => Lane::Tcp,
            Self::Quic(_) => Lane::Quic,
        }
    }

    /// Turns the client away; `reply` is told where that takes no waiting.
    pub fn refuse(self, reply: &[u8]) {
        match self {
            // Best effort, by intention.
            Self::Tcp(stream, _) => drop(stream.try_write(reply)),
            Self::Quic(incoming) => incoming.refuse(),
        }
    }

    /// The lane's own handshake. The caller bounds the time.
    ///
    /// # Errors
    /// When it fails.
    pub async fn open(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream, _) => Ok(Stream::Tcp(stream)),
            Self::Quic(incoming) => Ok(Stream::Quic(Box::new(Box::pin(incoming.open()).await?))),
        }
    }
}

/// Turns a TCP connection that speaks HTTP, or TLS and HTTP in it, into a WebSocket.
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

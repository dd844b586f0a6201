//! The address of a server: one TCP socket and one UDP socket of the same number, and one queue of incoming connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use shardkeep_wire::proxy::{self, ProxyError};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    Lane, Settings, Stream, quic, tcp,
    tls::{CertificateError, ServerCertificate},
    upgrade::Upgrade,
};

/// Free TCP ports tried for one whose UDP port is free as well.
const MAX_BIND_ATTEMPTS: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address} (TCP): {source}")]
    Tcp { address: String, source: io::Error },
    #[error("cannot listen on {address} (UDP, for QUIC; `lanes.quic = false` does without): {source}")]
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
    /// When an address is taken, or the certificate cannot be used.
    pub async fn bind(address: &str, settings: &Settings, idle: Duration) -> Result<Self, BindError> {
        let certificate =
            if settings.quic || settings.websocket { Some(ServerCertificate::load(settings)?) } else { None };
        let upgrade = match &certificate {
            Some(certificate) if settings.websocket => {
                Some(Arc::new(Upgrade::new(certificate, settings.allowed_origins.clone())?))
            }
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
                        // The TCP port was chosen by the system: try another.
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

    /// Turns TCP connections into WebSockets; `None`: the settings have none.
    pub fn upgrade(&self) -> Option<Arc<Upgrade>> {
        self.upgrade.clone()
    }

    /// The next connection on any lane. Dropping the future loses no connection.
    ///
    /// # Errors
    /// For example when the process has no more file descriptors. The next call may succeed.
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

    /// Number of QUIC clients that had to prove their address first.
    pub fn retries(&self) -> u64 {
        self.quic.as_ref().map_or(0, quic::Listener::retries)
    }
}

/// A connection from which nothing has been read. Dropping it closes it.
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

    /// Reads the header of PROXY protocol v2, and takes the client that it names for the peer. Without a client in it, as
    /// in a health check, the balancer stays the peer. QUIC does not come through balancers of TCP. The caller bounds the
    /// time.
    ///
    /// # Errors
    /// When there is no header, or it is damaged, or the connection ends.
    pub async fn read_proxy_header<E: From<io::Error> + From<ProxyError>>(&mut self) -> Result<(), E> {
        let Self::Tcp(stream, peer) = self else { return Ok(()) };
        let mut fixed = [0; proxy::FIXED_LENGTH];
        // The signature first: a peer that speaks another protocol may send fewer bytes and then wait.
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

    /// The lane as far as it is known before anything is read: a WebSocket begins as TCP.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Tcp(..) => Lane::Tcp,
            Self::Quic(_) => Lane::Quic,
        }
    }

    /// Refuses the client; `reply` is sent if the socket takes it at once.
    pub fn refuse(self, reply: &[u8]) {
        match self {
            // Whether the reply arrives does not matter.
            Self::Tcp(stream, _) => drop(stream.try_write(reply)),
            Self::Quic(incoming) => incoming.refuse(),
        }
    }

    /// Performs the lane's handshake. The caller bounds the time.
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

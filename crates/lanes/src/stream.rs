//! A connection of any lane with the interface of a TCP socket: a task waits until it is readable or writable, and
//! then reads or writes without waiting.

use std::{
    future, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{Lane, Upgrade, quic, tcp, websocket::WebSocket};

/// An enum, so that TCP, the lane of most connections, pays one branch.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Quic(Box<quic::Stream>),
    WebSocket(Box<WebSocket>),
    /// The upgrade to a WebSocket failed, and the connection is closed.
    Closed,
}

impl Stream {
    pub fn lane(&self) -> Lane {
        match self {
            Self::Tcp(_) | Self::Closed => Lane::Tcp,
            Self::Quic(_) => Lane::Quic,
            Self::WebSocket(socket) => socket.lane(),
        }
    }

    /// # Errors
    /// Fails if the connection is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Quic(stream) => stream.local_addr(),
            Self::WebSocket(socket) => socket.local_addr(),
            Self::Closed => Err(not_connected()),
        }
    }

    /// The TLS exporter: 32 bytes that only the two ends of the TLS connection know. They enter the transcripts, so
    /// an attacker in between is detected. Browsers do not expose it, so a WebSocket has none.
    pub fn exporter(&self) -> Option<[u8; 32]> {
        match self {
            Self::Quic(stream) => Some(stream.exporter()),
            _ => None,
        }
    }

    /// Reads the first `N` bytes from the client. If they begin HTTP or TLS, and `upgrade` allows it, the connection
    /// becomes a WebSocket, and the result is the first `N` bytes of its content. The caller limits the time.
    ///
    /// # Errors
    /// Fails if the connection ends first, or begins with neither.
    pub async fn first<const N: usize>(&mut self, upgrade: Option<&Upgrade>) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).await?;
        if let Some(upgrade) = upgrade
            && matches!(self, Self::Tcp(_))
            && upgrade.is_upgrade(&bytes)
            && let Self::Tcp(stream) = std::mem::replace(self, Self::Closed)
        {
            let first = Bytes::copy_from_slice(&bytes);
            *self = Self::WebSocket(Box::new(Box::pin(upgrade.accept(stream, first)).await?));
            self.read_exact(&mut bytes).await?;
        }
        Ok(bytes)
    }

    /// Waits until there may be bytes to read. Meanwhile it sends bytes that an earlier write accepted.
    ///
    /// # Errors
    /// Fails if the connection is closed.
    pub async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Like [`Self::readable`], as a poll for one task.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Quic(stream) => stream.poll_readable(cx),
            Self::WebSocket(socket) => socket.poll_readable(cx),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }

    /// Waits until a write may succeed.
    ///
    /// # Errors
    /// Fails if the connection is closed.
    pub async fn writable(&self) -> io::Result<()> {
        future::poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// Like [`Self::writable`], as a poll for one task.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Quic(stream) => stream.poll_writable(cx),
            Self::WebSocket(socket) => socket.poll_writable(cx),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }

    /// Reads received bytes. `Ok(0)`: the peer has finished.
    ///
    /// # Errors
    /// `WouldBlock`: nothing was received; wait for [`Self::readable`]. Others: the connection is closed.
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let bytes = match self {
            Self::Tcp(stream) => return stream.try_read_buf(buffer),
            Self::Quic(stream) => stream.try_take(usize::MAX)?,
            Self::WebSocket(socket) => socket.try_take(usize::MAX)?,
            Self::Closed => return Err(not_connected()),
        };
        buffer.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Like [`Self::try_read_buf`], into a slice. The rest can be read later.
    ///
    /// # Errors
    /// Fails like [`Self::try_read_buf`].
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = match self {
            Self::Tcp(stream) => return tcp::try_read(stream, buffer),
            Self::Quic(stream) => stream.try_take(buffer.len())?,
            Self::WebSocket(socket) => socket.try_take(buffer.len())?,
            Self::Closed => return Err(not_connected()),
        };
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Writes as many bytes as possible without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: nothing was written; wait for [`Self::writable`]. Others: the connection is closed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Quic(stream) => stream.try_write(bytes),
            Self::WebSocket(socket) => socket.try_write(bytes),
            Self::Closed => Err(not_connected()),
        }
    }

    /// Largest datagram that the peer accepts now. `None`: it accepts none, or the lane has none.
    pub fn max_datagram(&self) -> Option<usize> {
        match self {
            Self::Quic(stream) => stream.max_datagram(),
            _ => None,
        }
    }

    /// Sends a datagram, which may be lost. False: it was not sent.
    pub fn send_datagram(&self, datagram: Bytes) -> bool {
        match self {
            Self::Quic(stream) => stream.send_datagram(datagram),
            _ => false,
        }
    }

    /// Waits for a datagram. Never returns on lanes without datagrams.
    ///
    /// # Errors
    /// Fails if the connection is closed.
    pub async fn datagram(&self) -> io::Result<Bytes> {
        match self {
            Self::Quic(stream) => stream.datagram().await,
            _ => future::pending().await,
        }
    }

    /// Continues from another local port, like a device that changes its network. Only for QUIC clients.
    ///
    /// # Errors
    /// `Unsupported` on the other lanes.
    pub fn migrate(&self) -> io::Result<()> {
        match self {
            Self::Quic(stream) => stream.migrate(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Quic(stream) => stream.poll_read(cx, buffer),
            Self::WebSocket(socket) => socket.poll_read(cx, buffer),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Quic(stream) => stream.poll_write(cx, bytes),
            Self::WebSocket(socket) => socket.poll_write(cx, bytes),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Quic(stream) => stream.poll_writable(cx),
            Self::WebSocket(socket) => socket.poll_writable(cx),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Quic(stream) => stream.poll_shutdown(cx),
            Self::WebSocket(socket) => socket.poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

//! A connection on any lane, with the interface of a TCP socket: a task waits until the connection is readable or
//! writable, then reads or writes without waiting.

use std::{
    future, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use crate::{CloseCode, Lane, quic, tcp, upgrade::Upgrade, websocket::WebSocket};

/// Bytes per read until the first message is complete.
const FIRST_READ: usize = 512;

/// An enum, so that TCP, the most common lane, costs one branch.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Quic(Box<quic::Stream>),
    WebSocket(Box<WebSocket>),
    /// The upgrade to a WebSocket failed.
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
    /// When the connection is lost.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Quic(stream) => stream.local_addr(),
            Self::WebSocket(socket) => socket.local_addr(),
            Self::Closed => Err(not_connected()),
        }
    }

    /// 32 bytes of the TLS exporter, known only to the two ends of the TLS connection. They enter the handshake
    /// transcripts and so detect a machine in the middle. `None` on TCP, and on WebSockets, where browsers do not
    /// show them to scripts.
    pub fn exporter(&self) -> Option<[u8; 32]> {
        match self {
            Self::Quic(stream) => Some(stream.exporter()),
            _ => None,
        }
    }

    /// Reads the first `N` bytes that the client sends; further bytes of the same read go into `rest`. If the bytes
    /// begin HTTP or TLS and `upgrade` allows it, the connection becomes a WebSocket, and the first `N` bytes inside
    /// it are returned. The caller bounds the time.
    ///
    /// # Errors
    /// When the connection ends early, or the bytes begin neither.
    pub async fn first<const N: usize>(
        &mut self,
        upgrade: Option<&Upgrade>,
        rest: &mut BytesMut,
    ) -> io::Result<[u8; N]> {
        self.read_at_least(N, rest).await?;
        if let Some(upgrade) = upgrade
            && matches!(self, Self::Tcp(_))
            && upgrade.is_upgrade(rest)
            && let Self::Tcp(stream) = std::mem::replace(self, Self::Closed)
        {
            let first = std::mem::take(rest).freeze();
            *self = Self::WebSocket(Box::new(Box::pin(upgrade.accept(stream, first)).await?));
            self.read_at_least(N, rest).await?;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&rest.split_to(N));
        Ok(bytes)
    }

    async fn read_at_least(&self, count: usize, into: &mut BytesMut) -> io::Result<()> {
        while into.len() < count {
            self.readable().await?;
            let mut buffer = [0; FIRST_READ];
            match self.try_read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => into.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes the connection. On a WebSocket this is the closing handshake with this code. The caller bounds the time.
    ///
    /// # Errors
    /// When the connection is lost first.
    pub async fn close(&mut self, code: CloseCode) -> io::Result<()> {
        match self {
            Self::WebSocket(socket) => future::poll_fn(|cx| socket.poll_close(cx, code)).await,
            other => other.shutdown().await,
        }
    }

    /// Waits until a read may succeed. Meanwhile it flushes bytes of earlier writes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn readable(&self) -> io::Result<()> {
        future::poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// As [`Self::readable`], for a single task and without allocating a future.
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
    /// When the connection is lost.
    pub async fn writable(&self) -> io::Result<()> {
        future::poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// As [`Self::writable`], for a single task and without allocating a future.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Quic(stream) => stream.poll_writable(cx),
            Self::WebSocket(socket) => socket.poll_writable(cx),
            Self::Closed => Poll::Ready(Err(not_connected())),
        }
    }

    /// Reads the bytes that have arrived. `Ok(0)`: the peer has finished.
    ///
    /// # Errors
    /// `WouldBlock` when none have arrived; wait for [`Self::readable`]. Others: the connection is lost.
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

    /// Reads into a slice of any length. Bytes that do not fit can be read later.
    ///
    /// # Errors
    /// As [`Self::try_read_buf`].
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
    /// `WouldBlock` when none can be written; wait for [`Self::writable`]. Others: the connection is lost.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Quic(stream) => stream.try_write(bytes),
            Self::WebSocket(socket) => socket.try_write(bytes),
            Self::Closed => Err(not_connected()),
        }
    }

    /// Largest datagram that the peer accepts at the moment. `None`: the peer or the lane has no datagrams.
    pub fn max_datagram(&self) -> Option<usize> {
        match self {
            Self::Quic(stream) => stream.max_datagram(),
            _ => None,
        }
    }

    /// Sends a datagram, which may be lost. Returns false if it was not sent at all.
    pub fn send_datagram(&self, datagram: Bytes) -> bool {
        match self {
            Self::Quic(stream) => stream.send_datagram(datagram),
            _ => false,
        }
    }

    /// Waits for a datagram. Never returns on a lane without datagrams.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn datagram(&self) -> io::Result<Bytes> {
        match self {
            Self::Quic(stream) => stream.datagram().await,
            _ => future::pending().await,
        }
    }

    /// Continues from another local port, as a device does that changes its network. Only for QUIC clients.
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

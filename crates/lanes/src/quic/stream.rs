//! The single stream of a connection, together with its connection.

use std::{
    fmt, io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, ReadError, RecvStream, SendStream, WriteError};
use tokio::io::ReadBuf;

use super::NO_ERROR;
use crate::{
    read_ahead::{ReadAhead, poll_now},
    tls::{EXPORTER, io_error},
};

/// Size of a read, on the stack: a waiting connection holds no buffer.
const READ_CHUNK: usize = 4 << 10;
/// Bytes accepted while the stream is blocked. QUIC reports when a write succeeds, not when one would, so waiting
/// for writability is the write of these bytes.
const MAX_UNSENT: usize = 1 << 10;

pub struct Stream {
    connection: Connection,
    exporter: [u8; 32],
    receive: Mutex<ReceiveHalf>,
    send: Mutex<SendHalf>,
    /// Each client connection has its own endpoint, so that it can migrate.
    endpoint: Option<Endpoint>,
}

struct ReceiveHalf {
    stream: RecvStream,
    read_ahead: ReadAhead,
}

struct SendHalf {
    stream: SendStream,
    unsent: BytesMut,
    /// Set when the stream is finished: resolves when the peer has received everything.
    finished: Option<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("quic::Stream")
            .field("peer", &self.connection.remote_address())
            .finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(
        connection: Connection,
        (send, receive): (SendStream, RecvStream),
        endpoint: Option<Endpoint>,
    ) -> io::Result<Self> {
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, EXPORTER, b"")
            .map_err(|_| io_error("TLS gives no exporter"))?;
        Ok(Self {
            connection,
            exporter,
            receive: Mutex::new(ReceiveHalf { stream: receive, read_ahead: ReadAhead::default() }),
            send: Mutex::new(SendHalf { stream: send, unsent: BytesMut::new(), finished: None }),
            endpoint,
        })
    }

    pub(crate) fn exporter(&self) -> [u8; 32] {
        self.exporter
    }

    /// Client: its local port. Server: the address that the client reached.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.endpoint {
            Some(endpoint) => endpoint.local_addr(),
            None => {
                let ip = self.connection.local_ip().unwrap_or(Ipv6Addr::UNSPECIFIED.into());
                Ok(SocketAddr::new(ip, 0))
            }
        }
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.send.lock().poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        self.receive.lock().poll_readable(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.lock().poll_unsent(cx)
    }

    /// Received bytes, at most `most`.
    pub(crate) fn try_take(&self, most: usize) -> io::Result<Bytes> {
        let mut receive = self.receive.lock();
        poll_now(|cx| receive.poll_readable(cx))?;
        Ok(receive.read_ahead.take(most))
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_now(|cx| self.send.lock().poll_write(cx, bytes))
    }

    pub(crate) fn max_datagram(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    pub(crate) fn send_datagram(&self, datagram: Bytes) -> bool {
        self.connection.send_datagram(datagram).is_ok()
    }

    pub(crate) async fn datagram(&self) -> io::Result<Bytes> {
        Ok(self.connection.read_datagram().await?)
    }

    pub(crate) fn migrate(&self) -> io::Result<()> {
        let endpoint = self.endpoint.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut local_address = endpoint.local_addr()?;
        local_address.set_port(0);
        endpoint.rebind(UdpSocket::bind(local_address)?)
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.send.get_mut().poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        let receive = self.receive.get_mut();
        if receive.read_ahead.needs_read() {
            let before = buffer.filled().len();
            ready!(receive.stream.poll_read_buf(cx, buffer)).map_err(read_error)?;
            if buffer.filled().len() == before && buffer.remaining() > 0 {
                receive.read_ahead.end();
            }
            return Poll::Ready(Ok(()));
        }
        buffer.put_slice(&receive.read_ahead.take(buffer.remaining()));
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = self.send.get_mut();
        ready!(send.poll_unsent(cx))?;
        Pin::new(&mut send.stream).poll_write(cx, bytes).map_err(write_error)
    }

    /// Ready when the peer has received everything. A connection that is dropped earlier loses data in flight.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = self.send.get_mut();
        ready!(send.poll_unsent(cx))?;
        if send.finished.is_none() {
            // If it is finished already, or stopped by the peer, `stopped` reports that.
            let _ = send.stream.finish();
            let stopped = send.stream.stopped();
            send.finished = Some(Box::pin(async move {
                let _ = stopped.await;
            }));
        }
        if let Some(finished) = &mut send.finished {
            ready!(finished.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.close(NO_ERROR, b"");
    }
}

impl ReceiveHalf {
    /// Ready when `read_ahead` holds bytes, or the peer has finished.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.read_ahead.needs_read() {
            let mut bytes = [0; READ_CHUNK];
            match ready!(self.stream.poll_read(cx, &mut bytes)).map_err(read_error)? {
                0 => self.read_ahead.end(),
                count => self.read_ahead.put(Bytes::copy_from_slice(&bytes[..count])),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl SendHalf {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let count =
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent)).map_err(write_error)?;
            let _ = self.unsent.split_to(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => Poll::Ready(written.map_err(write_error)),
            Poll::Pending => {
                let count = bytes.len().min(MAX_UNSENT);
                self.unsent = BytesMut::from(&bytes[..count]);
                Poll::Ready(Ok(count))
            }
        }
    }
}

fn read_error(error: ReadError) -> io::Error {
    error.into()
}

fn write_error(error: WriteError) -> io::Error {
    error.into()
}

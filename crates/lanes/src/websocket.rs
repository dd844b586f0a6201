//! A WebSocket (RFC 6455) as a stream of bytes: binary messages, whose borders mean nothing. Pings are answered by
//! the library, and count for nothing: who only pings says nothing.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};

use crate::{
    Lane,
    read_ahead::{ReadAhead, poll_now},
    rewind::Rewind,
    tls::io_error,
};

/// Subprotocol of the client protocol, for clients that name one.
const PROTOCOL: &str = "shardkeep.v1";
/// Bytes of one message. The greatest record and its length fit into two.
const MAX_MESSAGE: usize = 64 << 10;
/// Kept for each connection; the largest record of a client takes two reads.
const READ_BUFFER: usize = 4 << 10;

#[derive(Debug)]
pub struct WebSocket {
    lane: Lane,
    local: SocketAddr,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: WebSocketStream<Transport>,
    /// Of the message read last, what nobody took yet.
    read_ahead: ReadAhead,
    /// A message was given to the library and not yet, or not wholly, to the socket. Nothing is accepted before it is.
    unsent: bool,
}

#[derive(Debug)]
pub(crate) enum Transport {
    Plain(Rewind),
    Tls(Box<TlsStream<Rewind>>),
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl WebSocket {
    /// The server's side of the upgrade. Which path, host and origin a client names does not matter: what it may do
    /// follows from its proof, not from where its program was loaded.
    pub(crate) async fn accept(transport: Transport) -> io::Result<Self> {
        #[allow(clippy::result_large_err, reason = "the library's type")]
        let answer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
            if offered.is_some_and(|offered| offered.split(',').any(|it| it.trim() == PROTOCOL)) {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
            }
            Ok(response)
        };
        let (lane, local) = transport.kind()?;
        let socket = accept_hdr_async_with_config(transport, answer, Some(limits())).await;
        Ok(Self::new(lane, local, socket.map_err(websocket_error)?))
    }

    pub(crate) async fn connect(address: SocketAddr, transport: Transport) -> io::Result<Self> {
        let (lane, local) = transport.kind()?;
        let mut request = format!("{lane}://{address}/").into_client_request().map_err(websocket_error)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        let socket = client_async_with_config(request, transport, Some(limits())).await;
        Ok(Self::new(lane, local, socket.map_err(websocket_error)?.0))
    }

    fn new(lane: Lane, local: SocketAddr, socket: WebSocketStream<Transport>) -> Self {
        let inner = Inner { socket, read_ahead: ReadAhead::default(), unsent: false };
        Self { lane, local, inner: Mutex::new(inner) }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_readable(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_flushed(cx)
    }

    /// The bytes that have arrived, `most` at most.
    pub(crate) fn try_take(&self, most: usize) -> io::Result<Bytes> {
        let mut inner = self.inner.lock();
        poll_now(|cx| inner.poll_readable(cx))?;
        Ok(inner.read_ahead.take(most))
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_now(|cx| self.inner.lock().poll_write(cx, bytes))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = self.inner.get_mut();
        ready!(inner.poll_readable(cx))?;
        buffer.put_slice(&inner.read_ahead.take(buffer.remaining()));
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.get_mut().poll_write(cx, bytes)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.inner.get_mut();
        ready!(inner.poll_flushed(cx))?;
        Pin::new(&mut inner.socket).poll_close(cx).map_err(websocket_error)
    }
}

impl Inner {
    /// Ready: `read_ahead` holds something, or the other side has finished.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
            return Poll::Ready(Err(error));
        }
        while self.read_ahead.needs_read() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.read_ahead.put(bytes),
                Some(Ok(Message::Text(_))) => {
                    let text = "a text message: the protocol's are binary";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Some(Ok(Message::Close(_))) | None => self.read_ahead.end(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(websocket_error(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready: everything accepted so far is with the socket.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(websocket_error)?;
            self.unsent = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flushed(cx))?;
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(websocket_error)?;
        let bytes = &bytes[..bytes.len().min(MAX_MESSAGE)];
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(Bytes::copy_from_slice(bytes)))
            .map_err(websocket_error)?;
        self.unsent = true;
        if let Poll::Ready(Err(error)) = self.poll_flushed(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

impl Transport {
    fn kind(&self) -> io::Result<(Lane, SocketAddr)> {
        let (lane, tcp): (_, &TcpStream) = match self {
            Self::Plain(stream) => (Lane::Ws, stream.get_ref()),
            Self::Tls(stream) => (Lane::Wss, stream.get_ref().0.get_ref()),
        };
        Ok((lane, tcp.local_addr()?))
    }
}

fn websocket_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::NotConnected.into()
        }
        error => io_error(error),
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
